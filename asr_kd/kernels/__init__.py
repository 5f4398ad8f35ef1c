"""CPU kernels in numba, each beside its reference in torch; `asr_kd.kernels.switch` chooses between the two.

The operations are attributes of this package, so that callers need not know where they live:

    from asr_kd import kernels
    loss, correct = kernels.cross_entropy(logits, senones, weights)

torch and numba are loaded when the first of them is used, not when the package is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_kd.kernels.dropout import dropout_mask
    from asr_kd.kernels.optimizer import adamw
    from asr_kd.kernels.softmax import cross_entropy, soft_cross_entropy

__all__ = ["adamw", "cross_entropy", "dropout_mask", "soft_cross_entropy"]

_MODULES = {
    "adamw": "optimizer",
    "cross_entropy": "softmax",
    "dropout_mask": "dropout",
    "soft_cross_entropy": "softmax",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)

"""The one switch between the numba kernels and torch: the environment variable ASR_KD_KERNELS.

- `numba` (or unset): every kernel in numba where its tensors are on the CPU and of a type that it handles;
- `torch`: none of them;
- names of kernels, separated by commas (`adamw,relu_dropout`): these in numba, the others in torch.
"""

from __future__ import annotations

import functools
import os

import torch
from torch import Tensor

from asr_kd.errors import UserError

VARIABLE = "ASR_KD_KERNELS"
KERNELS = frozenset(
    {
        "adamw",
        "clip_column_norms_",
        "cross_entropy",
        "dropout_mask",
        "ensemble_log_mean",
        "relu_dropout",
        "soft_cross_entropy",
    }
)


def use_numba(kernel: str, *tensors: Tensor, bfloat16: bool = False) -> bool:
    """Whether this kernel runs in numba on these tensors: on the CPU, of float32 (or bfloat16 where it handles that).

    Raises:
      UserError: the variable names a kernel that does not exist.
    """
    types = (torch.float32, torch.bfloat16) if bfloat16 else (torch.float32,)
    return kernel in _enabled(os.environ.get(VARIABLE, "numba")) and all(
        tensor.device.type == "cpu" and tensor.dtype in types for tensor in tensors
    )


@functools.cache
def _enabled(value: str) -> frozenset[str]:
    if value in ("", "numba"):
        return KERNELS
    names = frozenset() if value == "torch" else frozenset(name.strip() for name in value.split(","))
    if names - KERNELS:
        raise UserError(
            f"{VARIABLE}={value}: it must be numba, torch or names of kernels ({', '.join(sorted(KERNELS))})."
        )
    return names

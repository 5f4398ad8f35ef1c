"""The one switch between the numba kernels and torch: the environment variable ASR_KD_KERNELS.

- `numba` (or unset): every kernel in numba where its tensors are on the CPU and of a type that it handles;
- `torch`: none of them;
- names of kernels, separated by commas (`adamw,dropout_mask`): these in numba, the others in torch.
"""

from __future__ import annotations

import functools
import os

import torch
from torch import Tensor

from asr_kd.errors import UserError

VARIABLE = "ASR_KD_KERNELS"
KERNELS = frozenset({"adamw", "cross_entropy", "dropout_mask", "soft_cross_entropy"})


def use_numba(kernel: str, *tensors: Tensor) -> bool:
    """Whether this kernel runs in numba on these tensors: on the CPU, of float32.

    Raises:
      UserError: the variable names a kernel that does not exist.
    """
    return kernel in _enabled(os.environ.get(VARIABLE, "numba")) and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors
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

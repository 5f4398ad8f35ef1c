"""bfloat16 tensors for compiled loops: numba has no such type, so it sees their numbers as 16 bits each.

The conversions of single numbers are repeated in each module that compiles them in: numba's cache on disk follows
changes of the module that a compiled function is in, but not of other modules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def memory_of(tensor: Tensor) -> NDArray[Any]:
    """The memory of a contiguous float32 or bfloat16 tensor on the CPU: float32, or the bits of bfloat16 as uint16.

    Writing to the array changes the tensor.
    """
    memory: NDArray[Any] = bits_of(tensor) if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
    return memory


def bits_of(tensor: Tensor) -> NDArray[np.uint16]:
    """The memory of a contiguous bfloat16 tensor on the CPU, in its shape; writing to it changes the tensor."""
    bits: NDArray[np.uint16] = tensor.detach().view(torch.int16).numpy().view(np.uint16)
    return bits

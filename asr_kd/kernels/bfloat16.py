"""bfloat16 for compiled loops: numba has no such type, so its numbers are handled as the 16 bits that they are.

numba does not see that a function it has compiled into another one was changed: after a change here, delete what it
keeps of `activation`, `adam` and `norms` in __pycache__.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

from asr_kd.kernels.numba_utils import compiled


def memory_of(tensor: Tensor) -> NDArray[Any]:
    """The memory of a contiguous float32 or bfloat16 tensor on the CPU, for `as_float32` and `as_kept` to go through.

    What is written there is in the tensor.
    """
    memory: NDArray[Any] = bits_of(tensor) if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
    return memory


def bits_of(tensor: Tensor) -> NDArray[np.uint16]:
    """The memory of a contiguous bfloat16 tensor on the CPU, in its shape; what is written there is in the tensor."""
    bits: NDArray[np.uint16] = tensor.detach().view(torch.int16).numpy().view(np.uint16)
    return bits


@compiled()
def widened(bits):  # type: ignore[no-untyped-def]
    """The float32 of the bits of a bfloat16."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled()
def narrowed(number):  # type: ignore[no-untyped-def]
    """The bits of the nearest bfloat16 of a float32, of the even one where two are as near, as torch rounds."""
    if number != number:
        return np.uint16(0x7FC0)  # rounding could carry into the sign
    bits = np.float32(number).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def as_float32(number):  # type: ignore[no-untyped-def]
    """In compiled code: the float32 of a number out of `memory_of`."""
    raise NotImplementedError


def as_kept(number, memory):  # type: ignore[no-untyped-def]
    """In compiled code: a float32 as `memory_of` keeps it in this array."""
    raise NotImplementedError


@overload(as_float32)
def _as_float32(number):  # type: ignore[no-untyped-def]  # numba wants the signature of what it returns
    return (lambda number: widened(number)) if number == types.uint16 else (lambda number: number)


@overload(as_kept)
def _as_kept(number, memory):  # type: ignore[no-untyped-def]
    if memory.dtype == types.uint16:
        return lambda number, memory: narrowed(number)
    return lambda number, memory: number

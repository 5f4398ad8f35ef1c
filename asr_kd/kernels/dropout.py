"""Dropout masks: a function of their key alone, the same on every device and with any number of threads.

Each byte of the 64-bit numbers of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
2014) decides on one entry. The n-th number needs none of those before it, so threads need not agree on an order.
numpy and torch draw random bytes with one thread and take four more passes to make a mask of them.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from asr_kd.kernels import compiled
from asr_kd.kernels.switch import use_numba, use_torchs_threads

_BYTE_VALUES = 256
_STEP = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_BLOCK = 1024  # 64-bit numbers that a thread draws at a time

_NP_STEP, _NP_MIX = np.uint64(_STEP), (np.uint64(_MIX[0]), np.uint64(_MIX[1]))

# numba has no bfloat16: entries are written as the bits that they are
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def dropout_mask(
    shape: tuple[int, ...], rate: float, dtype: torch.dtype, *, key: int, device: torch.device | str = "cpu"
) -> Tensor:
    """0 with probability `rate` (rounded to 1/256), else 1 / (1 - rate) with that rate.

    Args:
      key: 64 bits; the same key gives the same mask.
    """
    mask = torch.empty(shape, dtype=dtype, device=device)
    fill_dropout_mask(mask, rate, key=key)
    return mask


def fill_dropout_mask(mask: Tensor, rate: float, *, key: int, first: int = 0) -> None:
    """Writes what `dropout_mask` gives into a contiguous tensor.

    Args:
      first: number of the mask's first entry in that of a larger one, of which this is a part.
    """
    if first:
        blocks = first // (8 * _BLOCK)
        before = first - blocks * 8 * _BLOCK
        whole = torch.empty(before + mask.numel(), dtype=mask.dtype, device=mask.device)
        fill_dropout_mask(whole, rate, key=(key + blocks * _BLOCK * _STEP) % 2**64)
        mask.copy_(whole[before:].view(mask.shape))
        return
    dropped = round(rate * _BYTE_VALUES)
    scale = _BYTE_VALUES / (_BYTE_VALUES - dropped)
    if use_numba("dropout_mask") and mask.device.type == "cpu":
        use_torchs_threads()
        bits = _BITS[mask.element_size()]
        entry = torch.tensor([scale], dtype=mask.dtype).view(bits).numpy()[0]
        _fill(mask.view(-1).view(bits).numpy(), entry, np.uint64(dropped), np.uint64(key))
        return
    mask.copy_(torch_random_bytes(mask.numel(), key, mask.device).view(mask.shape) >= dropped).mul_(scale)


def torch_random_bytes(count: int, key: int, device: torch.device | str = "cpu") -> Tensor:
    """(count,) int64 numbers from 0 to 255, by which entries are dropped; in the order of the kernel."""
    blocks = math.ceil(count / (8 * _BLOCK))
    place = torch.arange(1, blocks * _BLOCK + 1, device=device)
    number = place.mul(_signed(_STEP)).add(_signed(key))
    number = (number ^ _shifted(number, 30)) * _signed(_MIX[0])
    number = (number ^ _shifted(number, 27)) * _signed(_MIX[1])
    number = number ^ _shifted(number, 31)
    shifts = torch.arange(0, 64, 8, device=device)
    return (number.view(blocks, 1, _BLOCK) >> shifts.view(1, 8, 1)).bitwise_and_(255).view(-1)[:count]


def _signed(number: int) -> int:
    """The int64 with the bits of this unsigned number: torch has no uint64, and int64 wraps around alike."""
    return number - 2**64 if number >= 2**63 else number


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's is arithmetic."""
    return (numbers >> bits) & (2 ** (64 - bits) - 1)


@compiled(parallel=True)
def _fill(mask, kept, dropped, key):  # type: ignore[no-untyped-def]
    for block in numba.prange((mask.size + 8 * _BLOCK - 1) // (8 * _BLOCK)):
        drawn = np.empty(_BLOCK, np.uint64)
        _draw(drawn, key + np.uint64(block * _BLOCK) * _NP_STEP)
        # byte k of all numbers side by side, not the bytes of one number: so both loops run in vector registers
        for k in range(8):
            first = (block * 8 + k) * _BLOCK
            if first < mask.size:
                _choose(mask[first : first + _BLOCK], drawn, np.uint64(8 * k), kept, dropped)


# Loops over whole arrays, without index arithmetic: numba vectorises them because no index can be negative.


@compiled()
def _draw(drawn, before):  # type: ignore[no-untyped-def]
    for i in range(len(drawn)):
        number = before + np.uint64(i + 1) * _NP_STEP
        number = (number ^ (number >> np.uint64(30))) * _NP_MIX[0]
        number = (number ^ (number >> np.uint64(27))) * _NP_MIX[1]
        drawn[i] = number ^ (number >> np.uint64(31))


@compiled()
def _choose(mask, drawn, shift, kept, dropped):  # type: ignore[no-untyped-def]
    zero = mask.dtype.type(0)
    for i in range(len(mask)):
        mask[i] = kept if ((drawn[i] >> shift) & np.uint64(255)) >= dropped else zero

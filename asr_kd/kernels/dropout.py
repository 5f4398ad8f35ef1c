"""Dropout masks on the CPU, written once and by all threads.

numpy and torch draw random bytes with one thread and take four more passes to make a mask of them, a tenth of a step of
training. Here the mask's numbers are written as they are drawn: eight from each 64-bit number of SplitMix64 (Steele,
Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014), whose n-th number needs none of those before it, so
that the mask does not depend on how many threads fill it.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from asr_kd.kernels.numba_utils import compiled, use_torchs_threads

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_BLOCK = 1024  # 64-bit numbers that a thread draws at a time

# numba has no bfloat16: numbers are written as the bits that they are
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def fill_dropout(mask: Tensor, kept: Tensor, dropped: int, *, key: int) -> None:
    """Overwrites a contiguous CPU tensor: 0 with probability dropped / 256, else `kept` (a scalar of its type).

    Args:
      key: of this mask; the same key gives the same mask.
    """
    use_torchs_threads()
    bits = _BITS[mask.element_size()]
    _fill(mask.view(-1).view(bits).numpy(), kept.view(1).view(bits).numpy()[0], np.uint64(dropped), np.uint64(key))


@compiled(parallel=True)
def _fill(mask, kept, dropped, key):  # type: ignore[no-untyped-def]
    for block in numba.prange((mask.size + 8 * _BLOCK - 1) // (8 * _BLOCK)):
        drawn = np.empty(_BLOCK, np.uint64)
        _draw(drawn, key + np.uint64(block * _BLOCK) * _STEP)
        # byte k of all numbers side by side, not the bytes of one number: so both loops run in vector registers
        for k in range(8):
            first = (block * 8 + k) * _BLOCK
            if first < mask.size:
                _choose(mask[first : first + _BLOCK], drawn, np.uint64(8 * k), kept, dropped)


# of whole arrays, without places in them that could be negative: so they run on vectors


@compiled()
def _draw(drawn, before):  # type: ignore[no-untyped-def]
    for i in range(len(drawn)):
        number = before + np.uint64(i + 1) * _STEP
        number = (number ^ (number >> np.uint64(30))) * _MIX[0]
        number = (number ^ (number >> np.uint64(27))) * _MIX[1]
        drawn[i] = number ^ (number >> np.uint64(31))


@compiled()
def _choose(mask, drawn, shift, kept, dropped):  # type: ignore[no-untyped-def]
    nothing = mask.dtype.type(0)
    for i in range(len(mask)):
        mask[i] = kept if ((drawn[i] >> shift) & np.uint64(255)) >= dropped else nothing

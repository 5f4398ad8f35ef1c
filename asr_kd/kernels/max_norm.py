"""Max-norm (Srivastava et al. 2014, section 5.1); in numba most steps read each weight once and write few.

Shapes:  M members.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from asr_kd.kernels.bfloat16 import bits_of
from asr_kd.kernels.numba_utils import compiled, use_torchs_threads
from asr_kd.kernels.switch import use_numba

# rows that a thread takes at a time; squares are summed block by block, so that their sums do not depend on threads
_ROWS = 32


@torch.no_grad()
def clip_column_norms_(weight: Tensor, copy: Tensor | None, limit: float) -> None:
    """Scales the incoming weights of each unit back to the norm `limit` where theirs is larger.

    Args:
      weight: (M, in, out), changed in place; in numba float32, contiguous or laid out (in, M, out).
      copy: its bfloat16 copy, laid out alike, which is changed with it, or None.
      limit: the largest Euclidean norm.
    """
    if not use_numba("clip_column_norms_", weight):
        torch_clip_column_norms_(weight, copy, limit)
        return
    use_torchs_threads()
    inputs_first = not weight.is_contiguous()
    numbers = weight.detach().transpose(0, 1) if inputs_first else weight.detach()
    bits = np.empty((0, 0, 0), np.uint16)
    if copy is not None:
        bits = bits_of(copy.transpose(0, 1) if inputs_first else copy)
    _limit(numbers.numpy(), bits, inputs_first, np.float32(limit))


@torch.no_grad()
def torch_clip_column_norms_(weight: Tensor, copy: Tensor | None, limit: float) -> None:
    """The reference of `clip_column_norms_`."""
    norms = weight.norm(dim=1, keepdim=True)
    weight.mul_((limit / norms.clamp_min(1e-12)).clamp_max(1.0))
    if copy is not None:
        copy.copy_(weight)


@compiled(parallel=True, error_model="numpy")
def _limit(weight, bits, inputs_first, limit):  # type: ignore[no-untyped-def]
    first, second, units = weight.shape
    members, rows = (second, first) if inputs_first else (first, second)
    blocks = (rows + _ROWS - 1) // _ROWS
    squares = np.zeros((members, blocks, units), np.float32)
    for part in numba.prange(members * blocks):
        member, block = part // blocks, part % blocks
        for row in range(block * _ROWS, min((block + 1) * _ROWS, rows)):
            numbers = weight[row, member] if inputs_first else weight[member, row]
            _add_squares(numbers, squares[member, block])
    factors = np.minimum(limit / np.sqrt(squares.sum(axis=1)), np.float32(1.0))
    if factors.min() < 1:
        for part in numba.prange(members * blocks):
            member, block = part // blocks, part % blocks
            for row in range(block * _ROWS, min((block + 1) * _ROWS, rows)):
                numbers = weight[row, member] if inputs_first else weight[member, row]
                _scale(numbers, factors[member])
                if bits.size:
                    _copy(numbers, bits[row, member] if inputs_first else bits[member, row])


# Loops over whole arrays, without index arithmetic: numba vectorises them because no index can be negative.


@compiled()
def _add_squares(numbers, squares):  # type: ignore[no-untyped-def]
    for k in range(len(squares)):
        squares[k] += numbers[k] * numbers[k]


@compiled()
def _scale(numbers, factors):  # type: ignore[no-untyped-def]
    for k in range(len(factors)):
        numbers[k] *= factors[k]


@compiled()
def _copy(numbers, bits):  # type: ignore[no-untyped-def]
    for k in range(len(bits)):
        bits[k] = _narrowed(numbers[k])


@compiled()
def _narrowed(number):  # type: ignore[no-untyped-def]
    """The bits of the nearest bfloat16 of a float32; ties to even, as torch rounds."""
    if number != number:
        return np.uint16(0x7FC0)  # rounding could carry into the sign
    bits = np.float32(number).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

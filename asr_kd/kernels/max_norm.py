"""Max-norm (Srivastava et al. 2014, section 5.1) on the CPU: most steps read each weight once and write few.

Shapes:  M members.
"""

from __future__ import annotations

import numba
import numpy as np
from torch import Tensor

from asr_kd.kernels.bfloat16 import bits_of, narrowed
from asr_kd.kernels.numba_utils import compiled, use_torchs_threads

# rows that a thread takes at a time; squares are summed block by block, so that their sums do not depend on threads
_ROWS = 32


def clip_column_norms_(weight: Tensor, copy: Tensor | None, limit: float) -> None:
    """Scales each unit's incoming weights back onto the ball where they left it.

    Args:
      weight: (M, in, out) float32, contiguous or laid out (in, M, out); changed in place.
      copy: its bfloat16 copy, laid out likewise, which is changed with it, or None.
      limit: the largest Euclidean norm.
    """
    use_torchs_threads()
    inputs_first = not weight.is_contiguous()
    numbers = weight.detach().transpose(0, 1) if inputs_first else weight.detach()
    bits = np.empty((0, 0, 0), np.uint16)
    if copy is not None:
        bits = bits_of(copy.transpose(0, 1) if inputs_first else copy)
    _limit(numbers.numpy(), bits, inputs_first, np.float32(limit))


@compiled(parallel=True, error_model="numpy")
def _limit(weight, bits, inputs_first, limit):  # type: ignore[no-untyped-def]
    first, second, units = weight.shape
    members, rows = (second, first) if inputs_first else (first, second)
    blocks = (rows + _ROWS - 1) // _ROWS
    squares = np.zeros((members, blocks, units), np.float32)
    for part in numba.prange(members * blocks):
        member, block = part // blocks, part % blocks
        for row in range(block * _ROWS, min((block + 1) * _ROWS, rows)):
            here = weight[row, member] if inputs_first else weight[member, row]
            _add_squares(here, squares[member, block])
    factors = np.minimum(limit / np.sqrt(squares.sum(axis=1)), np.float32(1.0))
    if factors.min() < 1:
        for part in numba.prange(members * blocks):
            member, block = part // blocks, part % blocks
            for row in range(block * _ROWS, min((block + 1) * _ROWS, rows)):
                here = weight[row, member] if inputs_first else weight[member, row]
                _scale(here, factors[member])
                if bits.size:
                    _narrow(here, bits[row, member] if inputs_first else bits[member, row])


# of whole arrays, without places in them that could be negative: so they run on vectors


@compiled()
def _add_squares(numbers, squares):  # type: ignore[no-untyped-def]
    for k in range(len(squares)):
        squares[k] += numbers[k] * numbers[k]


@compiled()
def _scale(numbers, factors):  # type: ignore[no-untyped-def]
    for k in range(len(factors)):
        numbers[k] *= factors[k]


@compiled()
def _narrow(numbers, bits):  # type: ignore[no-untyped-def]
    for k in range(len(bits)):
        bits[k] = narrowed(numbers[k])

"""Max-norm (Srivastava et al. 2014, section 5.1) on the CPU: most steps read each weight once and write few.

Shapes:  M members.
"""

from __future__ import annotations

import numba
import numpy as np
from torch import Tensor

from asr_kd.acoustic.bfloat16 import bits_of, narrowed
from asr_kd.compiled import compiled, use_torchs_threads

# units at a time: a row of them is whole cache lines, and all that comes into them stays in the cache of a core
_UNITS = 64


def limit_norms(weight: Tensor, copy: Tensor | None, limit: float) -> None:
    """Scales each unit's incoming weights back onto the ball where they left it.

    Args:
      weight: (M, in, out) float32, contiguous; changed in place.
      copy: its bfloat16 copy, which is changed with it, or None.
      limit: the largest Euclidean norm.
    """
    use_torchs_threads()
    bits = np.empty((0, 0, 0), np.uint16) if copy is None else bits_of(copy)
    _limit(weight.detach().numpy(), bits, np.float32(limit))


@compiled(parallel=True, error_model="numpy")
def _limit(weight, bits, limit):  # type: ignore[no-untyped-def]
    members, rows, units = weight.shape
    parts = (units + _UNITS - 1) // _UNITS
    for part in numba.prange(members * parts):
        member, first = part // parts, part % parts * _UNITS
        count = min(_UNITS, units - first)
        factors = np.zeros(_UNITS, np.float32)
        for row in range(rows):
            for k in range(count):
                number = weight[member, row, first + k]
                factors[k] += number * number
        exceeded = False
        for k in range(count):
            norm = np.sqrt(factors[k])
            factors[k] = np.float32(1.0)
            if norm > limit:
                factors[k], exceeded = limit / norm, True
        if exceeded:
            for row in range(rows):
                for k in range(count):
                    number = weight[member, row, first + k] * factors[k]
                    weight[member, row, first + k] = number
                    if bits.size:
                        bits[member, row, first + k] = narrowed(number)

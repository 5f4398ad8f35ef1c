"""The best path of a lattice for each of many word sequences, compiled by numba.

Shapes:  S states and A arcs of one utterance's lattice, H sequences of outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_kd.kernels.numba_utils import compiled


def best_scores(
    src: NDArray[np.int32],
    dst: NDArray[np.int32],
    output: NDArray[np.int32],
    score: NDArray[np.float64],
    part: NDArray[np.float64],
    sequences: Sequence[Sequence[int]],
) -> NDArray[np.float64]:
    """Viterbi over pairs of a state and how many outputs led to it.

    Args:
      src, dst: (A,) states of each arc, sorted by src; the first state is 0 and the last is the only final one.
      output: (A,) what an arc emits; nothing if below 1.
      score: (A,) natural logarithms.
      part: (A,) what is summed beside the score along the best path.
      sequences: H of outputs, all 1 or more.

    Returns:
      (H, 2) sums of score and of part along the best path that emits just that; the score is -inf where there is none.

    Raises:
      ValueError: an arc leads back, or arcs are not sorted.
    """
    if len(src) and ((dst <= src).any() or (np.diff(src) < 0).any()):
        raise ValueError("the lattice's states are not in topological order")
    ends = np.cumsum([0, *map(len, sequences)])
    flat = np.array([one for sequence in sequences for one in sequence], np.int32)
    num_states = int(dst.max()) + 1 if len(dst) else 1
    low, high = _outputs_before(src, dst, output, num_states)
    return np.asarray(_search(src, dst, output, score, part, low, high, flat, ends))


@compiled()
def _outputs_before(src, dst, output, num_states):  # type: ignore[no-untyped-def]
    """(S,) and (S,): the least and the most outputs of any path from the first state; high < low: there is none."""
    low = np.full(num_states, len(src) + 1, np.int64)
    high = np.full(num_states, -1, np.int64)
    low[0] = high[0] = 0
    for arc in range(len(src)):
        if high[src[arc]] >= 0:
            step = 1 if output[arc] > 0 else 0
            low[dst[arc]] = min(low[dst[arc]], low[src[arc]] + step)
            high[dst[arc]] = max(high[dst[arc]], high[src[arc]] + step)
    return low, high


@compiled()
def _search(src, dst, output, score, part, low, high, flat, ends):  # type: ignore[no-untyped-def]
    num_states, count = len(low), len(ends) - 1
    width = max(1, (high - low).max() + 1)
    best = np.empty((num_states, width))
    parts = np.empty((num_states, width))
    found = np.empty((count, 2))
    for number in range(count):
        begin, length = ends[number], ends[number + 1] - ends[number]
        best[:] = -np.inf
        best[0, 0] = parts[0, 0] = 0.0
        for arc in range(len(src)):
            before, after, emitted = src[arc], dst[arc], output[arc]
            for place in range(high[before] - low[before] + 1):
                total = best[before, place] + score[arc]
                if total == -np.inf:
                    continue
                spoken = low[before] + place
                if emitted > 0:
                    if spoken >= length or flat[begin + spoken] != emitted:
                        continue
                    spoken += 1
                there = spoken - low[after]
                if total > best[after, there]:
                    best[after, there] = total
                    parts[after, there] = parts[before, place] + part[arc]
        found[number, 0], found[number, 1] = -np.inf, 0.0
        last = length - low[num_states - 1]
        if 0 <= last < width and best[num_states - 1, last] > -np.inf:
            found[number, 0], found[number, 1] = best[num_states - 1, last], parts[num_states - 1, last]
    return found

"""Best paths of a lattice, compiled by numba: for each of many word sequences, or at each of many scales.

Shapes:  S states and A arcs of one utterance's lattice, H sequences of outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_kd.decoding.decoder import Grid
from asr_kd.decoding.fst_io import Lattice
from asr_kd.decoding.graph import Graph
from asr_kd.kernels import compiled


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
      part: (A,) summed along the best path too.
      sequences: H of outputs, all 1 or more.

    Returns:
      (H, 2) sums of score and of part along the best path that emits just that; the score is -inf where there is none.

    Raises:
      ValueError: an arc leads back, or arcs are not sorted.
    """
    check_order(src, dst)
    ends = np.cumsum([0, *map(len, sequences)])
    flat = np.array([label for sequence in sequences for label in sequence], np.int32)
    num_states = int(dst.max()) + 1 if len(dst) else 1
    low, high = _outputs_before(src, dst, output, num_states)
    return np.asarray(_search((src, dst, output, score, part), (low, high), (flat, ends)))


def best_outputs(
    lattice: Lattice, words: NDArray[np.float32], points: Sequence[tuple[float, float]]
) -> list[list[int]]:
    """The outputs of the best path at each of many scales.

    Args:
      words: (A,) how many words each arc's output stands for.
      points: (acoustic scale, word penalty), both relative to the lattice's own scores.

    Raises:
      ValueError: the lattice's states are not in topological order.
    """
    check_order(lattice.src, lattice.dst)
    graph, acoustic, count = (array.astype(np.float64) for array in (lattice.graph, lattice.acoustic, words))
    final = lattice.final.astype(np.float64)
    sequences = []
    for scale, penalty in points:
        arcs = _best_path(lattice.src, lattice.dst, graph + scale * acoustic - penalty * count, final)
        sequences.append([label for label in lattice.output[arcs].tolist() if label > 0])
    return sequences


def words_at(lattice: Lattice, graph: Graph, factors: Sequence[float], penalties: Sequence[float]) -> Grid:
    """The words of the best path at each acoustic scale and word penalty.

    Args:
      graph: that was searched.
      factors: acoustic scales, relative to that of the search.
    """
    words = graph.words_per_output()[lattice.output]
    points = [(factor, penalty) for factor in factors for penalty in penalties]
    paths = iter(best_outputs(lattice, words, points))
    return tuple(tuple(graph.spell(next(paths)) for _ in penalties) for _ in factors)


def check_order(src: NDArray[np.int32], dst: NDArray[np.int32]) -> None:
    """Raises ValueError where the states of a lattice are not in topological order, or its arcs not sorted."""
    if len(src) and ((dst <= src).any() or (np.diff(src) < 0).any()):
        raise ValueError("the lattice's states are not in topological order")


@compiled()
def _best_path(src, dst, cost, final):  # type: ignore[no-untyped-def]
    """The arcs of the cheapest path from state 0 to a final one."""
    best = np.full(len(final), np.inf)
    back = np.full(len(final), -1, np.int64)
    best[0] = 0.0
    for arc in range(len(src)):
        total = best[src[arc]] + cost[arc]
        if total < best[dst[arc]]:
            best[dst[arc]], back[dst[arc]] = total, arc
    state = np.argmin(best + final)
    length, at = 0, state
    while back[at] >= 0:
        length, at = length + 1, src[back[at]]
    arcs = np.empty(length, np.int64)
    for place in range(length - 1, -1, -1):
        arcs[place] = back[state]
        state = src[back[state]]
    return arcs


@compiled()
def _outputs_before(src, dst, output, num_states):  # type: ignore[no-untyped-def]
    """(S,) and (S,): fewest and most outputs of any path from the first state; high < low where there is no path."""
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
def _search(arcs, bounds, sequences):  # type: ignore[no-untyped-def]
    (src, dst, output, score, part), (low, high), (flat, ends) = arcs, bounds, sequences
    num_states, count = len(low), len(ends) - 1
    width = max(1, (high - low).max() + 1)
    best = np.empty((num_states, width))
    parts = np.empty((num_states, width))
    sums = np.empty((count, 2))
    for number in range(count):
        begin, length = ends[number], ends[number + 1] - ends[number]
        best[:] = -np.inf
        best[0, 0] = parts[0, 0] = 0.0
        for arc in range(len(src)):
            before, after, label = src[arc], dst[arc], output[arc]
            for place in range(high[before] - low[before] + 1):
                total = best[before, place] + score[arc]
                if total == -np.inf:
                    continue
                emissions = low[before] + place
                if label > 0:
                    if emissions >= length or flat[begin + emissions] != label:
                        continue
                    emissions += 1
                column = emissions - low[after]
                if total > best[after, column]:
                    best[after, column] = total
                    parts[after, column] = parts[before, place] + part[arc]
        sums[number, 0], sums[number, 1] = -np.inf, 0.0
        last = length - low[num_states - 1]
        if 0 <= last < width and best[num_states - 1, last] > -np.inf:
            sums[number, 0], sums[number, 1] = best[num_states - 1, last], parts[num_states - 1, last]
    return sums

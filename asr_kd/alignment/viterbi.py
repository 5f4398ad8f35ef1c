"""The best path of an utterance through its graph: Viterbi over the arcs that enter each state, compiled by numba.

Shapes:  T frames, C classes (context-independent states), S states and A arcs of a graph (see topology.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.topology import CannotAlignError, Graph
from asr_kd.compiled import compiled


def viterbi(
    log_likelihoods: NDArray[np.float32], graph: Graph, *, beam: float = 0.0
) -> tuple[NDArray[np.int32], float]:
    """The path with the highest score.

    Args:
      log_likelihoods: (T, C) natural logarithms, up to a constant per frame.
      graph: its classes index the columns.
      beam: states that score lower than a frame's best by more than this are dropped; where that leaves no path,
        the search is repeated without it. 0: exact.

    Returns:
      (T,) states of the graph, and the score: likelihoods and transitions, in nats.

    Raises:
      CannotAlignError: fewer frames than states, or no path with a finite score.
    """
    num_frames, num_states = len(log_likelihoods), graph.num_states
    graph.check_frames(num_frames)
    # A back-pointer is the place of the arc among those that enter the state: one byte, not four.
    widest = int(np.diff(graph.first).max())
    back = np.empty((num_frames, num_states), np.uint8 if widest <= 256 else np.uint16)
    reach = _reach(graph)
    scores = np.ascontiguousarray(log_likelihoods, dtype=np.float32)
    for width in (beam, 0.0) if beam > 0 else (0.0,):
        path, score = _search(
            scores,
            graph.classes,
            graph.first,
            graph.source,
            graph.weight,
            graph.initial,
            graph.final,
            reach,
            width if width > 0 else np.inf,
            back,
        )
        if np.isfinite(score):
            return path, float(score)
    raise CannotAlignError("no path through its transcript has a finite likelihood")


def _reach(graph: Graph) -> NDArray[np.int32]:
    """(S,) the highest state that an arc from this state or a lower one enters."""
    target = np.repeat(np.arange(graph.num_states, dtype=np.int32), np.diff(graph.first))
    reach = np.zeros(graph.num_states, np.int32)
    np.maximum.at(reach, graph.source, target)
    return np.maximum.accumulate(reach)


@compiled()
def _search(ll, classes, first, source, weight, initial, final, reach, beam, back):  # type: ignore[no-untyped-def]
    num_frames, num_states = back.shape
    # float64: the score of a long utterance would swallow the differences that decide in float32
    before = np.full(num_states, -np.inf)
    now = np.full(num_states, -np.inf)
    low, high = num_states, 0  # states outside low:high are dead, and hold -inf
    for s in range(num_states):
        if initial[s] > -np.inf:
            before[s] = initial[s] + ll[0, classes[s]]
            low = min(low, s)
            high = s + 1
    for t in range(1, num_frames):
        top = reach[high - 1] + 1
        peak = -np.inf
        for s in range(low, top):
            best = -np.inf
            begin = first[s]
            arc = begin
            for k in range(begin, first[s + 1]):
                value = before[source[k]] + weight[k]
                if value > best:
                    best = value
                    arc = k
            best += ll[t, classes[s]]
            now[s] = best
            back[t, s] = arc - begin
            peak = max(peak, best)
        for s in range(low, high):
            before[s] = -np.inf
        floor = peak - beam
        high = top
        while low < high - 1 and not now[low] >= floor:
            now[low] = -np.inf
            low += 1
        while high - 1 > low and not now[high - 1] >= floor:
            high -= 1
            now[high] = -np.inf
        before, now = now, before
    score = -np.inf
    state = -1
    for s in range(num_states):
        value = before[s] + final[s]
        if value > score:
            score = value
            state = s
    path = np.empty(num_frames, np.int32)
    if state >= 0:
        for t in range(num_frames - 1, 0, -1):
            path[t] = state
            state = source[first[state] + back[t, state]]
        path[0] = state
    return path, score

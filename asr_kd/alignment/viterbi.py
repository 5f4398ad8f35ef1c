"""The best path of an utterance through its graph: Viterbi over the arcs that enter each state, compiled by numba.

Only states from which the end is still within reach in the remaining frames are visited.

Shapes:  T frames, C classes (context-independent states), S states and A arcs of a graph (see topology.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.topology import CannotAlignError, TranscriptGraph
from asr_kd.kernels import compiled

_STAY, _STEP, _OTHERS = 0, 1, 2  # back-pointers: the arcs of `topology.SearchArcs`; from _OTHERS on by their number


def viterbi(
    log_likelihoods: NDArray[np.float32], graph: TranscriptGraph, *, beam: float = 0.0
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
    num_frames = len(log_likelihoods)
    graph.check_frames(num_frames)
    arcs = graph.search_arcs
    # A back-pointer numbers the arcs that enter one state: one byte is enough for nearly all graphs.
    most = _OTHERS + int(np.diff(arcs.first).max())
    back = np.empty((num_frames, graph.num_states), np.uint8 if most <= 256 else np.uint16)
    scores = np.ascontiguousarray(log_likelihoods, dtype=np.float32)
    for width in (beam, np.inf) if beam > 0 else (np.inf,):
        path, score = _search(scores, arcs, width, back)
        if np.isfinite(score):
            return path, float(score)
    raise CannotAlignError("no path through its transcript has a finite likelihood")


@compiled()
def _search(ll, graph, beam, back):  # type: ignore[no-untyped-def]
    num_frames, num_states = back.shape
    to_end, classes = graph.to_end, graph.classes
    # float64: in float32 the score of a long utterance would swallow the small differences that decide
    # State s has place s + 1, so that the first state has a neighbour, too, which is never alive.
    before = np.full(num_states + 1, -np.inf)
    now = np.full(num_states + 1, -np.inf)
    low, high = num_states, 0  # states outside low:high are dead, and hold -inf
    for s in range(num_states):
        if graph.initial[s] > -np.inf and to_end[s] < num_frames:
            before[s + 1] = graph.initial[s] + ll[0, classes[s]]
            low = min(low, s)
            high = s + 1
    for t in range(1, num_frames):
        if low >= high:
            break
        top = graph.reach[high - 1] + 1
        _enter(
            before[low + 1 : top + 1],
            before[low:top],
            graph.stay[low:top],
            graph.step[low:top],
            now[low + 1 : top + 1],
            back[t, low:top],
        )
        for k in range(graph.first[low], graph.first[top]):
            s = graph.target[k]
            value = before[graph.source[k] + 1] + graph.weight[k]
            if value > now[s + 1]:
                now[s + 1] = value
                back[t, s] = _OTHERS + k - graph.first[s]
        _add(now[low + 1 : top + 1], ll[t], classes[low:top])
        before[low + 1 : high + 1] = -np.inf
        floor = -np.inf
        if beam < np.inf:
            floor = now[low + 1 : top + 1].max() - beam
        high = top
        left = num_frames - 1 - t
        while low < high and not (to_end[low] <= left and now[low + 1] >= floor):
            now[low + 1] = -np.inf
            low += 1
        while low < high and not (to_end[high - 1] <= left and now[high] >= floor):
            now[high] = -np.inf
            high -= 1
        before, now = now, before
    return _trace(before, graph, back)


@compiled()
def _enter(same, neighbour, stay, step, now, back):  # type: ignore[no-untyped-def]
    """Takes for each state the better of staying in it and coming from the state before.

    The loop vectorises: no index is computed.
    """
    for s in range(len(now)):
        a = same[s] + stay[s]
        b = neighbour[s] + step[s]
        now[s] = b if b > a else a
        back[s] = _STEP if b > a else _STAY


@compiled()
def _add(now, ll, classes):  # type: ignore[no-untyped-def]
    for s in range(len(now)):
        now[s] += ll[classes[s]]


@compiled()
def _trace(scores, graph, back):  # type: ignore[no-untyped-def]
    num_frames, num_states = back.shape
    score = -np.inf
    state = -1
    for s in range(num_states):
        value = scores[s + 1] + graph.final[s]
        if value > score:
            score = value
            state = s
    path = np.empty(num_frames, np.int32)
    if state >= 0:
        for t in range(num_frames - 1, 0, -1):
            path[t] = state
            arc = back[t, state]
            if arc == _STEP:
                state -= 1
            elif arc >= _OTHERS:
                state = graph.source[graph.first[state] + arc - _OTHERS]
        path[0] = state
    return path, score

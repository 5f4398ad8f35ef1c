"""A graph's arcs in the layout in which Viterbi is fastest: arcs between neighbouring states apart from the others.

Nearly all arcs of a transcript's graph stay in a state or come from the state before. As two arrays they need no
indices, so that a processor computes several at a time; only the other arcs are searched one by one.

Shapes:  S states, A arcs, X other arcs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_kd.kernels.numba_utils import compiled

UNREACHABLE = np.iinfo(np.int32).max


@dataclass(frozen=True)
class SearchArcs:
    """The arcs that enter each state, and each state's distance from the end."""

    stay: NDArray[
        np.float64
    ]  # (S,) log-probability of the first arc from the state to itself, -inf where there is none
    step: NDArray[np.float64]  # (S,) log-probability of the first arc from the state before, -inf likewise
    first: NDArray[np.int32]  # (S + 1,) other arcs first[s]:first[s + 1] enter state s
    source: NDArray[np.int32]  # (X,) state that another arc comes from
    target: NDArray[np.int32]  # (X,) state that it enters
    weight: NDArray[np.float64]  # (X,) its log-probability
    reach: NDArray[np.int32]  # (S,) the highest state that an arc from this state or a lower one enters
    to_end: NDArray[np.int32]  # (S,) fewest arcs from the state to a final one, UNREACHABLE where there is none


def arrange(
    first: NDArray[np.int32], source: NDArray[np.int32], weight: NDArray[np.float32], final: NDArray[np.float32]
) -> SearchArcs:
    """From arcs in CSR form (see `topology.TranscriptGraph`); no arc comes from a state above the one it enters."""
    return SearchArcs(*_arrange(first, source, weight, final))


@compiled()
def _arrange(first, source, weight, final):  # type: ignore[no-untyped-def]
    num_states = len(first) - 1
    stay = np.full(num_states, -np.inf)
    step = np.full(num_states, -np.inf)
    others = np.zeros(num_states + 1, np.int32)
    other_source = np.empty(len(source), np.int32)
    other_target = np.empty(len(source), np.int32)
    other_weight = np.empty(len(source))
    reach = np.zeros(num_states, np.int32)
    to_end = np.full(num_states, UNREACHABLE, np.int32)
    count = 0
    for s in range(num_states):
        for k in range(first[s], first[s + 1]):
            before = source[k]
            reach[before] = max(reach[before], s)
            if before == s and stay[s] == -np.inf:
                stay[s] = weight[k]
            elif before == s - 1 and step[s] == -np.inf:
                step[s] = weight[k]
            else:
                other_source[count] = before
                other_target[count] = s
                other_weight[count] = weight[k]
                count += 1
        others[s + 1] = count
    for s in range(1, num_states):
        reach[s] = max(reach[s], reach[s - 1])
    for s in range(num_states - 1, -1, -1):
        if final[s] > -np.inf:
            to_end[s] = 0
        if to_end[s] < UNREACHABLE:
            for k in range(first[s], first[s + 1]):
                to_end[source[k]] = min(to_end[source[k]], to_end[s] + 1)
    return stay, step, others, other_source[:count], other_target[:count], other_weight[:count], reach, to_end

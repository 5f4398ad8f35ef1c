"""How sure a search is of each word: the share of its lattice's probability that has the word at that time.

Of the posteriors that Wessel, Schlueter, Macherey and Ney (2001, "Confidence measures for large vocabulary continuous
speech recognition") compare, this is C_sec with a window in place of the words' own times: a lattice of senones says
when a word is known to be there, which is at its end at the latest, and not where it begins.

Shapes:  A arcs and S states of an utterance's lattice, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr_kd.decoding.fst_io import Lattice
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.word_paths import check_order
from asr_kd.kernels import compiled

_SLACK = 10  # frames by which another path may know a word earlier or later


def word_confidences(
    lattice: Lattice, graph: Graph, words: Sequence[str], spans: Sequence[tuple[int, int]]
) -> NDArray[np.float64]:
    """(W,) from 0 to 1.

    Args:
      lattice: of a search through `graph`, each of its arcs a frame.
      spans: first frame and the frame after the last one of each word.
    """
    posterior, frame = arc_posteriors(lattice)
    arcs: dict[str, list[int]] = {word: [] for word in words}
    for arc in np.flatnonzero((lattice.output > 0) & (posterior > 0)):
        for word in graph.spell([int(lattice.output[arc])]):
            if word in arcs:
                arcs[word].append(int(arc))
    confidences = np.zeros(len(words))
    for place, (word, (first, end)) in enumerate(zip(words, spans, strict=True)):
        of_word = np.array(arcs[word], np.int64)
        near = (frame[of_word] >= first - _SLACK) & (frame[of_word] <= end + _SLACK)
        # a path that says the word twice within the window counts twice
        confidences[place] = min(1.0, posterior[of_word[near]].sum())
    return confidences


def arc_posteriors(lattice: Lattice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(A,) the share of the paths' probability that goes through each arc, and (A,) the frame that it takes.

    Raises:
      ValueError: the lattice's states are not in topological order.
    """
    check_order(lattice.src, lattice.dst)
    score = -(lattice.graph.astype(np.float64) + lattice.acoustic)
    before, after, depth = _forward_backward(lattice.src, lattice.dst, score, -lattice.final.astype(np.float64))
    total = after[0] if len(after) else -np.inf
    if not np.isfinite(total):
        return np.zeros(len(lattice.src)), depth[lattice.src]
    return np.exp(before[lattice.src] + score + after[lattice.dst] - total), depth[lattice.src]


@compiled()
def _forward_backward(src, dst, score, final):  # type: ignore[no-untyped-def]
    """(S,) log-probability of all ways to each state, and from it to the end; (S,) arcs before it."""
    before = np.full(len(final), -np.inf)
    after = final.copy()
    depth = np.zeros(len(final), np.int64)
    before[0] = 0.0
    for arc in range(len(src)):
        if before[src[arc]] == -np.inf:
            continue
        before[dst[arc]] = np.logaddexp(before[dst[arc]], before[src[arc]] + score[arc])
        depth[dst[arc]] = depth[src[arc]] + 1
    for arc in range(len(src) - 1, -1, -1):
        after[src[arc]] = np.logaddexp(after[src[arc]], score[arc] + after[dst[arc]])
    return before, after, depth

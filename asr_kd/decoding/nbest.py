"""N-best lists: of paths drawn from a lattice the different word sequences, each with the scores of its best path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from asr_kd.decoding.decoder import NBest
from asr_kd.decoding.graph import Graph

FLATTENING = 0.5  # factor of a lattice's scores while paths are drawn: otherwise most draws are the likeliest path


def most_drawn(best: Iterable[int], paths: Iterable[np.ndarray], most: int) -> list[tuple[int, ...]]:
    """The different sequences of outputs, the likeliest path's first, then those drawn most often.

    Args:
      best, paths: outputs of the arcs of each path; those below 1 stand for nothing.
    """
    counts = Counter(tuple(path[path > 0].tolist()) for path in paths)
    likeliest = tuple(output for output in best if output > 0)
    return list(dict.fromkeys([likeliest, *(sequence for sequence, _ in counts.most_common())]))[:most]


def ranked(sequences: Sequence[Sequence[int]], sums: np.ndarray, graph: Graph, scale: float, size: int) -> NBest:
    """The likeliest word sequences. An output can be several words: some of `sequences` may read the same.

    Args:
      sums: (n, 2) of each sequence's best path the whole score, and the graph's part of it.
      scale: acoustic scale of the scores.
    """
    scores: dict[tuple[str, ...], tuple[float, float]] = {}
    for sequence, (total, of_graph) in zip(sequences, sums.tolist(), strict=True):
        words = graph.spell(sequence)
        scores[words] = max(scores.get(words, (-np.inf, 0.0)), (total, of_graph))
    first = sorted(scores.items(), key=lambda item: item[1], reverse=True)[:size]
    table = np.array([both for _, both in first]).reshape(-1, 2)
    return NBest(tuple(words for words, _ in first), (table[:, 0] - table[:, 1]) / scale, table[:, 1])

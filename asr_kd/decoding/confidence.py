"""How sure a search is of each word: the share of its lattice's probability that has the word at that place.

Paths are drawn from the lattice, and the words of each are aligned with those recognised: a word's confidence is the
share of paths that have it where the alignment puts it. That is the word posterior of Evermann and Woodland (2000,
"Posterior probability decoding, confidence estimation and system combination") without its clustering by time, which a
lattice of senones could not give: its arcs say a word when it is known, most often a phone before or after its edges.

Shapes:  A arcs and S states of an utterance's lattice, R paths, W words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import kaldialign
import numpy as np
from numpy.typing import NDArray

from asr_kd.decoding.fst_io import Lattice
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.word_paths import check_order
from asr_kd.kernels import compiled

DRAWS = 200  # so that a confidence of 0.5 is off by 0.035
_NONE = "<eps>"  # what an alignment has in place of a word


def word_confidences(
    lattice: Lattice, graph: Graph, words: Sequence[str], *, draws: int = DRAWS, seed: int = 1
) -> NDArray[np.float64]:
    """(W,) from 0 to 1, multiples of 1 / draws.

    Args:
      lattice: of a search through `graph`.
      words: what was recognised.
    """
    confidences = np.zeros(len(words))
    outputs = lattice.output.tolist()
    counts = Counter(
        graph.spell(outputs[arc] for arc in path) for path in sample_paths(lattice, draws, np.random.default_rng(seed))
    )
    for drawn, count in counts.items():
        place = 0
        for ours, theirs in kaldialign.align(list(words), list(drawn), _NONE):
            if ours == _NONE:
                continue
            confidences[place] += count * (ours == theirs)
            place += 1
    return confidences / draws


def sample_paths(lattice: Lattice, draws: int, rng: np.random.Generator) -> list[list[int]]:
    """Arcs of paths from the first state to a final one, drawn by their probability; none where there is no path.

    Raises:
      ValueError: the lattice's states are not in topological order.
    """
    check_order(lattice.src, lattice.dst)
    score = -(lattice.graph.astype(np.float64) + lattice.acoustic)
    final = -lattice.final.astype(np.float64)
    first = np.searchsorted(lattice.src, np.arange(len(final) + 1))
    rest = _log_probability_of_the_rest(lattice.src, lattice.dst, score, final)
    if not len(final) or not np.isfinite(rest[0]):
        return []
    longest = _longest(lattice.src, lattice.dst, len(final))
    paths = (_draw(lattice.dst, score, final, first, rest, rng.random(longest + 1)) for _ in range(draws))
    return [path[path >= 0].tolist() for path in paths]


@compiled()
def _log_probability_of_the_rest(src, dst, score, final):  # type: ignore[no-untyped-def]
    """(S,) log of the sum of all ways from each state to the end."""
    rest = final.copy()
    for arc in range(len(src) - 1, -1, -1):
        rest[src[arc]] = np.logaddexp(rest[src[arc]], score[arc] + rest[dst[arc]])
    return rest


@compiled()
def _longest(src, dst, num_states):  # type: ignore[no-untyped-def]
    """Arcs of the longest path."""
    depth = np.zeros(num_states, np.int64)
    for arc in range(len(src)):
        depth[dst[arc]] = max(depth[dst[arc]], depth[src[arc]] + 1)
    return depth.max()


@compiled()
def _draw(dst, score, final, first, rest, uniform):  # type: ignore[no-untyped-def]
    """(longest + 1,) arcs of a path, then -1."""
    path = np.full(len(uniform), -1, np.int64)
    state, length, chosen = 0, 0, -1
    while True:
        left = uniform[length] - np.exp(final[state] - rest[state])  # what ending here and the arcs before do not take
        if left < 0.0:
            return path
        for arc in range(first[state], first[state + 1]):
            share = np.exp(score[arc] + rest[dst[arc]] - rest[state])
            if share > 0.0:
                chosen = arc  # the last one also takes what rounding leaves
                left -= share
                if left < 0.0:
                    break
        path[length] = chosen
        length += 1
        state = dst[chosen]

"""Posteriors of a lattice's arcs, against all of its paths, and what they say of words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.decoding.confidence import arc_posteriors, word_confidences
from asr_kd.decoding.fst_io import Lattice
from asr_kd.decoding.graph import Graph

EMPTY = np.zeros(0, np.int32)
GRAPH = Graph(EMPTY, EMPTY, EMPTY, EMPTY, EMPTY.astype(np.float32), 4, ("A", "B", "C"), ((1, 2),))


@st.composite
def lattices(draw) -> Lattice:
    """Layers of states, each arc a frame."""
    layers = [1, *draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))]
    first = np.cumsum([0, *layers])
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    arcs = [
        (src, dst, rng.integers(0, 5), rng.normal(0, 2), rng.normal(0, 2))
        for layer in range(len(layers) - 1)
        for src in range(first[layer], first[layer + 1])
        for dst in range(first[layer + 1], first[layer + 2])
        if rng.random() < 0.8
    ]
    final = np.full(first[-1], np.inf, np.float32)
    final[first[-2] :] = rng.normal(0, 1, layers[-1])
    src, dst, output = (np.array([arc[k] for arc in arcs], np.int32) for k in range(3))
    graph, acoustic = (np.array([arc[k] for arc in arcs], np.float32) for k in (3, 4))
    return Lattice(src, dst, output, graph, acoustic, final)


def paths(lattice: Lattice, state: int = 0) -> list[tuple[list[int], float]]:
    """Arcs and log-probability of each way to the end, in float64."""
    ways = [([], -float(lattice.final[state]))] if np.isfinite(lattice.final[state]) else []
    for arc in np.flatnonzero(lattice.src == state):
        cost = float(lattice.graph[arc]) + float(lattice.acoustic[arc])
        ways += [([int(arc), *rest], score - cost) for rest, score in paths(lattice, int(lattice.dst[arc]))]
    return ways


@given(lattices())
def test_posteriors_are_the_shares_of_all_paths(lattice):
    every = paths(lattice)
    posterior, frame = arc_posteriors(lattice)
    expected = np.zeros(len(lattice.src))
    if every:
        weights = np.exp([score for _, score in every])
        for (arcs, _), weight in zip(every, weights / weights.sum(), strict=True):
            expected[arcs] += weight
            assert frame[arcs].tolist() == list(range(len(arcs)))
    np.testing.assert_allclose(posterior, expected, atol=1e-6)


def test_a_word_is_as_sure_as_the_paths_that_have_it_there():
    """Two paths of four frames with probabilities 0.75 and 0.25: both say A, then B alone or A B in one label."""
    costs = -np.log([0.75, 1, 1, 1, 0.25, 1, 1, 1]).astype(np.float32)
    lattice = Lattice(
        src=np.array([0, 0, 1, 2, 3, 4, 5, 6], np.int32),
        dst=np.array([1, 2, 3, 4, 5, 6, 7, 7], np.int32),
        output=np.array([1, 0, 0, 4, 2, 0, 0, 3], np.int32),
        graph=costs[[0, 4, 1, 2, 3, 5, 6, 7]],
        acoustic=np.zeros(8, np.float32),
        final=np.array([np.inf] * 7 + [0], np.float32),
    )
    sure = word_confidences(lattice, GRAPH, ["A", "B", "C"], [(0, 2), (2, 3), (3, 4)])
    np.testing.assert_allclose(sure, [1.0, 1.0, 0.25], atol=1e-6)
    far = word_confidences(lattice, GRAPH, ["A", "B"], [(0, 2), (90, 95)])
    np.testing.assert_allclose(far, [1.0, 0.0], atol=1e-6)


def test_a_lattice_out_of_order_is_refused():
    backwards = Lattice(*(np.array([1, 0], np.int32),) * 3, *(np.zeros(2, np.float32),) * 2, np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="topological"):
        arc_posteriors(backwards)

"""Paths drawn from a lattice, against all of its paths, and what they say of words."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.decoding.confidence import sample_paths, word_confidences
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


@given(lattices(), st.integers(0, 99))
def test_paths_are_drawn_by_their_probability(lattice, seed):
    every = {tuple(arcs): score for arcs, score in paths(lattice)}
    drawn = sample_paths(lattice, 2000, np.random.default_rng(seed))
    if not every:
        assert drawn == []
        return
    weights = np.exp(list(every.values()))
    expected = dict(zip(every, weights / weights.sum(), strict=True))
    counts = Counter(map(tuple, drawn))
    assert counts.keys() <= expected.keys()
    for path, share in expected.items():  # six standard deviations
        assert abs(counts[path] / 2000 - share) <= 6 * np.sqrt(share * (1 - share) / 2000) + 1e-3


def test_a_word_is_as_sure_as_the_paths_that_have_it_there():
    """Two paths of four frames, with probabilities 0.75 and 0.25: A B B and B C."""
    lattice = Lattice(
        src=np.array([0, 0, 1, 2, 3, 4, 5, 6], np.int32),
        dst=np.array([1, 2, 3, 4, 5, 6, 7, 7], np.int32),
        output=np.array([1, 0, 0, 2, 2, 0, 2, 3], np.int32),
        graph=-np.log([0.75, 0.25, 1, 1, 1, 1, 1, 1]).astype(np.float32),
        acoustic=np.zeros(8, np.float32),
        final=np.array([np.inf] * 7 + [0], np.float32),
    )
    sure = word_confidences(lattice, GRAPH, ["A", "B", "B"], draws=4000)
    np.testing.assert_allclose(sure[0], 0.75, atol=0.04)
    assert sorted(sure[1:]) == pytest.approx([0.75, 1.0], abs=0.04)  # the B of B C is one of both
    np.testing.assert_allclose(word_confidences(lattice, GRAPH, ["B", "C"], draws=4000), [1.0, 0.25], atol=0.04)
    np.testing.assert_allclose(word_confidences(lattice, GRAPH, ["C", "A"]), [0.25, 0.75], atol=0.15)


def test_labels_of_several_words_count_as_these_words():
    lattice = Lattice(
        *(np.array([number], np.int32) for number in (0, 1, 4)), *(np.zeros(1, np.float32),) * 2,
        np.array([np.inf, 0], np.float32),
    )  # fmt: skip
    assert word_confidences(lattice, GRAPH, ["A", "B"]).tolist() == [1.0, 1.0]
    assert word_confidences(lattice, GRAPH, ["B"]).tolist() == [1.0]
    assert word_confidences(lattice, GRAPH, ["C"]).tolist() == [0.0]


def test_a_lattice_out_of_order_is_refused():
    backwards = Lattice(*(np.array([1, 0], np.int32),) * 3, *(np.zeros(2, np.float32),) * 2, np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="topological"):
        sample_paths(backwards, 1, np.random.default_rng(0))

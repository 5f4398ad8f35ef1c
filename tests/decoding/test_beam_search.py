"""Our own search: against every path of small graphs, in float64, and what its bounds keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.decoding.beam_search import Beams, BeamSearch, SearchGraph
from asr_kd.decoding.graph import Graph

EVERYTHING = Beams(1e4, 10**6, 0)


def random_graph(rng: np.random.Generator, states: int, senones: int) -> Graph:
    """Some arcs from each state, half of the states final; the last one is entered by final arcs alone."""
    rows = [
        (src, int(rng.integers(states)), int(rng.integers(senones)), int(rng.integers(3)))
        for src in range(states)
        for _ in range(rng.integers(1, 4))
    ]
    rows += [(src, states, -1, 0) for src in range(states) if src == states - 1 or rng.random() < 0.5]
    src, dst, senone, output = np.array(sorted(rows), np.int32).T
    score = rng.normal(size=len(src)).astype(np.float32)
    return Graph(src, dst, senone, output, score, senones, ("ONE", "TWO"), ())


def paths_of(graph: Graph, loglikes: np.ndarray) -> dict[tuple[int, ...], float]:
    """Numbers of the arcs of every complete path, final arc included, and its score."""
    paths: dict[tuple[int, ...], float] = {(): 0.0}
    for frame in loglikes.astype(np.float64):
        paths = {
            (*path, arc): score + float(graph.score[arc]) + float(frame[graph.senone[arc]])
            for path, score in paths.items()
            for arc in np.flatnonzero(graph.src == (graph.dst[path[-1]] if path else 0))
            if graph.senone[arc] >= 0
        }
    return {
        (*path, arc): score + float(graph.score[arc])
        for path, score in paths.items()
        for arc in np.flatnonzero((graph.src == graph.dst[path[-1]]) & (graph.senone < 0))
    }


def drawn(seed: int, frames: int) -> tuple[Graph, np.ndarray]:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, states=int(rng.integers(1, 6)), senones=3)
    return graph, (2 * rng.normal(size=(frames, 3))).astype(np.float32)


@settings(deadline=None)  # the first example compiles
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_the_best_of_all_paths_is_found_in_any_portions(seed, frames, portion):
    graph, loglikes = drawn(seed, frames)
    paths, arcs = paths_of(graph, loglikes), SearchGraph(graph)
    search = BeamSearch(arcs, EVERYTHING)
    for _ in range(2):  # nothing is left of the search before
        search.restart()
        for first in range(0, frames, portion):
            search.advance(loglikes[first : first + portion])
        best = search.best(final=True)
        if not paths:
            assert not len(best)
            continue
        real = np.flatnonzero(graph.senone >= 0)
        ends = [paths[path] for path in paths if path[:-1] == tuple(real[best])]
        assert max(ends) == pytest.approx(max(paths.values()), abs=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(0.1, 8.0))
def test_a_lattice_has_the_arcs_of_all_paths_within_its_beam_and_no_others(seed, frames, beam):
    graph, loglikes = drawn(seed, frames)
    paths = paths_of(graph, loglikes)
    search = BeamSearch(SearchGraph(graph), EVERYTHING)
    search.advance(loglikes)
    lattice = search.lattice(loglikes, beam)
    if lattice is None:
        assert not paths
        return
    best = max(paths.values())

    def expected(width: float) -> set[tuple[int, int]]:
        """(frame, arc) of all paths within a beam."""
        return {pair for path, score in paths.items() if score >= best - width for pair in enumerate(path[:-1])}

    assert (lattice.dst > lattice.src).all() and (np.diff(lattice.src) >= 0).all()
    # each state is one of the graph in one frame: those of a frame follow those of the frame before
    frame_of = {0: 0}
    for src, dst in zip(lattice.src.tolist(), lattice.dst.tolist(), strict=True):
        assert frame_of.setdefault(dst, frame_of[src] + 1) == frame_of[src] + 1
    in_frames = [frame_of[src] for src in lattice.src.tolist()]
    counts = np.bincount(in_frames, minlength=frames)
    for width, compare in ((beam - 1e-3, np.greater_equal), (beam + 1e-3, np.less_equal)):
        of_frames = np.bincount([frame for frame, _ in expected(width)], minlength=frames)
        assert compare(counts, of_frames).all()
    scores = _best_of(lattice)
    assert scores == pytest.approx(best, abs=1e-4)
    again = search.best(final=True)
    assert len(again) == frames  # the search is as it was


def _best_of(lattice) -> float:
    totals = np.full(len(lattice.final), -np.inf)
    totals[0] = 0.0
    for src, dst, cost in zip(lattice.src, lattice.dst, lattice.graph + lattice.acoustic, strict=True):
        totals[dst] = max(totals[dst], totals[src] - cost)
    return float((totals - lattice.final).max())


def test_where_every_path_ends_before_the_frames_do_there_is_none():
    """Two frames lead to a state that only a final arc leaves."""
    src, dst, senone = np.array([(0, 1, 0), (1, 2, 0), (2, 3, -1)], np.int32).T
    nothing = np.zeros(3, np.int32)
    graph = Graph(src, dst, senone, nothing, nothing.astype(np.float32), 1, ("ONE",), ())
    search = BeamSearch(SearchGraph(graph), EVERYTHING)
    search.advance(np.zeros((2, 1), np.float32))
    assert len(search.best(final=True)) == 2
    for _ in range(3):
        search.advance(np.zeros((1, 1), np.float32))
        assert not len(search.best(final=True)) and not len(search.best(final=False))
    assert search.lattice(np.zeros((5, 1), np.float32), 1.0) is None
    search.restart()
    search.advance(np.zeros((2, 1), np.float32))
    assert len(search.best(final=True)) == 2


@pytest.fixture(scope="module")
def wide() -> Graph:
    """400 states, each with arcs to 20 others."""
    rng = np.random.default_rng(0)
    rows = [(src, int(rng.integers(400)), int(rng.integers(50)), 0) for src in range(400) for _ in range(20)]
    rows += [(src, 400, -1, 0) for src in range(400)]
    src, dst, senone, output = np.array(sorted(rows), np.int32).T
    return Graph(src, dst, senone, output, np.zeros(len(src), np.float32), 50, ("ONE",), ())


def survivors(graph: Graph, beams: Beams, loglikes: np.ndarray) -> np.ndarray:
    search = BeamSearch(SearchGraph(graph), beams)
    search.advance(loglikes)
    return np.diff(np.concatenate([*search._begins, [search._used]]))


def test_no_frame_keeps_more_than_max_active(wide):
    loglikes = np.random.default_rng(1).normal(size=(40, 50)).astype(np.float32)
    unbounded = survivors(wide, Beams(100.0, 10_000, 0), loglikes)
    bounded = survivors(wide, Beams(100.0, 60, 0), loglikes)
    assert unbounded[5:].min() > 300
    # the histogram has 10 bins in a nat: most of the 60 are kept
    assert bounded.max() <= 60 and bounded[5:].min() > 30


def test_a_narrow_beam_keeps_min_active(wide):
    loglikes = (30 * np.random.default_rng(2).normal(size=(40, 50))).astype(np.float32)
    narrow, kept = (survivors(wide, Beams(0.5, 1000, least), loglikes) for least in (0, 25))
    assert narrow[5:].max() < 10
    assert kept[5:].min() >= 20  # some fall to the first guess of the cutoff


def test_scores_of_an_hour_are_as_exact_as_those_of_a_second(wide):
    """Sums over many frames in float32 would lose the small differences that decide."""
    loglikes = np.random.default_rng(3).normal(size=(60_000, 50)).astype(np.float32) - 100.0
    search = BeamSearch(SearchGraph(wide), Beams(4.0, 20, 0))
    search.advance(loglikes)
    arcs = search.best(final=True)
    total = loglikes.astype(np.float64)[np.arange(len(arcs)), search._graph.arcs[arcs, 1]].sum()
    tracked = sum(float(bests.sum()) for bests in search._bests) + float(search._scores[: search._num_tokens].max())
    assert len(arcs) == 60_000
    assert tracked == pytest.approx(total, abs=0.5)


def test_words_are_penalised_and_the_graph_is_shared():
    rng = np.random.default_rng(4)
    graph = random_graph(rng, 5, 3)
    plain, penalised = SearchGraph(graph), SearchGraph(graph, word_penalty=-1.5)
    outputs = graph.output[graph.senone >= 0]
    np.testing.assert_allclose(penalised.scores[:, 2], plain.scores[:, 2] - 1.5 * (outputs > 0), rtol=1e-6)
    loglikes = rng.normal(size=(9, 3)).astype(np.float32)
    one, other = BeamSearch(plain, EVERYTHING), BeamSearch(plain, EVERYTHING)
    for frames in np.array_split(loglikes, 5):
        one.advance(frames)
        other.advance(frames)
        np.testing.assert_array_equal(one.best(final=False), other.best(final=False))

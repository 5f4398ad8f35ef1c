"""Viterbi on graphs of any shape, against a search over all paths and a dynamic programme in plain numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.topology import (
    UNREACHABLE,
    CannotAlignError,
    TranscriptGraph,
    compile_transcript,
    context_keys,
    equal_alignment,
    path_segments,
)
from asr_kd.alignment.viterbi import viterbi
from asr_kd.lang.lexicon import Lang

NUM_CLASSES = 5
PHONES = ("SIL", "A", "B", "C")


def random_graph(rng: np.random.Generator, num_states: int) -> TranscriptGraph:
    """Arcs from lower states and from a state to itself, as topology makes them, but without its regularity."""
    sources, weights, first = [], [], [0]
    for state in range(num_states):
        before = [s for s in range(state + 1) if rng.random() < 0.6]
        sources += before
        weights += rng.normal(-1, 1, len(before)).tolist()
        first.append(len(sources))
    initial, final = np.full((2, num_states), -np.inf, np.float32)
    initial[rng.integers(0, num_states, 2)] = rng.normal(size=2)
    final[rng.integers(0, num_states, 2)] = rng.normal(size=2)
    return TranscriptGraph(
        phone=np.zeros(1, np.int32),
        word=np.zeros(1, np.int32),
        classes=rng.integers(0, NUM_CLASSES, num_states).astype(np.int32),
        first=np.array(first, np.int32),
        source=np.array(sources, np.int32),
        weight=np.array(weights, np.float32),
        initial=initial,
        final=final,
        shortest_path_nodes=np.zeros(0, np.int32),
        equal_path_nodes=np.zeros(0, np.int32),
    )


def dense(graph: TranscriptGraph) -> np.ndarray:
    """(S, S) float64: [from, to] log-probability."""
    arcs = np.full((graph.num_states, graph.num_states), -np.inf)
    arcs[graph.source, np.repeat(np.arange(graph.num_states), np.diff(graph.first))] = graph.weight
    return arcs


def every_path(scores: np.ndarray, graph: TranscriptGraph) -> dict[tuple[int, ...], float]:
    """All paths that have any probability, with their scores in float64."""
    arcs = dense(graph)
    paths = {(s,): float(graph.initial[s]) + float(scores[0, graph.classes[s]]) for s in range(graph.num_states)}
    for row in scores[1:].astype(np.float64):
        paths = {
            (*path, s): score + arcs[path[-1], s] + row[graph.classes[s]]
            for path, score in paths.items()
            if np.isfinite(score)
            for s in range(graph.num_states)
        }
    finished = {path: score + float(graph.final[path[-1]]) for path, score in paths.items()}
    return {path: score for path, score in finished.items() if np.isfinite(score)}


def plain_dp(scores: np.ndarray, graph: TranscriptGraph) -> float:
    arcs = dense(graph)
    alive = graph.initial.astype(np.float64) + scores[0, graph.classes]
    for row in scores[1:].astype(np.float64):
        alive = (alive[:, None] + arcs).max(axis=0) + row[graph.classes]
    return float((alive + graph.final).max())


@given(seed=st.integers(0, 2**32 - 1), num_states=st.integers(1, 5), num_frames=st.integers(1, 5))
def test_no_path_is_better(seed: int, num_states: int, num_frames: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, num_states)
    scores = rng.normal(0, 3, (num_frames, NUM_CLASSES)).astype(np.float32)
    paths = every_path(scores, graph)
    if not paths:
        with pytest.raises(CannotAlignError):
            viterbi(scores, graph)
        return
    path, score = viterbi(scores, graph)
    assert score == pytest.approx(max(paths.values()), abs=1e-5)
    assert paths[tuple(path.tolist())] == pytest.approx(score, abs=1e-5)


@given(seed=st.integers(0, 2**32 - 1), beam=st.sampled_from([0.0, 1e6]))
def test_agrees_with_plain_numpy_on_transcripts(seed: int, beam: float) -> None:
    rng = np.random.default_rng(seed)
    words = {
        name: tuple(tuple(rng.integers(1, 4, rng.integers(1, 4)).tolist()) for _ in range(rng.integers(1, 4)))
        for name in "XYZ"
    }
    graph = compile_transcript(rng.choice(list("XYZ"), rng.integers(1, 5)).tolist(), Lang(PHONES, (), words))
    num_frames = 3 * len(graph.shortest_path_nodes) + int(rng.integers(0, 60))
    scores = rng.normal(0, 2, (num_frames, 3 * len(PHONES))).astype(np.float32)
    path, score = viterbi(scores, graph, beam=beam)
    assert score == pytest.approx(plain_dp(scores, graph), abs=1e-4)
    contexts = context_keys(path_segments(graph, path), graph.classes[path], len(PHONES))
    assert np.array_equal(contexts // len(PHONES) ** 2, graph.classes[path])


@given(seed=st.integers(0, 2**32 - 1))
def test_a_narrow_beam_gives_a_real_path_or_searches_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = compile_transcript(["X", "Y"], Lang(PHONES, (), {"X": ((1, 2), (3,)), "Y": ((2,),)}))
    scores = rng.normal(0, 3, (30, 12)).astype(np.float32)
    path, score = viterbi(scores, graph, beam=2.0)
    arcs, rows = dense(graph), scores.astype(np.float64)
    along = float(graph.initial[path[0]]) + float(graph.final[path[-1]]) + arcs[path[:-1], path[1:]].sum()
    assert along + rows[np.arange(30), graph.classes[path]].sum() == pytest.approx(score, abs=1e-4)
    assert score <= viterbi(scores, graph)[1] + 1e-5


@given(seed=st.integers(0, 2**32 - 1), num_states=st.integers(1, 8))
def test_arranged_arcs_are_the_graphs_own(seed: int, num_states: int) -> None:
    graph = random_graph(np.random.default_rng(seed), num_states)
    arcs = graph.search_arcs
    states = np.arange(num_states)
    result = [(s, s, arcs.stay[s]) for s in states if arcs.stay[s] > -np.inf]
    result += [(s - 1, s, arcs.step[s]) for s in states if arcs.step[s] > -np.inf]
    result += zip(arcs.source, arcs.target, arcs.weight, strict=True)
    target = np.repeat(states, np.diff(graph.first))
    assert sorted(result) == sorted(zip(graph.source, target, graph.weight, strict=True))
    assert np.array_equal(arcs.first, np.searchsorted(arcs.target, np.arange(num_states + 1)))
    for s in states:
        assert arcs.reach[s] == max([0, *target[graph.source <= s]])


@given(seed=st.integers(0, 2**32 - 1), num_states=st.integers(1, 6))
def test_distance_to_the_end_is_that_of_the_shortest_way(seed: int, num_states: int) -> None:
    graph = random_graph(np.random.default_rng(seed), num_states)
    step = np.isfinite(dense(graph))
    alive, distance = np.isfinite(graph.final), np.full(num_states, UNREACHABLE)
    for arcs in range(num_states):
        distance[alive & (distance == UNREACHABLE)] = arcs
        alive = (step & alive).any(axis=1)
    assert graph.search_arcs.to_end.tolist() == distance.tolist()


def test_just_enough_frames_leave_one_way() -> None:
    graph = compile_transcript(["X", "Y"], Lang(PHONES, (), {"X": ((1, 2), (3,)), "Y": ((2,),)}))
    scores = np.zeros((6, 12), np.float32)
    scores[:, 9:] = -100.0  # C, which the shortest pronunciation of X is
    path, _ = viterbi(scores, graph, beam=1.0)
    assert graph.phone[path // 3].tolist() == [3, 3, 3, 2, 2, 2]


def test_more_arcs_into_a_state_than_a_byte_can_number() -> None:
    many = 300
    silent = random_graph(np.random.default_rng(0), 1)
    target = np.arange(many + 1)
    graph = dataclasses.replace(
        silent,
        classes=np.append(np.zeros(many), 1).astype(np.int32),
        first=np.append(np.minimum(target, 0), many).astype(np.int32),
        source=np.arange(many, dtype=np.int32),
        weight=np.arange(many, dtype=np.float32),
        initial=np.append(np.zeros(many), -np.inf).astype(np.float32),
        final=np.append(np.full(many, -np.inf), 0).astype(np.float32),
    )
    path, score = viterbi(np.zeros((2, 2), np.float32), graph)
    assert path.tolist() == [many - 1, many]
    assert score == many - 1


@pytest.mark.parametrize("poison", [np.nan, -np.inf])
def test_likelihoods_that_are_no_numbers_are_refused(poison: float) -> None:
    graph = compile_transcript(["X"], Lang(PHONES, (), {"X": ((1,),)}))
    scores = np.zeros((9, 12), np.float32)
    scores[4] = poison
    with pytest.raises(CannotAlignError, match="finite"):
        viterbi(scores, graph)


def test_a_long_utterance_does_not_lose_small_differences() -> None:
    """Two pronunciations that differ by 0.01 in all, after a score of millions: float32 sums could not tell them."""
    graph = compile_transcript(["X"], Lang(PHONES, (), {"X": ((1,), (2,))}))
    scores = np.full((20_000, 12), -500.0, np.float32)
    scores[:, :3] = -1000.0  # silence is not an option
    scores[10_000, 6:9] += 0.01
    path, _ = viterbi(scores, graph)
    assert set(graph.phone[path // 3].tolist()) == {2}


def test_equal_alignment_visits_every_state_of_its_path_equally() -> None:
    graph = compile_transcript(["X", "Y"], Lang(PHONES, (), {"X": ((1, 2), (3,)), "Y": ((2,),)}))
    _, counts = np.unique(equal_alignment(graph, 60), return_counts=True)
    assert counts.tolist() == [4] * 15  # SIL A B B SIL
    assert len(np.unique(equal_alignment(graph, 6))) == 6  # the shortest: C B, without silence

"""Graphs of senones: every path of the phone graph is in them once, with the senones of its phones in context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.alignment.context_graph import compile_in_context
from asr_kd.alignment.topology import (
    SIL,
    CannotAlignError,
    TranscriptGraph,
    compile_transcript,
    context_keys,
    path_segments,
)
from asr_kd.alignment.tree import Tree
from asr_kd.alignment.viterbi import viterbi
from asr_kd.lang.lexicon import Lang

PHONES = ("SIL", "X", "Y", "Z")
# stops with closures, and a vowel after a glottal stop: here nodes are shared between words
CLOSED = Lang(
    ("SIL", "BCL", "TCL", "B", "T", "IY", "Q"),
    ("TEA", "EAT", "BE"),
    {"TEA": ((2, 4, 5),), "EAT": ((6, 5, 2, 4), (5, 2)), "BE": ((1, 3, 5),)},
)


def random_lang(rng: np.random.Generator) -> Lang:
    def pronunciation() -> tuple[int, ...]:
        return tuple(rng.integers(1, 4, rng.integers(1, 4)).tolist())

    words = {word: tuple(pronunciation() for _ in range(rng.integers(1, 4))) for word in "ABC"}
    return Lang(PHONES, tuple(words), words)


def random_tree(rng: np.random.Generator, num_phones: int) -> Tree:
    """A senone of its own for each context; silence has none."""
    tables = rng.permutation(num_phones * 3 * num_phones**2).reshape(num_phones, 3, num_phones, num_phones)
    tables[SIL] = tables[SIL, :, :1, :1]
    return Tree(tuple("abcdefg"[:num_phones]), tables.astype(np.int32), np.ones(tables.size, np.int64))


def node_paths(graph: TranscriptGraph) -> Iterator[tuple[list[int], float]]:
    """Every way through the nodes of a graph, with the sum of its log-probabilities; self-loops are left out."""
    starts = np.flatnonzero(np.isfinite(graph.initial))
    stack = [([int(s)], float(graph.initial[s])) for s in starts]
    target = np.repeat(np.arange(graph.num_states), np.diff(graph.first))
    arcs: dict[int, list[tuple[int, float]]] = {}
    for before, state, weight in zip(graph.source.tolist(), target.tolist(), graph.weight.tolist(), strict=True):
        if before != state:
            arcs.setdefault(before, []).append((state, weight))
    while stack:
        states, score = stack.pop()
        if np.isfinite(graph.final[states[-1]]):
            assert [state % 3 for state in states] == [0, 1, 2] * (len(states) // 3)
            yield [state // 3 for state in states[::3]], score + float(graph.final[states[-1]])
        stack += [([*states, state], score + weight) for state, weight in arcs.get(states[-1], [])]


def expected_senones(graph: TranscriptGraph, nodes: list[int], tree: Tree) -> tuple[int, ...]:
    phones = [SIL, *graph.phone[nodes].tolist(), SIL]
    return tuple(
        int(tree.tables[phones[k], state, phones[k - 1], phones[k + 1]])
        for k in range(1, len(phones) - 1)
        for state in range(3)
    )


def assert_same_paths(words: list[str], lang: Lang, tree: Tree, silence: bool) -> None:
    plain = compile_transcript(words, lang, optional_silence=silence)
    graph = compile_in_context(words, lang, tree, optional_silence=silence)
    expected = Counter(
        (expected_senones(plain, nodes, tree), tuple(plain.word[nodes].tolist()), round(score, 4))
        for nodes, score in node_paths(plain)
    )
    actual = Counter(
        (
            tuple(graph.classes.reshape(-1, 3)[nodes].ravel().tolist()),
            tuple(graph.word[nodes].tolist()),
            round(score, 4),
        )
        for nodes, score in node_paths(graph)
    )
    assert actual == expected
    assert (graph.source <= np.repeat(np.arange(graph.num_states), np.diff(graph.first))).all()
    for name in ("shortest_path_nodes", "equal_path_nodes"):
        assert graph.phone[getattr(graph, name)].tolist() == plain.phone[getattr(plain, name)].tolist()


@given(seed=st.integers(0, 10**6), count=st.integers(1, 3), silence=st.booleans())
def test_every_path_is_there_once_with_the_senones_of_its_contexts(seed: int, count: int, silence: bool) -> None:
    rng = np.random.default_rng(seed)
    lang = random_lang(rng)
    assert_same_paths(rng.choice(list("ABC"), count).tolist(), lang, random_tree(rng, len(PHONES)), silence)


@pytest.mark.parametrize("words", ["TEA", "EAT TEA", "TEA EAT BE", "BE EAT", "EAT EAT"])
def test_closures_and_glottal_stops_between_words(words: str) -> None:
    assert CLOSED.closed_stops
    tree = random_tree(np.random.default_rng(0), len(CLOSED.phones))
    assert_same_paths(words.split(), CLOSED, tree, silence=True)


@given(seed=st.integers(0, 10**6))
def test_labels_of_the_best_path_are_its_senones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lang, tree = random_lang(rng), random_tree(rng, len(PHONES))
    graph = compile_in_context(rng.choice(list("ABC"), 3).tolist(), lang, tree)
    scores = rng.normal(0, 3, (3 * len(graph.shortest_path_nodes) + 20, tree.num_senones)).astype(np.float32)
    path, _ = viterbi(scores, graph)
    keys = context_keys(path_segments(graph, path), graph.context_independent(path), len(PHONES))
    assert np.array_equal(tree.senones_of(keys), graph.classes[path])


def test_unknown_words_are_refused_as_without_context() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(CannotAlignError, match="its word NEW has no pronunciation"):
        compile_in_context(["NEW"], random_lang(rng), random_tree(rng, len(PHONES)))

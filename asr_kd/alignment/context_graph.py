"""Transcripts as graphs of senones: each phone once for every pair of phones that it may stand between.

A node of the transcript's phone graph becomes one node for each phone that may come before it and each that may come
after it; an arc joins two of them where the left one's right phone and the right one's left phone are each other's.
Most phones lie inside a word and have one context; only at the edges of words, where silence is optional and
pronunciations differ, are there several. Silence is one node in every context, as the tree has it.

Shapes:  N nodes of the phone graph, Q nodes in context, P phones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asr_kd.alignment.topology import SIL, PhoneGraph, TranscriptGraph, expand, phones_of_transcript
from asr_kd.alignment.tree import Tree
from asr_kd.lang.lexicon import Lang

_EDGE = -1  # in place of a node: before the first and after the last one
_ANY = -1  # in place of a phone: silence does not depend on its neighbours


class _Key(NamedTuple):
    """A node in context."""

    node: int
    left: int  # the phone before it, or _ANY
    right: int


def compile_in_context(
    words: Sequence[str], lang: Lang, tree: Tree, *, optional_silence: bool = True
) -> TranscriptGraph:
    """Returns the graph of a transcript, with the senones of a tree for its phones in context.

    It is that of `topology.compile_transcript`, with senones in place of context-independent states.

    Raises:
      CannotAlignError: the transcript is empty, or a word has no pronunciation.

    >>> from asr_kd.alignment.tree import monophone_tree
    >>> lang = Lang(("SIL", "A", "B"), ("AB",), {"AB": ((1, 2),)})
    >>> graph = compile_in_context(["AB"], lang, monophone_tree(lang.phones), optional_silence=False)
    >>> graph.classes.tolist()
    [3, 4, 5, 6, 7, 8]
    """
    graph = phones_of_transcript(words, lang, optional_silence=optional_silence)
    in_context, left, right = _in_context(graph)
    phone = np.asarray(in_context.phone)
    return expand(in_context, tree.tables[phone, :, left, right])


def _in_context(graph: PhoneGraph) -> tuple[PhoneGraph, np.ndarray, np.ndarray]:
    """The graph with a node for each context, and the phone to the left and to the right of each node, (Q,) each."""
    before, after = _neighbours(graph)
    keys: list[_Key] = []
    for node, phone in enumerate(graph.phone):
        lefts, rights = ([_ANY], [_ANY]) if phone == SIL else (sorted(before[node]), sorted(after[node]))
        keys += [_Key(node, left, right) for left in lefts for right in rights]
    first = {key.node: place for place, key in reversed(list(enumerate(keys)))}
    by_right: dict[tuple[int, int], list[int]] = {}
    for place, key in enumerate(keys):
        by_right.setdefault((key.node, key.right), []).append(place)

    def before_phone(node: int, phone: int) -> list[int]:
        return by_right[node, _ANY if graph.phone[node] == SIL else phone]

    def entries(key: _Key) -> list[tuple[int, float]]:
        result: list[tuple[int, float]] = []
        for node, weight in graph.entries[key.node]:
            if key.left in (_ANY, _phone(graph, node)):
                places = [_EDGE] if node == _EDGE else before_phone(node, graph.phone[key.node])
                result += [(place, weight) for place in places]
        return result

    in_context = PhoneGraph(
        phone=[graph.phone[key.node] for key in keys],
        word=[graph.word[key.node] for key in keys],
        entries=[entries(key) for key in keys],
        final=[(place, weight) for node, weight in graph.final for place in before_phone(node, SIL)],
        # any context of each node: what counts is how many there are, and some of these paths leave out a rule
        shortest_path=[first[node] for node in graph.shortest_path],
        equal_path=[first[node] for node in graph.equal_path],
    )
    sides = np.array([(key.left, key.right) for key in keys])
    left, right = np.where(sides == _ANY, SIL, sides).T
    return in_context, left, right


def _phone(graph: PhoneGraph, node: int) -> int:
    return SIL if node == _EDGE else graph.phone[node]


def _neighbours(graph: PhoneGraph) -> tuple[list[set[int]], list[set[int]]]:
    """The phones that may come before each node, and after it; silence stands for the edges of the utterance."""
    before = [{_phone(graph, node) for node, _ in entries} for entries in graph.entries]
    after: list[set[int]] = [set() for _ in graph.phone]
    for node, entries in enumerate(graph.entries):
        for earlier, _ in entries:
            if earlier != _EDGE:
                after[earlier].add(graph.phone[node])
    for node, _ in graph.final:
        after[node].add(SIL)
    return before, after

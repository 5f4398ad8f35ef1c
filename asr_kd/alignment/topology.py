"""What an utterance may sound like: its words as a graph of emitting HMM states, and a path through it as labels.

Every phone has three states, left to right, each with a self-loop; the self-loop and the arc that leaves the state have
probability 1/2 each. A word has all its pronunciations; silence is optional (probability 1/2) between words and at both
ends. Where the lexicon writes stops with their closures, a word-initial stop may skip its closure after silence (which
absorbs it) or after any closure (which is shared). A glottal stop between two vowels, the second of which begins a
word, belongs to neither word.

Shapes:  N phones in the graph (nodes), S = 3 N emitting states, A arcs, T frames, P phones of the language.
A node's number is smaller than those of its successors; state s is HMM state s % 3 of node s // 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_kd.kernels import compiled
from asr_kd.lang.lexicon import Lang
from asr_kd.lang.phones import GLOTTAL_STOP

NUM_HMM_STATES = 3
SIL = 0  # index of silence among the phones; also the context of the first and the last phone of an utterance
LOG_HALF = math.log(0.5)
LOG_NO_CLOSURE = math.log(1 / 8)  # inside a sentence: short silences would take the place of most closures
UNREACHABLE = np.iinfo(np.int32).max


class CannotAlignError(Exception):
    """This utterance has no alignment; the message is the reason, to be read after the utterance's name."""


@dataclass(frozen=True)
class TranscriptGraph:
    """Emitting states of one transcript, with the arcs that enter each state in CSR form."""

    phone: NDArray[np.int32]  # (N,) phone of each node
    word: NDArray[np.int32]  # (N,) which word of the transcript it belongs to, -1: none
    classes: NDArray[np.int32]  # (S,) what each state is scored as: 3 * phone + HMM state, or a senone
    first: NDArray[np.int32]  # (S + 1,) arcs first[s]:first[s + 1] enter state s
    source: NDArray[np.int32]  # (A,) state an arc comes from; never larger than the state it enters
    weight: NDArray[np.float32]  # (A,) log-probability of an arc
    initial: NDArray[np.float32]  # (S,) log-probability of starting here, -inf where impossible
    final: NDArray[np.float32]  # (S,) log-probability of ending here, -inf where impossible
    shortest_path_nodes: NDArray[np.int32]  # of a path with the fewest states that has every closure
    equal_path_nodes: NDArray[np.int32]  # of the equal alignment: first pronunciations, silence at both ends
    starts: NDArray[np.int32] | None = None  # (N + 1,) first frame of each node, then T, where they are fixed by hand

    @property
    def num_states(self) -> int:
        return len(self.classes)

    def context_independent(self, path: NDArray[np.int32]) -> NDArray[np.int32]:
        """(T,) states on a path -> (T,) 3 * phone + HMM state."""
        return (NUM_HMM_STATES * self.phone[path // NUM_HMM_STATES] + path % NUM_HMM_STATES).astype(np.int32)

    @cached_property
    def search_arcs(self) -> SearchArcs:
        """The arcs as the search takes them; cached, because a flat start searches the same graph in every round."""
        arranged = _arrange(self.first, self.source, self.weight, self.final)
        return SearchArcs(self.classes, self.initial, self.final, *arranged)

    def check_frames(self, num_frames: int) -> None:
        """Raises CannotAlignError where no path with all its closures is short enough for this many frames."""
        needed = NUM_HMM_STATES * len(self.shortest_path_nodes)
        if num_frames < needed:
            raise CannotAlignError(
                f"it has {num_frames} frames, but the shortest pronunciation of its transcript takes {needed}"
            )


class SearchArcs(NamedTuple):
    """A graph as Viterbi, compiled by numba, is fastest with it: X arcs that skip states apart from all others.

    Nearly all arcs of a transcript's graph stay in a state or come from the state before. As two arrays they need no
    indices, so that a processor computes several at a time; only the other arcs are searched one by one.
    """

    classes: NDArray[np.int32]  # these three are the graph's own
    initial: NDArray[np.float32]
    final: NDArray[np.float32]
    stay: NDArray[np.float64]  # (S,) log-probability of the first arc from the state to itself, -inf without one
    step: NDArray[np.float64]  # (S,) log-probability of the first arc from the state before, -inf likewise
    first: NDArray[np.int32]  # (S + 1,) other arcs first[s]:first[s + 1] enter state s
    source: NDArray[np.int32]  # (X,) state that another arc comes from
    target: NDArray[np.int32]  # (X,) state that it enters
    weight: NDArray[np.float64]  # (X,) its log-probability
    reach: NDArray[np.int32]  # (S,) the highest state that an arc from this state or a lower one enters
    to_end: NDArray[np.int32]  # (S,) fewest arcs from the state to a final one, UNREACHABLE where there is none


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


class _Builder:
    """Collects nodes and the arcs between them; a frontier is a list of (last node, log-probability), -1: the start."""

    def __init__(self) -> None:
        self.phone: list[int] = []
        self.word: list[int] = []
        self.entries: list[list[tuple[int, float]]] = []

    def chain(self, phones: Sequence[int], word: int, frontier: list[tuple[int, float]]) -> list[int]:
        """Adds phones one after the other behind `frontier`; returns their nodes."""
        nodes = range(len(self.phone), len(self.phone) + len(phones))
        self.phone.extend(phones)
        self.word.extend([word] * len(phones))
        self.entries.append(frontier)
        self.entries.extend([(node, 0.0)] for node in nodes[:-1])
        return list(nodes)

    def optional_silence(self, frontier: list[tuple[int, float]]) -> tuple[int, list[tuple[int, float]]]:
        """Adds an optional silence; returns its node, and the frontier of the paths through it and past it."""
        halved = [(node, weight + LOG_HALF) for node, weight in frontier]
        (silence,) = self.chain((SIL,), -1, halved)
        return silence, [(silence, 0.0), *halved]

    def closed_chains(
        self, pronunciations: Sequence[Sequence[int]], word: int, frontier: list[tuple[int, float]], lang: Lang
    ) -> list[list[int]]:
        """`chain` for each pronunciation of a lexicon with closures; the phones before it decide how a word begins."""
        silent = {SIL, *(closure for closure, _ in lang.closed_stops)}
        after_silence = [(node, weight) for node, weight in frontier if node < 0 or self.phone[node] in silent]
        after_vowel = [(node, weight) for node, weight in frontier if node >= 0 and lang.is_vowel(self.phone[node])]
        others = [entry for entry in frontier if entry not in after_vowel]
        with_glottal_stop = [lang.phones[phones[0]] == GLOTTAL_STOP and len(phones) > 1 for phones in pronunciations]
        glottal_stop = None
        if after_vowel and any(with_glottal_stop):
            phones = pronunciations[with_glottal_stop.index(True)]
            (glottal_stop,) = self.chain(phones[:1], -1, after_vowel)
        chains = []
        for phones, glottal in zip(pronunciations, with_glottal_stop, strict=True):
            chain = self.chain(phones, word, others if glottal and after_vowel else frontier)
            if glottal and glottal_stop is not None:
                self.entries[chain[1]].append((glottal_stop, 0.0))
            if tuple(phones[:2]) in lang.closed_stops:
                penalty = LOG_NO_CLOSURE if word else 0.0
                self.entries[chain[1]] += [(node, weight + penalty) for node, weight in after_silence]
            chains.append(chain)
        return chains


@dataclass(frozen=True)
class PhoneGraph:
    """What a transcript may sound like as phones; `expand` makes emitting states of them."""

    phone: Sequence[int]  # (N,) phone of each node
    word: Sequence[int]  # (N,) which word of the transcript it belongs to, -1: none
    entries: Sequence[Sequence[tuple[int, float]]]  # (N,) nodes before each, -1: the start, with log-probabilities
    final: Sequence[tuple[int, float]]  # nodes that may be the last, likewise
    shortest_path: Sequence[int]  # nodes of a path with the fewest states that has every closure
    equal_path: Sequence[int]  # of the equal alignment: first pronunciations, silence at both ends


def compile_transcript(words: Sequence[str], lang: Lang, *, optional_silence: bool = True) -> TranscriptGraph:
    """The graph of a transcript, with the context-independent states of its phones.

    Args:
      optional_silence: allow silence that the transcript does not name.

    Raises:
      CannotAlignError: the transcript is empty, or a word has no pronunciation.
    """
    graph = phones_of_transcript(words, lang, optional_silence=optional_silence)
    phone = np.array(graph.phone, np.int32)
    return expand(graph, NUM_HMM_STATES * phone[:, None] + np.arange(NUM_HMM_STATES, dtype=np.int32))


def phones_of_transcript(words: Sequence[str], lang: Lang, *, optional_silence: bool = True) -> PhoneGraph:
    """Arguments and errors are those of `compile_transcript`."""
    if not words:
        raise CannotAlignError("its transcript is empty")
    builder = _Builder()
    shortest_path: list[int] = []
    equal_path: list[int] = []
    frontier: list[tuple[int, float]] = [(-1, 0.0)]
    if optional_silence:
        silence, frontier = builder.optional_silence(frontier)
        equal_path.append(silence)
    for number, word in enumerate(words):
        pronunciations = tuple(dict.fromkeys(p for p in lang.pronunciations.get(word, ()) if p))
        if not pronunciations:
            raise CannotAlignError(f"its word {word} has no pronunciation in the lexicon")
        if lang.closed_stops:
            chains = builder.closed_chains(pronunciations, number, frontier, lang)
        else:
            chains = [builder.chain(phones, number, frontier) for phones in pronunciations]
        shortest_path += chains[min(range(len(chains)), key=lambda k: len(chains[k]))]
        equal_path += chains[0]
        frontier = [(chain[-1], 0.0) for chain in chains]
        if optional_silence:
            silence, frontier = builder.optional_silence(frontier)
    if optional_silence:
        equal_path.append(silence)
    return PhoneGraph(builder.phone, builder.word, builder.entries, frontier, shortest_path, equal_path)


def expand(graph: PhoneGraph, classes: NDArray[np.int32]) -> TranscriptGraph:
    """Nodes to states: a node's first is entered from its predecessors' last ones, the others from the one before.

    Args:
      classes: (N, 3) what the states of each node are scored as.
    """
    phone = np.array(graph.phone, np.int32)
    num_states = NUM_HMM_STATES * len(phone)
    states = np.arange(num_states, dtype=np.int32)
    inner = states[states % NUM_HMM_STATES != 0]
    last = NUM_HMM_STATES - 1
    initial = np.full(num_states, -np.inf, np.float32)
    final = np.full(num_states, -np.inf, np.float32)
    enter = []
    for node, entries in enumerate(graph.entries):
        for before, weight in entries:
            if before < 0:
                initial[NUM_HMM_STATES * node] = weight
            else:
                enter.append((NUM_HMM_STATES * node, NUM_HMM_STATES * before + last, weight + LOG_HALF))
    for before, weight in graph.final:
        final[NUM_HMM_STATES * before + last] = weight + LOG_HALF
    between = np.array(enter, np.float64).reshape(-1, 3)
    target = np.concatenate([states, inner, between[:, 0].astype(np.int32)])
    source = np.concatenate([states, inner - 1, between[:, 1].astype(np.int32)])
    weight = np.concatenate([np.full(num_states + len(inner), LOG_HALF), between[:, 2]])
    order = np.argsort(target, kind="stable")
    return TranscriptGraph(
        phone=phone,
        word=np.array(graph.word, np.int32),
        classes=classes.astype(np.int32).ravel(),
        first=np.searchsorted(target[order], np.arange(num_states + 1)).astype(np.int32),
        source=source[order].astype(np.int32),
        weight=weight[order].astype(np.float32),
        initial=initial,
        final=final,
        shortest_path_nodes=np.array(graph.shortest_path, np.int32),
        equal_path_nodes=np.array(graph.equal_path, np.int32),
    )


def equal_alignment(graph: TranscriptGraph, num_frames: int) -> NDArray[np.int32]:
    """(T,) states that share the frames equally: where the flat start begins.

    Raises:
      CannotAlignError: fewer frames than states.
    """
    graph.check_frames(num_frames)
    equal = graph.equal_path_nodes
    nodes = equal if num_frames >= NUM_HMM_STATES * len(equal) else graph.shortest_path_nodes
    states = (NUM_HMM_STATES * nodes[:, None] + np.arange(NUM_HMM_STATES, dtype=np.int32)).ravel()
    return states[np.arange(num_frames) * len(states) // num_frames]


@dataclass(frozen=True)
class Segments:
    """The phones along a path, in order; K of them."""

    phone: NDArray[np.int32]  # (K,)
    word: NDArray[np.int32]  # (K,) which word of the transcript, -1: none
    start: NDArray[np.int64]  # (K + 1,) first frame of each; the last entry is T

    def words(self) -> list[tuple[int, int, int]]:
        """(word of the transcript, first frame, frame after the last), in order."""
        change = np.flatnonzero(np.diff(self.word, prepend=-2))
        ends = np.append(change[1:], len(self.word))
        return [
            (int(self.word[a]), int(self.start[a]), int(self.start[b]))
            for a, b in zip(change, ends, strict=True)
            if self.word[a] >= 0
        ]


def path_segments(graph: TranscriptGraph, path: NDArray[np.int32]) -> Segments:
    """The phones that a path (T,) of states goes through."""
    nodes = path // NUM_HMM_STATES
    start = np.flatnonzero(np.diff(nodes, prepend=-1))
    inside = nodes[start]
    return Segments(graph.phone[inside], graph.word[inside], np.append(start, len(path)))


def context_keys(segments: Segments, states: NDArray[np.int32], num_phones: int) -> NDArray[np.int32]:
    """(T,) phone, HMM state, left and right phone of each frame on a path, as one number (see `context_key`).

    Args:
      states: (T,) context-independent state of each frame.
    """
    left = np.concatenate([[SIL], segments.phone[:-1]])
    right = np.concatenate([segments.phone[1:], [SIL]])
    length = np.diff(segments.start)
    phone, left, right = (np.repeat(phones, length) for phones in (segments.phone, left, right))
    return context_key(phone, states % NUM_HMM_STATES, left, right, num_phones)


def context_key(
    phone: NDArray[np.int32],
    hmm_state: NDArray[np.int32],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    num_phones: int,
) -> NDArray[np.int32]:
    """The flat index of [phone, HMM state, left, right] in a table (P, 3, P, P)."""
    return (((phone * NUM_HMM_STATES + hmm_state) * num_phones + left) * num_phones + right).astype(np.int32)

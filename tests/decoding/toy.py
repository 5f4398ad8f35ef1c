"""A toy language whose best path can be found by trying everything, and a tree over it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from asr_kd.alignment.tree import Tree
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.lexicon import Lang
from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram

PHONES = ("SIL", "a", "b", "c")
LANG = Lang(
    PHONES,
    ("AB", "BEE", "BEER", "C", "SEA"),  # homophones C and SEA; BEE begins BEER; AB is said in two ways
    {"AB": ((1, 2), (1,)), "BEE": ((2,),), "BEER": ((2, 3),), "C": ((3,),), "SEA": ((3,), (3, 1))},
)
ARPA = estimate([["BEE", "C"], ["AB", "SEA", "AB"], ["BEER"], ["BEE", "SEA"], ["C", "BEER"]], 3, LANG.words)
SILENCE = 0.3


def toy_tree(rng: np.random.Generator, variants: int) -> Tree:
    """Every phone's first state is tied by left context, its last by right context, into `variants` senones."""
    phones = len(PHONES)
    tables = np.zeros((phones, 3, phones, phones), np.int32)
    states = 0
    for phone in range(phones):
        for state in range(3):
            kinds = rng.integers(0, variants, phones)
            tables[phone, state] = states + (kinds[None, :] if state == 2 else kinds[:, None])
            states += variants
    return Tree(PHONES, tables, np.full(states, 10, np.int64))


def sentences(max_phones: int) -> Iterator[tuple[tuple[str, ...], tuple[int, ...], float]]:
    """Every (words, phones with silences, log probability of pronunciation and silences) of at most `max_phones`."""
    pause, none = np.log(SILENCE), np.log(1 - SILENCE)

    def grow(words: tuple[str, ...], phones: tuple[int, ...], score: float) -> Iterator[tuple]:
        for silence in ((), (0,)):
            so_far = phones + silence
            if len(so_far) > max_phones:
                continue
            here = score + (pause if silence else none)
            if so_far:
                yield words, so_far, here
            for word in LANG.words:
                for pronunciation in LANG.pronunciations[word]:
                    if len(so_far) + len(pronunciation) <= max_phones:
                        yield from grow((*words, word), so_far + pronunciation, here)

    return grow((), (), 0.0)


def language_score(arpa: Arpa, words: tuple[str, ...]) -> float:
    """The best way through the back-off model, where backing off is always allowed, as in the graph."""

    def best(history: NGram, rest: tuple[str, ...]) -> float:
        if not rest:
            return 0.0
        word, *after = rest
        options = []
        result = arpa.probabilities[len(history)].get((*history, word)) if len(history) < arpa.order else None
        if result is not None:
            longer = (*history, word)
            options.append(result + best(longer[max(0, len(longer) - arpa.order + 1) :], tuple(after)))
        if history:
            options.append(arpa.backoffs.get(history, 0.0) + best(history[1:], rest))
        return max(options, default=-np.inf)

    return best((BEGIN,), (*words, END))


def alignments(num_frames: int, num_states: int) -> Iterator[np.ndarray]:
    """Every way to pass through all states in order, at least one frame in each: (T,) state numbers."""
    for cuts in itertools.combinations(range(1, num_frames), num_states - 1):
        yield np.searchsorted(np.array(cuts), np.arange(num_frames), side="right")


def best_by_trying_all(
    tree: Tree, loglikes: np.ndarray, *, scale: float, penalty: float, arpa: Arpa = ARPA
) -> tuple[float, set[tuple[str, ...]]]:
    """The best score in float64, and the word sequences that have it (homophones may tie)."""
    frames = len(loglikes)
    acoustic: dict[tuple[int, ...], float] = {}
    scores: dict[tuple[str, ...], float] = {}
    loglikes = scale * loglikes.astype(np.float64)
    for words, phones, score in sentences(frames // 3):
        if phones not in acoustic:
            context = (0, *phones, 0)
            pdfs = np.array(
                [tree.tables[context[i], s, context[i - 1], context[i + 1]] for i in range(1, len(context) - 1)
                 for s in range(3)]
            )  # fmt: skip
            per_state = loglikes[:, pdfs]
            acoustic[phones] = max(
                per_state[np.arange(frames), states].sum() for states in alignments(frames, len(pdfs))
            )
        total = acoustic[phones] + score + language_score(arpa, words) + penalty * len(words) + frames * np.log(0.5)
        scores[words] = max(scores.get(words, -np.inf), total)
    best = max(scores.values())
    return best, {words for words, score in scores.items() if score > best - 0.01}

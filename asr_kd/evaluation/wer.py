"""Word errors: how a hypothesis departs from its reference, word by word, and the rate over a whole set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import kaldialign

Pair = tuple[str | None, str | None]  # (reference word, hypothesis word); None where the other side has one more
Kind = Literal["correct", "sub", "ins", "del"]

_GAP = ""  # no word is empty, so the gap cannot be mistaken for one


@dataclass(frozen=True)
class WordErrors:
    """Counts over one utterance or, added up, over many."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    words: int = 0  # in the reference

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions

    @property
    def wer(self) -> float:
        """Errors per reference word, a fraction; without a reference word 0 if nothing was inserted, else infinity."""
        if self.words == 0:
            return math.inf if self.errors else 0.0
        return self.errors / self.words

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
            self.words + other.words,
        )

    def as_dict(self) -> dict[str, int]:
        return {"ins": self.insertions, "del": self.deletions, "sub": self.substitutions, "words": self.words}


def align_words(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """The cheapest alignment at costs 1/1/1 (Levenshtein).

    >>> align_words("PRESS ONE NOW".split(), "PRESS NOW PLEASE".split())
    [('PRESS', 'PRESS'), ('ONE', None), ('NOW', 'NOW'), (None, 'PLEASE')]
    """
    pairs = kaldialign.align(list(reference), list(hypothesis), _GAP)
    return [(None if ref == _GAP else ref, None if hyp == _GAP else hyp) for ref, hyp in pairs]


def kind(pair: Pair) -> Kind:
    """What became of one aligned word."""
    ref, hyp = pair
    if ref == hyp:
        return "correct"
    return "ins" if ref is None else "del" if hyp is None else "sub"


def count_errors(alignment: Iterable[Pair]) -> WordErrors:
    """Counts of one aligned utterance."""
    kinds = [kind(pair) for pair in alignment]
    inserted = kinds.count("ins")
    return WordErrors(inserted, kinds.count("del"), kinds.count("sub"), len(kinds) - inserted)


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """Aligns and counts one utterance.

    >>> word_errors("A B C".split(), "A X C D".split())
    WordErrors(insertions=1, deletions=0, substitutions=1, words=3)
    """
    return count_errors(align_words(reference, hypothesis))


def pooled(counts: Iterable[WordErrors]) -> WordErrors:
    """The sum: a set's WER is its errors over its words, not a mean of the utterances' WERs."""
    return sum(counts, WordErrors())

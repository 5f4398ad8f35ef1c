"""Errors of words, characters or phones: how a hypothesis departs from its reference, and the rate over a set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import kaldialign
import numpy as np
import regex

Pair = tuple[str | None, str | None]  # (reference word, hypothesis word); None where the other side has one more
Kind = Literal["correct", "sub", "ins", "del"]
Confusion = tuple[str | None, str | None, int]  # (true, recognised, times); None: inserted, or deleted

_CHARACTER = regex.compile(r"\X")
_GAP = ""  # no word is empty, so the gap cannot be mistaken for one
_SIMILAR_SOUNDS = (
    "IY IX IH EY EH AE AX AH UH UW OW AO AA AW AY OY ER "  # vowels, from the front of the mouth to the back; diphthongs
    "L EL R W Y M N EN NG DX "  # liquids, glides, nasals, flap
    "B D G P T K JH CH V DH Z ZH F TH S SH HH VCL CL EPI SIL"  # stops, affricates, fricatives; silence
)


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


def characters(words: Iterable[str]) -> list[str]:
    """The characters of words as a reader counts them: a letter with its marks is one, spaces are none.

    These are Unicode's extended grapheme clusters (UAX 29). The character error rate (CER) is the errors of these
    sequences over the characters of the references, pooled over a set as words are.

    >>> characters(["TRÈS", "BIEN"])
    ['T', 'R', 'È', 'S', 'B', 'I', 'E', 'N']
    >>> [len(characters([word])) for word in ("שָׁלוֹם", "नमस्ते", "กำลัง")]
    [4, 3, 3]
    """
    return [character for word in words for character in _CHARACTER.findall(word)]


def pooled(counts: Iterable[WordErrors]) -> WordErrors:
    """The sum: a set's WER is its errors over its words, not a mean of the utterances' WERs."""
    return sum(counts, WordErrors())


def confusions(alignments: Iterable[Iterable[Iterable[Pair]]]) -> list[Confusion]:
    """How often each pair occurs, the most frequent first.

    Args:
      alignments: [seed][utterance].
    """
    counts = Counter(pair for of_seed in alignments for pairs in of_seed for pair in pairs)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return [(true, recognised, times) for (true, recognised), times in ranked]


def confusion_matrix(counts: Sequence[Confusion]) -> tuple[list[str], np.ndarray]:
    """The phones, similar ones side by side, and (P + 1, P + 1) int64 counts: [true, recognised].

    The last row counts insertions, the last column deletions.
    """
    phones_seen = {phone for true, recognised, _ in counts for phone in (true, recognised) if phone is not None}
    known = [phone for phone in _SIMILAR_SOUNDS.split() if phone in phones_seen]
    phones = known + sorted(phones_seen - set(known))
    index: dict[str | None, int] = {phone: k for k, phone in enumerate(phones)} | {None: len(phones)}
    table = np.zeros((len(phones) + 1, len(phones) + 1), np.int64)
    for true, recognised, times in counts:
        table[index[true], index[recognised]] += times
    return phones, table


def most_confused(counts: Sequence[Confusion], most: int) -> list[Confusion]:
    """The most frequent pairs of two different phones."""
    return [count for count in counts if count[0] != count[1] and None not in count[:2]][:most]

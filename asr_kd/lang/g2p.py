"""Pronunciations of words that are in no lexicon: letter-to-sound rules learnt from the lexicon.

A joint-sequence model (Bisani and Ney 2008, "Joint-sequence models for grapheme-to-phoneme conversion"): each letter of
a known word is paired with the none, one or two phones that it stands for, by Viterbi training, and an n-gram model of
such pairs gives the likeliest pairs for the letters of a new word.

Shapes:  W pronunciations, L letters of all of them one after the other, P phones, U = 1 + P + P * P units (none, one
or two phones).
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr_kd.kernels import compiled
from asr_kd.lang.kneser_ney import estimate
from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram

ORDER = 6  # right on held-out words of cmudict at 4, 5, 6, 7: 70, 74, 75, 75 %; each order costs a third more memory
_ROUNDS = 6  # of {align all words, count again}; the alignments settle before that
_SMOOTHING = 0.01  # of a pair's count
_NONE, _TWO = 0.2, 0.02  # of letters, roughly: silent ones, and those that stand for two phones; only a beginning
_LEAST_COUNT = 3  # pairs seen more rarely are slips of the alignment, and not offered to new words
_BEAM = 24  # partial pronunciations kept after each letter

Lexicon = Mapping[str, Sequence[tuple[str, ...]]]


@dataclass(frozen=True)
class G2P:
    """A trained model; `left_out` of the lexicon's pronunciations have more than two phones a letter (ABBR., say)."""

    units: Mapping[str, tuple[str, ...]]  # letter -> the pairs it may be part of, as words of `model`
    model: Arpa
    left_out: int

    @classmethod
    def train(cls, lexicon: Lexicon, order: int = ORDER) -> G2P:
        """Learns from all pronunciations of a lexicon.

        Raises:
          ValueError: no pronunciation can be learnt from.
        """
        sentences, left_out = align_letters(lexicon)
        counts = Counter(pair for sentence in sentences for pair in sentence)
        offered = defaultdict(list)
        for pair in sorted(counts):
            offered[pair[0]].append(pair)
        often = {
            letter: tuple(pair for pair in pairs if counts[pair] >= _LEAST_COUNT) or tuple(pairs)
            for letter, pairs in offered.items()
        }
        return cls(often, estimate(sentences, order), left_out)

    def pronounce(self, word: str, count: int = 1) -> list[tuple[str, ...]]:
        """The `count` likeliest pronunciations, the best first; fewer where fewer exist.

        Letters that no word of the lexicon has are passed over.
        """
        letters = [letter for letter in word if letter in self.units]
        span = self.model.order - 1
        # Merged only where the phones agree as well: by the n-gram's history alone, the likeliest way to say the first
        # letters of a long word would take the place of every other way.
        beam: dict[tuple[NGram, NGram], float] = {((BEGIN,), ()): 0.0}  # the n-gram's history, phones so far -> score
        for letter in letters:
            reached = [
                (score + self.model.log_probability(history, pair), history, phones, pair)
                for (history, phones), score in beam.items()
                for pair in self.units[letter]
            ]
            reached.sort(key=operator.itemgetter(0), reverse=True)
            beam = {}
            for score, history, phones, pair in reached:
                after = (*history, pair)[-span:] if span else ()
                beam.setdefault((after, phones + _phones(pair)), score)  # the likelier of two ways to it comes first
                if len(beam) == _BEAM:
                    break
        ended = [(score + self.model.log_probability(h, END), phones) for (h, phones), score in beam.items()]
        ranked = dict.fromkeys(phones for _, phones in sorted(ended, reverse=True))
        return [phones for phones in ranked if phones][:count]


def align_letters(lexicon: Lexicon) -> tuple[list[list[str]], int]:
    """Every pronunciation as a list of pairs, one a letter, such as ["P:P", "H:", "O:OW"]... and how many have none."""
    items = [(word, variant) for word, variants in lexicon.items() for variant in variants]
    fit = [(word, variant) for word, variant in items if word and variant and len(variant) <= 2 * len(word)]
    if not fit:
        raise ValueError("the lexicon has no pronunciation that letters could be learnt from")
    alphabet = sorted({letter for word, _ in fit for letter in word})
    phones = sorted({phone for _, variant in fit for phone in variant})
    of_letter, of_phone = ({symbol: k for k, symbol in enumerate(symbols)} for symbols in (alphabet, phones))
    letters = np.array([of_letter[letter] for word, _ in fit for letter in word], np.int32)
    sounds = np.array([of_phone[phone] for _, variant in fit for phone in variant], np.int32)
    letter_ends = np.cumsum([0, *(len(word) for word, _ in fit)]).astype(np.int64)
    sound_ends = np.cumsum([0, *(len(variant) for _, variant in fit)]).astype(np.int64)
    near = np.full((len(alphabet), len(phones)), _SMOOTHING)
    _count_near(letters, sounds, letter_ends, sound_ends, near)
    scores = _first_guess(near)
    units = np.zeros(len(letters), np.int32)
    for _ in range(_ROUNDS):
        _best_units(letters, sounds, letter_ends, sound_ends, scores, len(phones), units)
        counts = np.full(scores.shape, _SMOOTHING)
        np.add.at(counts, (letters, units), 1.0)
        scores = np.log(counts / counts.sum(1, keepdims=True))
    names = ["", *phones, *(f"{first} {second}" for first in phones for second in phones)]
    pairs = [f"{alphabet[letter]}:{names[unit]}" for letter, unit in zip(letters, units, strict=True)]
    sentences = [pairs[a:b] for a, b in itertools.pairwise(letter_ends)]
    return sentences, len(items) - len(fit)


@functools.cache
def _phones(pair: str) -> NGram:
    return tuple(pair[2:].split())


def _first_guess(near: np.ndarray) -> np.ndarray:
    """Counts of letters and phones in the same place of the same words -> (letters, U) log-probabilities."""
    single = near / near.sum(1, keepdims=True)
    double = (single[:, :, None] * single[:, None, :]).reshape(len(near), -1)
    none = np.full((len(near), 1), _NONE)
    return np.log(np.concatenate([none, (1 - _NONE - _TWO) * single, _TWO * double], 1))


@compiled()
def _count_near(letters, sounds, letter_ends, sound_ends, near):  # type: ignore[no-untyped-def]
    for word in range(len(letter_ends) - 1):
        first, end = letter_ends[word], letter_ends[word + 1]
        begin, stop = sound_ends[word], sound_ends[word + 1]
        for i in range(first, end):
            for j in range(begin, stop):
                # how far the two are from the same place in the word, counted in phones
                away = abs((i - first + 0.5) * (stop - begin) / (end - first) - (j - begin + 0.5))
                near[letters[i], sounds[j]] += np.exp(-away)


@compiled()
def _unit(sounds, end, length, num_phones):  # type: ignore[no-untyped-def]
    """The number of the unit that the `length` phones before `end` are."""
    if length == 0:
        return 0
    if length == 1:
        return 1 + sounds[end - 1]
    return 1 + num_phones + sounds[end - 2] * num_phones + sounds[end - 1]


@compiled()
def _best_units(letters, sounds, letter_ends, sound_ends, scores, num_phones, units):  # type: ignore[no-untyped-def]
    """Writes the unit of each letter (L,) on the best path through every word."""
    for word in range(len(letter_ends) - 1):
        first, n = letter_ends[word], letter_ends[word + 1] - letter_ends[word]
        begin, m = sound_ends[word], sound_ends[word + 1] - sound_ends[word]
        best = np.full((n + 1, m + 1), -np.inf)
        taken = np.zeros((n + 1, m + 1), np.int32)
        best[0, 0] = 0.0
        for i in range(1, n + 1):
            letter = letters[first + i - 1]
            for j in range(m + 1):
                for k in range(min(2, j) + 1):
                    score = best[i - 1, j - k] + scores[letter, _unit(sounds, begin + j, k, num_phones)]
                    if score > best[i, j]:
                        best[i, j] = score
                        taken[i, j] = k
        j = m
        for i in range(n, 0, -1):
            k = taken[i, j]
            units[first + i - 1] = _unit(sounds, begin + j, k, num_phones)
            j -= k

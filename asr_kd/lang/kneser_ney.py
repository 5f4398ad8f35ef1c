"""Interpolated modified Kneser-Ney estimates of an n-gram model.

Chen and Goodman (1998), section 3: three discounts per order, from its counts of counts. On a few hundred sentences
those may be too small to trust (a discount comes out negative, or above its count); such an order has one discount.
The unigrams are interpolated with a uniform distribution over the vocabulary, so that every word has some probability.

Shapes:  V words, N n-grams of one length, H of the length before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_kd.kernels import compiled
from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram
from asr_kd.lang.ngram_counts import NGramCounts, kneser_ney_counts
from asr_kd.lang.ngram_text import NumberedText

_LARGEST_DISCOUNT = 0.8  # where the counts of counts hardly tell
_BY_COUNT = 4  # discounts of the counts 0, 1, 2, and 3 and more


@dataclass(frozen=True)
class Level:
    """The n-grams of one length as `NGramCounts` has them, with natural logarithms.

    Attributes:
      history, word: (N,) int32.
      suffix: (N,) int32; -1 where the n-gram without its first word is none of the model's (after pruning).
      log_p: (N,) log probability of the last word after the others; NaN for <s>.
      backoff: (N,) log weight of shorter histories after this n-gram; NaN where it is no history.
    """

    history: NDArray[np.int32]
    word: NDArray[np.int32]
    suffix: NDArray[np.int32]
    log_p: NDArray[np.float64]
    backoff: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class NGramTable:
    """A back-off model in arrays, for models that would not fit into the dictionaries of `Arpa`.

    Attributes:
      words: the vocabulary, sorted, with the sentence marks.
      levels: by length; the rows of the first are the words.
    """

    words: tuple[str, ...]
    levels: tuple[Level, ...]

    @property
    def num_ngrams(self) -> int:
        """The number of n-grams, as an ARPA file without <s> counts them."""
        return sum(map(len, self.levels)) - 1

    def restricted(self, words: Iterable[str]) -> NGramTable:
        """Returns the model without the n-grams that have words other than these and the sentence marks.

        Back-off weights do not change.
        """
        known = {BEGIN, END, *words}
        keeps = [np.array([word in known for word in self.words])]
        for level in self.levels[1:]:
            keeps.append(keeps[0][level.word] & keeps[-1][level.history])
        return self.selected(keeps)

    def selected(self, keeps: Sequence[NDArray[np.bool_]]) -> NGramTable:
        """The n-grams for which `keeps` (N,) of their level is true; the history of each must be kept too."""
        places = [np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32) for keep in keeps]
        levels = []
        for n, (level, keep) in enumerate(zip(self.levels, keeps, strict=True)):
            shorter = np.append(places[max(0, n - 1)], np.int32(-1))  # -1, of a suffix that was pruned, stays
            history, suffix = (shorter[rows[keep]] if n else rows[keep] for rows in (level.history, level.suffix))
            word = places[0][level.word[keep]]
            levels.append(Level(history, word, suffix, level.log_p[keep], level.backoff[keep]))
        return NGramTable(tuple(w for w, keep in zip(self.words, keeps[0], strict=True) if keep), tuple(levels))

    def arpa(self) -> Arpa:
        """The same model in dictionaries: about 0.45 kB for each n-gram."""
        probabilities: list[dict[NGram, float]] = []
        backoffs: dict[NGram, float] = {}
        histories: list[NGram] = [()]
        for level in self.levels:
            ngrams = [(*histories[h], self.words[w]) for h, w in zip(level.history.tolist(), level.word.tolist())]
            probabilities.append({g: p for g, p in zip(ngrams, level.log_p.tolist()) if not math.isnan(p)})
            backoffs |= {g: weight for g, weight in zip(ngrams, level.backoff.tolist()) if not math.isnan(weight)}
            histories = ngrams
        return Arpa(tuple(probabilities), backoffs)


def estimate(sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str] = ()) -> Arpa:
    """Interpolated modified Kneser-Ney.

    Args:
      sentences: words of each, without sentence marks.
      order: the longest n-gram; 1 or more.
      vocabulary: words that get a probability even if no sentence has them.

    Raises:
      ValueError: there are no sentences, or the order is below 1.

    >>> model = estimate([["a", "b"], ["a", "b"], ["b", "a"]], 2)
    >>> round(math.exp(model.log_probability(("a",), "b")), 3)  # 5/3 of 3, and 2/9 of what the unigrams say, 1/3
    0.63
    """
    return estimate_table(NumberedText.of(sentences, vocabulary), order).arpa()


def estimate_table(text: NumberedText, order: int, progress: str | None = None) -> NGramTable:
    """Estimates the interpolated modified Kneser-Ney model of a text of any size; see `estimate`.

    Args:
      progress: label of the progress bar of counting; None: no bar.

    Raises:
      ValueError: there are no sentences, or the order is below 1.
    """
    if order < 1:
        raise ValueError(f"the order of an n-gram model is at least 1, not {order}")
    if not text.tokens:
        raise ValueError("no sentences to estimate a language model from")
    scratch = text.scratch
    levels: list[Level] = []
    lower = np.full(1, 1.0 / (len(text.words) - 1))  # <s> is never predicted
    for table in kneser_ney_counts(text, order, progress):
        p, weight = np.empty(len(table.count)), np.zeros(len(levels[-1]) if levels else 1)
        _interpolate(table.count, table.history, table.suffix, np.array(_discounts(table)), lower, p, weight)
        if levels:
            with np.errstate(divide="ignore"):  # NaN below: no history has the weight 0
                log_weight = np.log(weight)
            levels[-1].backoff[:] = np.where(weight > 0, log_weight, np.nan)
        lower = scratch.keep(p)
        log_p = np.log(lower)
        if not levels:
            log_p[text.number(BEGIN)] = np.nan
        backoff = scratch.keep(np.full(len(p), np.nan))
        levels.append(Level(table.history, table.word, table.suffix, scratch.keep(log_p), backoff))
    return NGramTable(text.words, tuple(levels))


def _discounts(table: NGramCounts) -> tuple[float, float, float, float]:
    """What is taken off the counts 0, 1, 2, and 3 and more."""
    n1, n2, n3, n4 = (int(np.count_nonzero(table.count == count)) for count in range(1, _BY_COUNT + 1))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        discounts = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount < count for count, discount in enumerate(discounts, 1)):
            return 0.0, *discounts
    discount = min(_LARGEST_DISCOUNT, (n1 + 0.5) / (n1 + 0.5 + 2 * (n2 + 0.5)))
    return 0.0, discount, discount, discount


@compiled()
def _interpolate(count, history, suffix, discounts, lower, p, weight):  # type: ignore[no-untyped-def]
    """Writes p (N,) and the weight (H,) of `lower` (H,) after each history; 0 after those without a count."""
    totals = np.zeros(len(weight))
    for row in range(len(count)):
        totals[history[row]] += count[row]
        weight[history[row]] += discounts[min(count[row], 3)]
    for row in range(len(weight)):
        if totals[row] > 0:
            weight[row] /= totals[row]
    for row in range(len(count)):
        share = (count[row] - discounts[min(count[row], 3)]) / totals[history[row]]
        p[row] = share + weight[history[row]] * lower[suffix[row]]

"""A smaller n-gram model that predicts nearly as well: Stolcke (1998), "Entropy-based pruning of backoff models".

An n-gram is dropped where the model's perplexity, on text of its own distribution, rises by less than a threshold.

Shapes:  N n-grams of one length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_kd.kernels import compiled
from asr_kd.lang.kneser_ney import NGramTable
from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram

LEAST = 1e-12  # below this a left-over mass is rounding error


def prune(table: NGramTable, threshold: float) -> NGramTable:
    """Drops n-grams of two words and more, the longest first, and makes the back-off weights fit what is left.

    Args:
      table: a model that has not been pruned.
      threshold: relative rise of perplexity (1e-7, say) below which an n-gram is dropped; 0 drops none.

    Raises:
      ValueError: the model has been pruned: a kept n-gram's suffix is missing.
    """
    if threshold <= 0:
        return table
    if any(np.any(level.suffix < 0) for level in table.levels):
        raise ValueError("a pruned n-gram model cannot be pruned again; estimate it anew")
    levels, order = table.levels, len(table.levels)
    of_history = _log_probabilities_of_histories(table)
    keeps = [np.ones(len(level), bool) for level in levels]
    for n in range(order - 1, 0, -1):
        level, lower = levels[n], levels[n - 1]
        protected = np.zeros(len(level), bool)
        if n + 1 < order:
            protected[levels[n + 1].history[keeps[n + 1]]] = True
        log_p = level.log_p, lower.log_p, of_history[n - 1]
        _drop(level.history, level.suffix, log_p, protected, threshold, keeps[n])
    return _with_new_weights(table, keeps).selected(keeps)


def _log_probabilities_of_histories(table: NGramTable) -> list[NDArray[np.float64]]:
    """Per length but the longest (N,): log P(n-gram) as words of a text; a sentence's start is as likely as its end."""
    first = table.levels[0].log_p.copy()
    first[table.words.index(BEGIN)] = first[table.words.index(END)]
    whole = [first]
    for level in table.levels[1:-1]:
        whole.append(whole[-1][level.history] + level.log_p)
    return whole


def _with_new_weights(table: NGramTable, keeps: Sequence[NDArray[np.bool_]]) -> NGramTable:
    """The whole table, with the weights that it needs where only `keeps` are left."""
    levels = list(table.levels)
    predicted = np.exp(levels[0].log_p)  # of each row, by the model that is left
    for n in range(1, len(levels)):
        level, lower = levels[n], levels[n - 1]
        weights = np.full(len(lower), np.nan)
        _weigh(level.history, level.suffix, level.log_p, predicted, keeps[n], np.exp(lower.backoff), weights)
        levels[n - 1] = dataclasses.replace(lower, backoff=np.log(weights))
        if n + 1 < len(levels):
            back_off = np.where(np.isnan(weights), 1.0, weights)
            predicted = np.where(keeps[n], np.exp(level.log_p), back_off[level.history] * predicted[level.suffix])
    return dataclasses.replace(table, levels=tuple(levels))


@compiled()
def _segment_end(history, start):  # type: ignore[no-untyped-def]
    end = start + 1
    while end < len(history) and history[end] == history[start]:
        end += 1
    return end


@compiled()
def _drop(history, suffix, log_probabilities, protected, threshold, keep):  # type: ignore[no-untyped-def]
    """Writes which rows of one level are kept (N,).

    log_probabilities: of the rows; of the shorter n-grams; and by row of these, log P(history). protected (N,): kept in
    any case.
    """
    log_p, log_q, log_of_history = log_probabilities
    start = 0
    while start < len(history):
        end = _segment_end(history, start)
        # the mass that these words leave to all others, after the history and after the shorter one
        left_higher, left_lower = 1.0, 1.0
        for row in range(start, end):
            left_higher -= np.exp(log_p[row])
            left_lower -= np.exp(log_q[suffix[row]])
        if left_higher > LEAST and left_lower > LEAST:
            weight = left_higher / left_lower
            of_history = np.exp(log_of_history[history[start]])
            for row in range(start, end):
                p, q = np.exp(log_p[row]), np.exp(log_q[suffix[row]])
                changed = (left_higher + p) / (left_lower + q)
                # equation 6 of the paper: this word now backs off, and the weight of all that back off is another
                loss = p * (np.log(q) + np.log(changed / p)) + left_higher * np.log(changed / weight)
                keep[row] = protected[row] or np.expm1(-of_history * loss) >= threshold
        start = end


@compiled()
def _weigh(history, suffix, log_p, lower, keep, old, weights):  # type: ignore[no-untyped-def]
    """Writes the weights of histories that keep a word (by row of the shorter n-grams).

    log_p (N,); lower: what the model that is left predicts of shorter ones; old: weights, NaN is 1. A history of which
    nothing is left to others keeps its own.
    """
    start = 0
    while start < len(history):
        end = _segment_end(history, start)
        left_higher, left_lower, words = 1.0, 1.0, 0
        for row in range(start, end):
            if keep[row]:
                left_higher -= np.exp(log_p[row])
                left_lower -= lower[suffix[row]]
                words += 1
        if words > 0:
            if left_higher > LEAST and left_lower > LEAST:
                weights[history[start]] = left_higher / left_lower
            else:
                weights[history[start]] = 1.0 if np.isnan(old[history[start]]) else old[history[start]]
        start = end


def restrict(arpa: Arpa, words: set[str]) -> Arpa:
    """Drops n-grams with other words than these and the sentence marks; back-off weights do not change."""
    known = words | {BEGIN, END}
    levels = tuple({ngram: p for ngram, p in level.items() if known.issuperset(ngram)} for level in arpa.probabilities)
    return Arpa(levels, {history: w for history, w in arpa.backoffs.items() if known.issuperset(history)})


def renamed(arpa: Arpa, names: Mapping[str, str]) -> Arpa:
    """The same model with other names for its words: word -> name, one of its own for each."""

    def of(ngram: NGram) -> NGram:
        return tuple(names.get(word, word) for word in ngram)

    levels = tuple({of(ngram): p for ngram, p in level.items()} for level in arpa.probabilities)
    return Arpa(levels, {of(history): weight for history, weight in arpa.backoffs.items()})

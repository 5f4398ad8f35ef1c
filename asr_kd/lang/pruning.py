"""A smaller n-gram model that predicts nearly as well: Stolcke (1998), "Entropy-based pruning of backoff models".

An n-gram is dropped where the model's perplexity, on text of its own distribution, rises by less than a threshold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram

_LEAST = 1e-12  # below this a left-over mass is rounding error


def prune(arpa: Arpa, threshold: float) -> Arpa:
    """Drops n-grams of two words and more, the longest first, and makes the back-off weights fit what is left.

    Args:
      threshold: relative rise of perplexity (1e-7, say) below which an n-gram is dropped; 0 drops none.
    """
    if threshold <= 0:
        return arpa
    probabilities = [dict(level) for level in arpa.probabilities]
    backoffs = dict(arpa.backoffs)
    for order in range(arpa.order, 1, -1):
        kept_histories = {ngram[:-1] for ngram in probabilities[order]} if order < arpa.order else set()
        for history, words in _by_history(probabilities[order - 1]).items():
            _prune_history(Arpa(tuple(probabilities[:order]), backoffs), history, words, threshold, kept_histories)
    # the shorter ones first: a weight depends on what the shorter history predicts now
    weights: dict[NGram, float] = {}
    for order in range(2, arpa.order + 1):
        model = Arpa(tuple(probabilities[:order]), weights)
        for history, words in _by_history(probabilities[order - 1]).items():
            left = _left_over(model, history, words)
            weights[history] = backoffs.get(history, 0.0) if left is None else math.log(left[0] / left[1])
    return Arpa(tuple(probabilities), weights)


def _by_history(level: Mapping[NGram, float]) -> dict[NGram, list[str]]:
    words: defaultdict[NGram, list[str]] = defaultdict(list)
    for ngram in level:
        words[ngram[:-1]].append(ngram[-1])
    return dict(words)


def _left_over(model: Arpa, history: NGram, words: list[str]) -> tuple[float, float] | None:
    """The mass that these words leave to all others, after the history and after the shorter one.

    None where nothing is: such a history never backs off.
    """
    level = model.probabilities[len(history)]
    higher = 1.0 - sum(math.exp(level[ngram]) for ngram in ((*history, word) for word in words))
    lower = 1.0 - sum(math.exp(model.log_probability(history[1:], word)) for word in words)
    return (higher, lower) if higher > _LEAST and lower > _LEAST else None


def _prune_history(model: Arpa, history: NGram, words: list[str], threshold: float, kept_histories: set[NGram]) -> None:
    """Takes n-grams of one history out of the model's last level."""
    level = model.probabilities[-1]
    assert isinstance(level, dict)
    left = _left_over(model, history, words)
    if left is None:
        return
    left_higher, left_lower = left
    weight = left_higher / left_lower
    of_history = math.exp(_log_probability_of(model, history))
    predictions = [(word, model.log_probability(history[1:], word)) for word in words]  # before anything is dropped
    for word, log_q in predictions:
        ngram = (*history, word)
        if ngram in kept_histories:
            continue
        p = math.exp(level[ngram])
        changed = (left_higher + p) / (left_lower + math.exp(log_q))
        # equation 6 of the paper: this word now backs off, which changes the weight of all words that back off
        loss = -of_history * (p * (log_q + math.log(changed / p)) + left_higher * math.log(changed / weight))
        if math.expm1(loss) < threshold:
            del level[ngram]


def _log_probability_of(model: Arpa, history: NGram) -> float:
    """log P(history), as the words of a text; the start of a sentence is as likely as its end."""
    total = 0.0
    for position, word in enumerate(history):
        if word == BEGIN:
            total += model.log_probability((), END)
        else:
            total += model.log_probability(history[:position], word)
    return total


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

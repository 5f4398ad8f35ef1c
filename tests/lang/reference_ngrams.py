"""Kneser-Ney estimates and Stolcke's pruning as the papers have them, n-gram by n-gram in dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from asr_kd.lang.ngram import BEGIN, END, Arpa, NGram

_LARGEST_DISCOUNT = 0.8
_LEAST = 1e-12


def estimate(sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str] = ()) -> Arpa:
    """As `asr_kd.lang.kneser_ney.estimate`, of sentences of which there are some."""
    counts = _kneser_ney_counts(sentences, order)
    words = sorted({END, *vocabulary, *(word for (word,) in counts[0])})
    uniform = 1.0 / len(words)

    probabilities: list[dict[NGram, float]] = []
    backoffs: dict[NGram, float] = {}
    for n, table in enumerate(counts, 1):
        discounts = _discounts(table.values())
        largest = discounts[-1]
        totals: defaultdict[NGram, int] = defaultdict(int)
        kept_back: defaultdict[NGram, float] = defaultdict(float)  # the mass that discounting took from each history
        for ngram, count in table.items():
            history = ngram[:-1]
            totals[history] += count
            kept_back[history] += discounts[count - 1] if count < 3 else largest
        weights = {history: kept_back[history] / total for history, total in totals.items()}
        level = {}
        for ngram, count in table.items():
            history = ngram[:-1]
            lower = probabilities[-1][ngram[1:]] if n > 1 else uniform
            share = (count - (discounts[count - 1] if count < 3 else largest)) / totals[history]
            level[ngram] = share + weights[history] * lower
        if n == 1:
            level.update({(word,): weights[()] * uniform for word in words if (word,) not in level})
        else:
            backoffs.update(weights)
        probabilities.append(level)
    return Arpa(
        tuple({ngram: math.log(p) for ngram, p in level.items()} for level in probabilities),
        {history: math.log(weight) for history, weight in backoffs.items()},
    )


def _kneser_ney_counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[NGram]]:
    """Per length: how often an n-gram occurs if it is the longest or begins a sentence, else after how many words."""
    begin: list[Counter[NGram]] = [Counter() for _ in range(order)]  # of a sentence, by length

    def longest() -> Iterator[NGram]:
        for sentence in sentences:
            marked = (BEGIN, *sentence, END)
            for n in range(2, min(order - 1, len(marked)) + 1):
                begin[n][marked[:n]] += 1
            for start in range(1 if order == 1 else 0, len(marked) - order + 1):  # <s> is never the last word
                yield marked[start : start + order]

    counts = [Counter(longest())]
    for n in range(order - 1, 0, -1):
        # every n-gram inside a sentence ends some that is longer by one word
        after: Counter[NGram] = Counter(ngram[1:] for ngram in counts[0])
        after.update(begin[n])
        counts.insert(0, after)
    return counts


def _discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    of = Counter(count for count in counts if count <= 4)
    n1, n2, n3, n4 = (of[i] for i in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        discounts = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount < count for count, discount in enumerate(discounts, 1)):
            return discounts
    discount = min(_LARGEST_DISCOUNT, (n1 + 0.5) / (n1 + 0.5 + 2 * (n2 + 0.5)))
    return discount, discount, discount


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

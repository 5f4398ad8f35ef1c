"""How far a WER can be trusted: bootstrap over utterances (Bisani and Ney, ICASSP 2004).

A test set is resampled with replacement, utterance by utterance. Where a system has several seeds, each resample takes
the same utterances for every seed and averages the seeds' error rates: the interval then speaks of the test set's
choice, and of the mean over seeds, not of one lucky seed. Two systems are compared on the same resamples.

Shapes:  U utterances, S seeds, R resamples (`samples`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DRAWS_AT_ONCE = 1 << 22  # utterances drawn in one step: bounds the memory at 32 MiB per temporary array


@dataclass(frozen=True)
class Interval:
    """A WER (or a difference of two) and its percentile interval, all fractions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """System B against system A."""

    probability_better: float  # that B's WER is below A's on another draw of utterances; a tie counts one half
    difference: Interval  # WER of B minus WER of A


def ratio_interval(
    errors: np.ndarray, words: np.ndarray, *, samples: int = 10000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of one system's WER.

    Args:
      errors: (S, U) or (U,) word errors (ins + del + sub) of each seed on each utterance.
      words: (U,) reference words.
      samples: R; the interval's ends are quantiles of this many resampled rates.
      level: what share of the resamples the interval holds.

    Raises:
      ValueError: no utterance, shapes that do not fit, or no reference word at all.
    """
    mean = _mean_over_seeds(errors, words)
    rates = _resampled_rates(mean, words, samples, seed)
    return _interval(float(mean.sum() / words.sum()), rates, level)


def compare(
    errors_a: np.ndarray,
    errors_b: np.ndarray,
    words: np.ndarray,
    *,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired comparison: is B better than A on the same utterances?

    Args:
      errors_a: (S, U) or (U,) word errors of system A.
      errors_b: the same for system B; it may have another number of seeds.
      words: (U,) reference words, the same for both.

    Raises:
      ValueError: as `ratio_interval`.
    """
    a, b = _mean_over_seeds(errors_a, words), _mean_over_seeds(errors_b, words)
    # resampling the difference itself, not two rates, so that equal systems give an exact zero
    differences = _resampled_rates(b - a, words, samples, seed)
    differences[np.abs(differences) < 1e-12] = 0.0
    better = float(np.mean(differences < 0) + 0.5 * np.mean(differences == 0))
    return Comparison(better, _interval(float((b - a).sum() / words.sum()), differences, level))


def _mean_over_seeds(errors: np.ndarray, words: np.ndarray) -> np.ndarray:
    errors = np.atleast_2d(np.asarray(errors, np.float64))
    if errors.ndim != 2 or words.ndim != 1 or errors.shape[1] != len(words) or errors.size == 0:
        raise ValueError(f"errors {errors.shape} and words {words.shape} are not (seeds, utterances) and (utterances,)")
    if words.sum() <= 0:
        raise ValueError("the references hold no word")
    return np.asarray(errors.mean(axis=0))


def _resampled_rates(errors: np.ndarray, words: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """(U,) errors, (U,) words -> (R,) error rates; the same resamples for the same (U, samples, seed)."""
    random = np.random.default_rng(seed)
    rates = np.empty(samples)
    at_once = max(1, _DRAWS_AT_ONCE // len(words))
    for start in range(0, samples, at_once):
        drawn = random.integers(len(words), size=(min(at_once, samples - start), len(words)))
        # max: a resample that drew no reference word at all (tiny sets only) must not divide by zero
        rates[start : start + at_once] = errors[drawn].sum(axis=1) / np.maximum(words[drawn].sum(axis=1), 1)
    return rates


def _interval(value: float, rates: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))

"""Confidence intervals of error rates: bootstrap over utterances (Bisani and Ney, ICASSP 2004).

A rate is a ratio of two sums over utterances: word errors over words, or wrong frames over frames. The test set is
resampled with replacement, utterance by utterance. Where a system has several seeds, each resample takes the same
utterances for every seed and averages the seeds' rates: the interval covers the choice of the test set for the mean
over seeds, not for one lucky seed. Two systems are compared on the same resamples.

Shapes:  U utterances, S seeds, R resamples (`samples`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydantic.dataclasses

from asr_kd.settings import STRICT, Count

_DRAWS_AT_ONCE = 1 << 22  # utterances drawn in one step; bounds a temporary array at 32 MiB


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Confidence intervals."""

    bootstrap_samples: Count = 10000


@dataclass(frozen=True)
class Interval:
    """A rate (or a difference of two) and its percentile interval, all fractions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """System B against system A."""

    probability_better: float  # that B's rate is below A's on another draw of utterances; a tie counts one half
    difference: Interval  # rate of B minus rate of A


def ratio_interval(
    errors: np.ndarray, totals: np.ndarray, *, samples: int = 10000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of one system's error rate.

    Args:
      errors: (S, U) or (U,) errors of each seed on each utterance; of words: insertions, deletions and substitutions.
      totals: (U,) what the errors are divided by: reference words, or labelled frames.
      samples: R; the interval's ends are quantiles of this many resampled rates.
      level: the share of the resamples inside the interval.

    Raises:
      ValueError: there is no utterance, the shapes differ, or all totals are zero.
    """
    mean = _mean_over_seeds(errors, totals)
    rates = _resampled_rates(mean, totals, samples, seed)
    return _interval(float(mean.sum() / totals.sum()), rates, level)


def compare(
    errors_a: np.ndarray,
    errors_b: np.ndarray,
    totals: np.ndarray,
    *,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired comparison: is B better than A on the same utterances?

    Args:
      errors_a: (S, U) or (U,) errors of system A.
      errors_b: the same for system B; it may have another number of seeds.
      totals: (U,) the same for both, as in `ratio_interval`.

    Raises:
      ValueError: as `ratio_interval`.
    """
    a, b = _mean_over_seeds(errors_a, totals), _mean_over_seeds(errors_b, totals)
    # resampling the difference itself, not two rates, so that equal systems give an exact zero
    differences = _resampled_rates(b - a, totals, samples, seed)
    differences[np.abs(differences) < 1e-12] = 0.0
    better = float(np.mean(differences < 0) + 0.5 * np.mean(differences == 0))
    return Comparison(better, _interval(float((b - a).sum() / totals.sum()), differences, level))


def _mean_over_seeds(errors: np.ndarray, totals: np.ndarray) -> np.ndarray:
    errors = np.atleast_2d(np.asarray(errors, np.float64))
    if errors.ndim != 2 or totals.ndim != 1 or errors.shape[1] != len(totals) or errors.size == 0:
        raise ValueError(
            f"errors {errors.shape} and totals {totals.shape} are not (seeds, utterances) and (utterances,)"
        )
    if totals.sum() <= 0:
        raise ValueError("all totals are zero: there is nothing to divide the errors by")
    return np.asarray(errors.mean(axis=0))


def _resampled_rates(errors: np.ndarray, totals: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """(U,) errors, (U,) totals -> (R,) error rates; the same resamples for the same (U, samples, seed)."""
    random = np.random.default_rng(seed)
    rates = np.empty(samples)
    at_once = max(1, _DRAWS_AT_ONCE // len(totals))
    for start in range(0, samples, at_once):
        drawn = random.integers(len(totals), size=(min(at_once, samples - start), len(totals)))
        # max: a resample of zeros only (tiny sets) must not divide by zero
        rates[start : start + at_once] = errors[drawn].sum(axis=1) / np.maximum(totals[drawn].sum(axis=1), 1)
    return rates


def _interval(value: float, rates: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))

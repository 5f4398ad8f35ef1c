"""Confidence intervals of error rates: bootstrap over speakers or utterances, crossed with seeds.

A rate is a ratio of two sums over utterances: word errors over words, or wrong frames over frames. A test set is
resampled with replacement: utterance by utterance (Bisani and Ney, ICASSP 2004), or speaker by speaker with all that
each one said, because a speaker's errors have the same causes (Field and Welsh 2007, "Bootstrapping clustered data").
All systems are compared on the same resamples.

Where a system has several seeds, each resample draws seeds too, the same ones for all of its utterances (Owen 2007,
"The pigeonhole bootstrap"): the interval of a mean over seeds says how far other speakers and other seeds would move
it. Of S seeds, S - 1 are drawn, which gives the variance of their mean its right size (Rao and Wu 1988); S draws would
give (S - 1) / S of it. With one seed, or an ensemble, the interval is over the test set alone. Percentiles of two or
three seeds are too narrow where seeds matter more than speakers: three then hold 86 % for 95 %, five 92 %
(`benchmarks/bench_coverage.py`).

Shapes:  U utterances, G groups of them (speakers), S seeds, R resamples (`samples`), K systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydantic.dataclasses

from asr_kd.settings import STRICT, Count

_DRAWS_AT_ONCE = 1 << 19  # groups drawn in one step; bounds each temporary array at 4 MiB
_FEWEST_SPEAKERS = 10  # with fewer, a resample's speakers differ too little for its interval to mean much

Unit = Literal["speaker", "utterance"]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Confidence intervals."""

    bootstrap_samples: Count = 10000


@dataclass(frozen=True)
class Interval:
    """A rate (or a difference or a share of two) and its percentile interval, all fractions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """System B against system A."""

    probability_better: float  # that B's rate is below A's on other speakers, with other seeds; a tie counts one half
    difference: Interval  # rate of B minus rate of A


@dataclass(frozen=True)
class GainKept:
    """What a distilled system keeps of its teacher's gain over the direct one."""

    gain: Interval  # the teacher's rate minus that of direct: below zero where the teacher is better
    share: Interval | None  # (distilled - direct) / (teacher - direct); None where the gain may be nothing


def speaker_groups(speakers: Sequence[str | None]) -> np.ndarray | None:
    """The groups that a set is resampled in.

    Args:
      speakers: of each utterance; None where it is not known.

    Returns:
      (U,) int64, the group of each utterance: its speaker. None: utterances are resampled one by one, as there are
      fewer than ten speakers, or one is unknown.

    >>> speaker_groups(["b", "a"] * 5) is None
    True
    >>> speaker_groups([*"abcdefghij", "c"]).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2]
    """
    if None in speakers or len(set(speakers)) < _FEWEST_SPEAKERS:
        return None
    return np.asarray(np.unique([str(speaker) for speaker in speakers], return_inverse=True)[1], np.int64)


def ratio_interval(
    errors: np.ndarray,
    totals: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of one system's error rate, the mean over its seeds.

    Args:
      errors: (S, U) or (U,) errors of each seed on each utterance; of words: insertions, deletions and substitutions.
      totals: (U,) what the errors are divided by: reference words, or labelled frames.
      groups: (U,) int; utterances of one group are drawn together (see `speaker_groups`). None: each one alone.
      samples: R; the interval's ends are quantiles of this many resampled rates.
      level: the share of the resamples inside the interval.

    Raises:
      ValueError: there is no utterance, the shapes differ, or all totals are zero.

    >>> interval = ratio_interval(np.array([1, 0, 2]), np.array([4, 5, 7]))
    >>> interval.value, interval.low <= 3 / 16 <= interval.high
    (0.1875, True)
    """
    (value,), (rates,) = _rates([errors], totals, groups, samples, seed)
    return _interval(value, rates, level)


def compare(
    errors_a: np.ndarray,
    errors_b: np.ndarray,
    totals: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired comparison: is B better than A on the same utterances?

    Each resample has the same groups for both, and draws the seeds of each.

    Args:
      errors_a: (S, U) or (U,) errors of system A.
      errors_b: the same for system B; it may have another number of seeds.
      totals: (U,) the same for both, as in `ratio_interval`.

    Raises:
      ValueError: as `ratio_interval`.
    """
    (a, b), (rates_a, rates_b) = _rates([errors_a, errors_b], totals, groups, samples, seed)
    differences = _without_rounding(rates_b - rates_a)
    better = float(np.mean(differences < 0) + 0.5 * np.mean(differences == 0))
    return Comparison(better, _interval(b - a, differences, level))


def gain_kept(
    direct: np.ndarray,
    teacher: np.ndarray,
    distilled: np.ndarray,
    totals: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    samples: int = 10000,
    seed: int = 0,
) -> GainKept:
    """The share of the teacher's gain that the distilled system keeps, with the interval of this ratio.

    Numerator and denominator come from the same resamples. Where the 95 % interval of the gain includes zero, so does
    the denominator, and the ratio can be anything: then there is no share.

    Args:
      direct: (S, U) or (U,) errors; teacher, distilled: likewise, with seeds of their own.
      totals: (U,) as in `ratio_interval`.

    Raises:
      ValueError: as `ratio_interval`.
    """
    values, rates = _rates([direct, teacher, distilled], totals, groups, samples, seed)
    gain, part = values[1] - values[0], values[2] - values[0]
    gains, parts = _without_rounding(rates[1] - rates[0]), rates[2] - rates[0]
    interval = _interval(gain, gains, 0.95)
    if interval.high >= 0:
        return GainKept(interval, None)
    # of the few resamples without any gain, the share is nothing
    shares = np.divide(parts, gains, out=np.zeros_like(gains), where=gains != 0)
    return GainKept(interval, _interval(part / gain, shares, 0.95))


def _rates(
    systems: Sequence[np.ndarray], totals: np.ndarray, groups: np.ndarray | None, samples: int, seed: int
) -> tuple[list[float], np.ndarray]:
    """The error rate of each of K systems, and (K, R) resampled ones: the same groups for all systems.

    The groups of the resamples depend on (G, samples, seed) alone.
    """
    seeds = [len(np.atleast_2d(errors)) for errors in systems]
    errors = _sums(np.concatenate([_checked(of_system, totals) for of_system in systems]), groups)
    sizes = _sums(np.asarray(totals, np.float64)[None], groups)[0]
    ends = np.cumsum(seeds)
    of_systems = [slice(end - size, end) for end, size in zip(ends, seeds, strict=True)]
    weights = [_seed_weights(size, samples, [seed, k]) for k, size in enumerate(seeds, 1)]
    random = np.random.default_rng(seed)
    rates = np.empty((len(systems), samples))
    count = len(sizes)
    at_once = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, samples, at_once):
        block = slice(start, min(samples, start + at_once))
        drawn = random.integers(count, size=(block.stop - start, count))
        drawn += count * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        # (R, all seeds and the totals); a resample of zeros only (tiny sets) must not divide by zero
        sums = times.astype(np.float64) @ np.vstack([errors, sizes]).T
        per_seed = sums[:, :-1] / np.maximum(sums[:, -1:], 1)
        for k, of_system in enumerate(of_systems):
            rates[k, block] = (per_seed[:, of_system] * weights[k][block]).sum(axis=1)
    return [float(errors[of_system].mean(axis=0).sum() / sizes.sum()) for of_system in of_systems], rates


def _checked(errors: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """(S, U) float64."""
    errors = np.atleast_2d(np.asarray(errors, np.float64))
    if errors.ndim != 2 or totals.ndim != 1 or errors.shape[1] != len(totals) or errors.size == 0:
        raise ValueError(
            f"errors {errors.shape} and totals {totals.shape} are not (seeds, utterances) and (utterances,)"
        )
    if totals.sum() <= 0:
        raise ValueError("all totals are zero: there is nothing to divide the errors by")
    return errors


def _sums(of_utterances: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """(S, U) -> (S, G), the sums over the utterances of each group."""
    if groups is None:
        return of_utterances
    if groups.shape != of_utterances.shape[1:]:
        raise ValueError(f"groups {groups.shape} are not one for each of {of_utterances.shape[1]} utterances")
    index = np.unique(groups, return_inverse=True)[1]
    return np.stack([np.bincount(index, weights=row) for row in of_utterances])


def _seed_weights(seeds: int, samples: int, stream: Sequence[int]) -> np.ndarray:
    """(R, S) the weight of each seed in each resampled mean."""
    if seeds == 1:
        return np.ones((samples, 1))
    drawn = np.random.default_rng(stream).integers(seeds, size=(samples, seeds - 1))
    return np.asarray((drawn[:, :, None] == np.arange(seeds)).mean(axis=1))


def _without_rounding(differences: np.ndarray) -> np.ndarray:
    """Differences of equal rates that were rounded on the way are zero."""
    return np.where(np.abs(differences) < 1e-12, 0.0, differences)


def _interval(value: float, rates: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))

"""Bootstrap intervals and paired comparison, against exact and plain references."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.evaluation.bootstrap import compare, ratio_interval


def test_interval_equals_the_exact_bootstrap_of_three_utterances() -> None:
    """Three utterances have 27 resamples: the percentiles of many random ones must be those of the 27."""
    errors, words = np.array([0, 2, 5]), np.array([4, 3, 9])
    exact = [errors[list(d)].sum() / words[list(d)].sum() for d in itertools.product(range(3), repeat=3)]
    interval = ratio_interval(errors, words, samples=200_000, level=0.8, seed=3)
    assert interval.value == 7 / 16
    assert interval.low == pytest.approx(np.quantile(exact, 0.1), abs=1e-9)
    assert interval.high == pytest.approx(np.quantile(exact, 0.9), abs=1e-9)


def test_paired_probability_equals_the_exact_one_of_three_utterances() -> None:
    a, b, words = np.array([[1, 2, 3], [1, 0, 3]]), np.array([[0, 2, 3]]), np.array([4, 3, 9])
    mean_a = a.mean(axis=0)
    exact = []
    for drawn in itertools.product(range(3), repeat=3):
        pick = list(drawn)
        difference = b[0][pick].sum() - mean_a[pick].sum()
        exact.append(1.0 if difference < 0 else 0.5 if difference == 0 else 0.0)
    result = compare(a, b, words, samples=200_000, seed=1)
    assert result.probability_better == pytest.approx(np.mean(exact), abs=0.005)
    assert result.difference.value == pytest.approx((5 - 5.0) / 16)


def test_a_plain_float64_loop_gives_the_same_numbers() -> None:
    random = np.random.default_rng(0)
    errors, words = random.integers(0, 5, (3, 40)), random.integers(1, 9, 40)
    drawn = np.random.default_rng(7).integers(40, size=(500, 40))
    rates = []
    for pick in drawn:
        per_seed = [sum(float(errors[s, u]) for u in pick) / sum(float(words[u]) for u in pick) for s in range(3)]
        rates.append(sum(per_seed) / 3)
    interval = ratio_interval(errors, words, samples=500, seed=7)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(rates, [0.025, 0.975]), rtol=1e-12)
    assert interval.value == pytest.approx(errors.sum() / (3 * words.sum()), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_comparison_is_antisymmetric_and_ties_count_half(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, words = random.integers(0, 4, (2, 30)), random.integers(0, 4, (3, 30)), random.integers(1, 9, 30)
    forward, back = compare(a, b, words, samples=400, seed=2), compare(b, a, words, samples=400, seed=2)
    assert forward.probability_better + back.probability_better == pytest.approx(1.0)
    assert forward.difference.low == pytest.approx(-back.difference.high)
    assert compare(a, a[::-1], words, samples=200).probability_better == 0.5


def test_pairing_sees_what_two_separate_intervals_hide() -> None:
    """B is better on nearly every utterance by a little: the intervals overlap, the paired probability is near 1."""
    random = np.random.default_rng(5)
    words = np.full(200, 10)
    a = random.integers(1, 9, 200)
    b = a - (random.random(200) < 0.15)
    assert ratio_interval(b, words).high > ratio_interval(a, words).low
    assert compare(a, b, words).probability_better > 0.999


def test_coverage_is_near_the_level() -> None:
    """Of 300 test sets drawn from one known source, about 95 % of the intervals hold the true rate."""
    random = np.random.default_rng(11)
    held = 0
    for trial in range(300):
        words = random.integers(2, 12, 120)
        interval = ratio_interval(random.binomial(words, 0.2), words, samples=400, seed=trial)
        held += interval.low <= 0.2 <= interval.high
    assert 0.90 <= held / 300 <= 0.99


def test_same_seed_same_numbers_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    errors, words = random.integers(0, 4, 64), random.integers(1, 9, 64)
    whole = ratio_interval(errors, words, samples=1000, seed=4)
    assert whole == ratio_interval(errors, words, samples=1000, seed=4)
    monkeypatch.setattr("asr_kd.evaluation.bootstrap._DRAWS_AT_ONCE", 64 * 10)
    assert ratio_interval(errors, words, samples=1000, seed=4) == whole


@pytest.mark.parametrize(
    ("errors", "words"),
    [([], []), ([1, 2], [3]), ([0, 0], [0, 0]), ([[[1]]], [1])],
)
def test_wrong_shapes_are_refused(errors: list[int], words: list[int]) -> None:
    with pytest.raises(ValueError):
        ratio_interval(np.array(errors), np.array(words))

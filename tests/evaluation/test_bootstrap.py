"""Bootstrap intervals, paired comparison and shares of a gain, against exact and plain references."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.evaluation.bootstrap import Comparison, Interval, compare, gain_kept, ratio_interval, speaker_groups


def test_interval_equals_the_exact_bootstrap_of_three_utterances() -> None:
    """Three utterances have 27 resamples: the percentiles of many random ones must be those of the 27."""
    errors, words = np.array([0, 2, 5]), np.array([4, 3, 9])
    exact = [errors[list(d)].sum() / words[list(d)].sum() for d in itertools.product(range(3), repeat=3)]
    interval = ratio_interval(errors, words, samples=200_000, level=0.8, seed=3)
    assert interval.value == 7 / 16
    assert interval.low == pytest.approx(np.quantile(exact, 0.1), abs=1e-9)
    assert interval.high == pytest.approx(np.quantile(exact, 0.9), abs=1e-9)


def test_paired_probability_equals_the_exact_one_of_three_utterances_and_two_seeds() -> None:
    """27 resamples of the utterances, each with either seed of A: of two seeds one is drawn."""
    a, b, words = np.array([[1, 2, 3], [1, 0, 3]]), np.array([[0, 2, 3]]), np.array([4, 3, 9])
    exact = []
    for drawn, seed in itertools.product(itertools.product(range(3), repeat=3), range(2)):
        pick = list(drawn)
        difference = b[0][pick].sum() - a[seed][pick].sum()
        exact.append(1.0 if difference < 0 else 0.5 if difference == 0 else 0.0)
    result = compare(a, b, words, samples=200_000, seed=1)
    assert result.probability_better == pytest.approx(np.mean(exact), abs=0.005)
    assert result.difference.value == pytest.approx((5 - 5.0) / 16)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), seeds=st.integers(1, 4), speakers=st.integers(2, 12))
def test_a_plain_float64_loop_gives_the_same_numbers(seed: int, seeds: int, speakers: int) -> None:
    """Whole speakers are drawn, and of S seeds S - 1 (one of one)."""
    random = np.random.default_rng(seed)
    errors, words = random.integers(0, 5, (seeds, 40)), random.integers(1, 9, 40)
    groups = random.integers(0, speakers, 40)
    members = [np.flatnonzero(groups == group) for group in sorted(set(groups.tolist()))]
    of_groups = np.random.default_rng(7).integers(len(members), size=(200, len(members)))
    of_seeds = np.random.default_rng([7, 1]).integers(seeds, size=(200, max(1, seeds - 1)))
    rates = []
    for drawn, these in zip(of_groups, of_seeds, strict=True):
        utterances = [int(u) for group in drawn for u in members[group]]
        per_seed = [
            sum(float(errors[s, u]) for u in utterances) / sum(float(words[u]) for u in utterances) for s in these
        ]
        rates.append(sum(per_seed) / len(per_seed) if seeds > 1 else per_seed[0])
    interval = ratio_interval(errors, words, groups=groups, samples=200, seed=7)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(rates, [0.025, 0.975]), rtol=1e-12)
    assert interval.value == pytest.approx(errors.sum() / (seeds * words.sum()), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_comparison_is_antisymmetric_and_ties_count_half(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, words = random.integers(0, 4, 30), random.integers(0, 4, 30), random.integers(1, 9, 30)
    forward, back = compare(a, b, words, samples=400, seed=2), compare(b, a, words, samples=400, seed=2)
    assert forward.probability_better + back.probability_better == pytest.approx(1.0)
    assert forward.difference.low == pytest.approx(-back.difference.high)
    assert compare(a, a, words, samples=200) == Comparison(0.5, Interval(0.0, 0.0, 0.0))


@given(seed=st.integers(0, 1000))
def test_a_group_of_its_own_for_each_utterance_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    errors, words = random.integers(0, 4, (2, 25)), random.integers(1, 9, 25)
    alone = ratio_interval(errors, words, samples=100, seed=seed)
    assert ratio_interval(errors, words, groups=np.arange(25) * 3, samples=100, seed=seed) == alone


def _speech(random: np.random.Generator, *, of_speakers: float, of_seeds: float = 0.0) -> tuple[np.ndarray, ...]:
    """Errors of 3 seeds, words and speakers: 20 speakers of 15 utterances, whose error rates spread around 0.3."""
    speakers = np.repeat(np.arange(20), 15)
    words = random.integers(5, 15, len(speakers))
    rates = 0.3 + random.normal(0, of_speakers, 20)[speakers] + random.normal(0, of_seeds, (3, 1))
    return random.binomial(words, rates.clip(0.01, 0.99)), words, speakers


def test_resampling_speakers_gives_wider_intervals_where_they_differ_and_only_there() -> None:
    ratios = {}
    for of_speakers in (0.0, 0.08):
        of_trial = []
        for trial in range(20):
            errors, words, speakers = _speech(np.random.default_rng(trial), of_speakers=of_speakers)
            alone, together = (ratio_interval(errors[0], words, groups=g, samples=500) for g in (None, speakers))
            of_trial.append((together.high - together.low) / (alone.high - alone.low))
        ratios[of_speakers] = np.mean(of_trial)
    # Variances: 0.08^2 of a speaker, 0.3 * 0.7 / 9.5 of an utterance of 9.5 words; one resampling sees 20 independent
    # speakers, the other 300 utterances that it takes for independent.
    of_utterance, of_speaker = 0.21 / 9.5, 0.08**2
    expected = np.sqrt((of_speaker / 20 + of_utterance / 300) / ((of_speaker + of_utterance) / 300))
    assert ratios[0.0] == pytest.approx(1.0, abs=0.1)
    assert ratios[0.08] == pytest.approx(expected, rel=0.15)


def test_an_interval_that_counts_seeds_holds_the_true_rate_and_one_of_their_mean_alone_does_not() -> None:
    """Seeds differ by more than test sets do: 120 tables of errors, drawn with new speakers and new seeds."""
    held = {"seeds drawn": 0, "seeds as they are": 0}
    for trial in range(120):
        errors, words, speakers = _speech(np.random.default_rng(trial), of_speakers=0.02, of_seeds=0.03)
        for name, of_seeds in (("seeds drawn", errors), ("seeds as they are", errors.mean(axis=0))):
            interval = ratio_interval(of_seeds, words, groups=speakers, samples=300, seed=trial)
            held[name] += interval.low <= 0.3 <= interval.high
    assert held["seeds drawn"] / 120 >= 0.75  # three seeds are few: a normal interval of three would hold 0.82
    assert held["seeds as they are"] / 120 <= 0.6


def test_the_variance_of_a_mean_over_few_seeds_has_its_right_size() -> None:
    """All utterances alike: the resampled means vary by the seeds alone, by s^2 / S, which is unbiased."""
    rates = np.array([[10], [16], [13]]).repeat(5, axis=1)
    drawn = [ratio_interval(rates, np.full(5, 100), samples=1, seed=seed).low for seed in range(4000)]
    assert np.var(drawn) == pytest.approx(np.var([0.10, 0.16, 0.13], ddof=1) / 3, rel=0.06)


def test_the_share_of_a_gain_equals_the_exact_one_of_two_speakers() -> None:
    """Four resamples of two speakers, whatever of their utterances is drawn with them."""
    words, speakers = np.array([10, 20, 30]), np.array([4, 4, 9])
    direct, teacher, distilled = np.array([5, 6, 9]), np.array([2, 2, 4]), np.array([3, 5, 5])
    shares = [(8 - 11) / (4 - 11), (5 - 9) / (4 - 9), (13 - 20) / (8 - 20), (13 - 20) / (8 - 20)]
    result = gain_kept(direct, teacher, distilled, words, groups=speakers, samples=4000)
    assert result.gain.value == pytest.approx((8 - 20) / 60) and result.share is not None
    assert result.share.value == pytest.approx((13 - 20) / (8 - 20))
    assert result.share.low == pytest.approx(min(shares)) and result.share.high == pytest.approx(max(shares))


def test_there_is_no_share_of_a_gain_that_may_be_nothing() -> None:
    random = np.random.default_rng(0)
    words = np.full(40, 10)
    direct, distilled = random.binomial(words, 0.3), random.binomial(words, 0.28)
    same = gain_kept(direct, direct[::-1], distilled, words, samples=500)
    assert same.gain.low < 0 < same.gain.high and same.share is None
    worse = gain_kept(direct, direct + 1, distilled, words, samples=500)
    assert worse.gain.low > 0 and worse.share is None


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(-1, 2))
def test_a_share_that_is_the_same_for_all_utterances_has_no_width(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    words = random.integers(5, 20, 30)
    direct, teacher = random.integers(3, 6, 30).astype(float), random.integers(0, 2, 30).astype(float)
    result = gain_kept(direct, teacher, direct + share * (teacher - direct), words, samples=200, seed=seed)
    assert result.share is not None
    np.testing.assert_allclose(list(vars(result.share).values()), share, atol=1e-9)


@pytest.mark.parametrize(
    ("speakers", "grouped"),
    [
        ([*"aabbccddeeffgghhiijj"], True),
        ([*"aabbccddeeffgghhii"], False),  # nine
        ([*"abcdefghijkl", None], False),  # one is unknown
    ],
)
def test_speakers_are_drawn_where_ten_are_known(speakers: list[str | None], grouped: bool) -> None:
    groups = speaker_groups(speakers)
    assert (groups is not None) is grouped
    if groups is not None:
        assert [speakers[u] for u in np.flatnonzero(groups == groups[3])] == ["b", "b"]


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


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="not one for each of 2 utterances"):
        ratio_interval(np.array([1, 2]), np.array([3, 4]), groups=np.array([0, 1, 1]))

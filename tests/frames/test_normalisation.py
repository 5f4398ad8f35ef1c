"""What is subtracted from frames and what they are scaled by, against plain loops in float64."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.frames.features import FeaturesConfig
from asr_kd.frames.normalisation import MEAN_PRIOR, VARIANCE_PRIOR, Normalisation, RunningMean, SetStatistics
from asr_kd.frames.store import FrameStore, FrameStoreError

from ..stores import write_store

seeds = st.integers(0, 999)


def loop(frames: np.ndarray, prior: np.ndarray, seconds: float) -> np.ndarray:
    """(T, D) running means, one frame after the other."""
    total, count = MEAN_PRIOR * prior.astype(np.float64), float(MEAN_PRIOR)
    means = []
    for frame in frames:
        total = (1 - 0.01 / seconds) * total + frame
        count = (1 - 0.01 / seconds) * count + 1
        means.append(total / count)
    return np.array(means)


def utterances(lengths: list[int], dims: int = 3, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Each with a level and a spread of its own."""
    rng = np.random.default_rng(seed)
    return [
        (f"u{k}", (rng.normal(5, 3, dims) + rng.normal(0, rng.uniform(0.5, 3), (n, dims))).astype(np.float16))
        for k, n in enumerate(lengths)
    ]


@given(length=st.integers(1, 3000), seconds=st.floats(0.1, 60), seed=seeds)
def test_running_mean_is_that_of_a_loop(length: int, seconds: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, prior = rng.normal(8, 4, (length, 2)), rng.normal(8, 4, 2).astype(np.float32)
    running = RunningMean(prior, seconds)
    means, state = running.means(frames, running.start())
    np.testing.assert_allclose(means, loop(frames, prior, seconds), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(state[:-1] / state[-1], means[-1])


@given(lengths=st.lists(st.integers(1, 200), min_size=2, max_size=6), seed=seeds)
def test_running_mean_needs_no_later_frame_and_takes_any_portions(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    portions = [rng.normal(8, 4, (n, 2)) for n in lengths]
    running = RunningMean(np.full(2, 8, np.float32), seconds=1.5)
    whole, _ = running.means(np.concatenate(portions), running.start())
    np.testing.assert_array_equal(running.means(portions[0], running.start())[0], whole[: lengths[0]])
    state, parts = running.start(), []
    for portion in portions:
        means, state = running.means(portion, state)
        parts.append(means)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


def test_a_long_recording_is_normalised_in_portions() -> None:
    frames = np.random.default_rng(0).normal(8, 4, (9000, 2)).astype(np.float32)
    running = RunningMean(np.full(2, 5, np.float32), seconds=6.0)
    expected = frames - loop(frames.astype(np.float64), running.prior, 6.0)
    running.subtract(frames)
    np.testing.assert_allclose(frames, expected, atol=1e-5)


def test_running_mean_begins_at_the_prior_and_forgets_it() -> None:
    running = RunningMean(np.full(1, 10, np.float32), seconds=2.0)
    means, state = running.means(np.zeros((4000, 1)), running.start())
    assert means[0, 0] == pytest.approx(10, rel=0.01)
    assert (np.diff(means[:, 0]) < 0).all() and means[-1, 0] < 1e-6
    assert state[-1] == pytest.approx(200)  # frames that two seconds have


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=6), seconds=st.floats(0.1, 20), seed=seeds)
def test_running_mean_of_a_store(lengths: list[int], seconds: float, seed: int) -> None:
    config = FeaturesConfig(num_mel_bins=3, mean="running", running_seconds=seconds)
    data = utterances(lengths, seed=seed)
    everything = np.concatenate([features for _, features in data]).astype(np.float64)
    with tempfile.TemporaryDirectory() as folder:
        train = write_store(Path(folder) / "train", data, config=config)
        prior = everything.mean(0).astype(np.float32)
        rests = [
            features.astype(np.float64) - loop(features.astype(np.float64), prior, seconds) for _, features in data
        ]
        deviation = np.sqrt(np.maximum(np.square(np.concatenate(rests)).mean(0), 1e-6))
        expected = np.concatenate(rests) / deviation
        np.testing.assert_allclose(train.normalised(0, len(data)), expected, rtol=2e-4, atol=2e-4)
        last = len(data) - 1
        np.testing.assert_array_equal(train.normalised(last), train.normalised(0, len(data))[train.span(last)])
        # another set begins with the mean of training, not with its own
        other = [(name, features + 5) for name, features in data]
        dev = write_store(Path(folder) / "dev", other, config=config, training=train.normalisation)
        stored = dev.features[dev.span(0)].astype(np.float64)
        expected = (stored - loop(stored, prior, seconds)) * train.scale
        np.testing.assert_allclose(dev.normalised(0), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(train.normalisation.of_unknown_speaker(other[0][1]), dev.normalised(0))
        # the speakers' means are there all the same
        np.testing.assert_allclose(train.means[0], data[0][1].astype(np.float64).mean(0), rtol=1e-5)


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 400), min_size=2, max_size=6), speakers=st.integers(1, 3), seed=seeds)
def test_variance_of_a_speaker_shrinks_towards_that_of_training(lengths: list[int], speakers: int, seed: int) -> None:
    data = utterances(lengths, seed=seed)
    groups = [f"s{k % speakers}" for k in range(len(lengths))]
    config = FeaturesConfig(num_mel_bins=3, variance="speaker")
    with tempfile.TemporaryDirectory() as folder:
        plain = write_store(Path(folder) / "plain", data, groups=groups)
        store = write_store(Path(folder) / "train", data, groups=groups, config=config)
        np.testing.assert_array_equal(store.scale, plain.scale)
        of_training = 1 / plain.scale.astype(np.float64) ** 2
        for u in range(len(data)):
            own = np.concatenate([f for (_, f), group in zip(data, groups, strict=True) if group == groups[u]])
            own = own.astype(np.float64)
            variance = (len(own) * own.var(0) + VARIANCE_PRIOR * of_training) / (len(own) + VARIANCE_PRIOR)
            expected = (data[u][1] - own.mean(0)) / np.sqrt(variance)
            np.testing.assert_allclose(store.normalised(u), expected, rtol=1e-3, atol=1e-3)
        # whoever is not known is a speaker of one utterance
        alone = write_store(Path(folder) / "dev", data, config=config, training=store.normalisation)
        for u, (_, features) in enumerate(data):
            unknown = store.normalisation.of_unknown_speaker(features)
            np.testing.assert_allclose(unknown, alone.normalised(u), rtol=1e-5, atol=1e-5)
        # and a new speaker of several is normalised as one of a set
        several = write_store(Path(folder) / "one", data, groups=["s"] * len(data), config=config,
                              training=store.normalisation)  # fmt: skip
        group = store.normalisation.of_new_group([features for _, features in data])
        for u, (_, features) in enumerate(data):
            frames = features.astype(np.float32)
            group.apply(frames, 0)
            np.testing.assert_allclose(frames, several.normalised(u), rtol=1e-3, atol=1e-3)


def test_three_seconds_hardly_change_the_scale_and_an_hour_sets_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = [(name, rng.normal(5, spread, (n, 2))) for name, n, spread in (("short", 300, 0.5), ("long", 20_000, 2.0))]
    config = FeaturesConfig(num_mel_bins=2, variance="speaker")
    store = write_store(tmp_path, data, config=config)
    assert np.square(store.normalised(0)).mean() == pytest.approx(0.25 / (0.23 * 0.25 + 0.77 * 3.95), rel=0.1)
    assert np.square(store.normalised(1)).mean() == pytest.approx(1, rel=0.01)


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=4), prior_frames=st.integers(0, 500), seed=seeds)
def test_frames_of_training_count_with_those_of_new_speech(lengths: list[int], prior_frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means, scale = rng.normal(5, 1, (4, 3)).astype(np.float32), rng.uniform(0.5, 2, 3).astype(np.float32)
    of_training = Normalisation(means, scale, np.ones((4, 3), np.float32)).for_new_speech()
    heard = [features for _, features in utterances(lengths, seed=seed)]
    # as if they had been heard: so many frames at the mean of training, before the speech
    before = np.tile(means.astype(np.float64).mean(0), (prior_frames, 1))
    mean = np.concatenate([before, *heard]).mean(0)
    exact = np.concatenate(heard).astype(np.float64)
    variance = np.square(exact - mean).sum(0) + VARIANCE_PRIOR / np.square(scale.astype(np.float64))
    expected = (heard[0].astype(np.float64) - mean) / np.sqrt(variance / (len(exact) + VARIANCE_PRIOR))
    frames = heard[0].astype(np.float32)
    replace(of_training, prior_frames=prior_frames).of_new_group(heard).apply(frames, 0)
    np.testing.assert_allclose(frames, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("mean", "variance"), [("running", "training"), ("speaker", "speaker")])
def test_sums_come_back_from_a_commit(
    mean: Literal["speaker", "running"], variance: Literal["training", "speaker"]
) -> None:
    config = FeaturesConfig(num_mel_bins=3, mean=mean, variance=variance)
    data = utterances([30, 7, 50, 12])
    whole, first, second = (SetStatistics(3, config, None) for _ in range(3))
    for k, (_, features) in enumerate(data):
        exact = features.astype(np.float64)
        assert whole.add(f"s{k % 3}", exact) == (first if k < 2 else second).add(f"s{k % 3}", exact)
        if k == 1:
            second.restore(json.loads(json.dumps(first.note())))
    expected, resumed = whole.arrays(), second.arrays()
    assert expected.keys() == resumed.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(array, resumed[name])


def test_defaults_store_what_they_always_did(tmp_path: Path) -> None:
    write_store(tmp_path, utterances([5, 6]))
    with np.load(tmp_path / "cmvn.npz") as file:
        assert set(file) == {"means", "scale", "frames", "names"}
    rows = [json.loads(line) for line in (tmp_path / "utterances.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"id", "frames", "group", "speed", "duration", "text"}


def test_a_damaged_normalisation_is_named(tmp_path: Path) -> None:
    store = write_store(tmp_path, utterances([5, 6]), config=FeaturesConfig(num_mel_bins=3, mean="running"))
    short = Normalisation(store.means, store.scale, None, RunningMean(np.zeros(2, np.float32), 6.0))
    with pytest.raises(ValueError, match="3 dimensions"):
        short.check(3)
    with np.load(tmp_path / "cmvn.npz") as file:
        arrays = {name: file[name] for name in file if name != "running_seconds"}
    np.savez(tmp_path / "cmvn.npz", **arrays)
    with pytest.raises(FrameStoreError, match=r"is damaged; delete it"):
        FrameStore.open(tmp_path)


def test_variance_of_a_speaker_needs_the_mean_of_one() -> None:
    with pytest.raises(ValueError, match="needs mean: speaker, not running"):
        FeaturesConfig(mean="running", variance="speaker")

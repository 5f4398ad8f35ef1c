"""The flat start's classifiers: discriminants against Gaussians written out; the net's shape, training and state."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.alignment import classifiers
from asr_kd.alignment.classifiers import PULL, RIDGE, LdaClassifier, MonophoneNet
from asr_kd.alignment.settings import FLAT_START_MODEL, AlignmentConfig
from asr_kd.frames.store import FrameStore

from ..stores import write_store

SIZES = (30, 1, 45, 20)
NUM_CLASSES = 5


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    return write_store(tmp_path / "store", [(f"u{k}", rng.normal(size=(n, 4)) @ mixing) for k, n in enumerate(SIZES)])


def labelled(store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """All frames but those of the second utterance, and their classes; the last class has none."""
    frames = np.array([n for n in range(store.num_frames) if n != SIZES[0]])
    return frames, np.random.default_rng(1).integers(0, NUM_CLASSES - 1, len(frames)).astype(np.int32)


def test_discriminants_give_the_posteriors_of_gaussians_with_one_covariance(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, states = labelled(store)
    x = store.normalised(0, len(SIZES))[frames].astype(np.float64)
    counts = np.bincount(states, minlength=NUM_CLASSES)
    means = np.stack(
        [(x[states == c].sum(0) + PULL * x.mean(0)) / (counts[c] + PULL) for c in range(NUM_CLASSES)]
    )  # fmt: skip
    off = np.concatenate([x[states == c] - x[states == c].mean(0) for c in range(NUM_CLASSES - 1)])
    within = off.T @ off / len(x)
    within += RIDGE * within.trace() / 4 * np.eye(4)
    priors = (counts + 1) / (counts + 1).sum()
    distance = store.normalised(2).astype(np.float64)[:, None] - means
    scores = np.log(priors) - 0.5 * np.einsum("tcd,de,tce->tc", distance, np.linalg.inv(within), distance)
    expected = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    for block in (1, 3, 256):  # utterances that are read at once
        monkeypatch.setattr(classifiers, "_BLOCK", block)
        monkeypatch.setattr(classifiers, "_CACHED_FRAMES", 0 if block == 1 else 1 << 20)
        classifier = LdaClassifier(store, NUM_CLASSES)
        classifier.fit(frames, states)
        assert np.allclose(classifier.log_posteriors(store, [2])[0], expected, atol=1e-4)


def small_store(folder: Path) -> FrameStore:
    return write_store(folder, [("u", np.random.default_rng(0).normal(size=(50, 4)))])


def prepared(store: FrameStore, num_states: int, settings: AlignmentConfig, utterances: list[int]) -> MonophoneNet:
    net = MonophoneNet.untrained(store.num_dims, num_states, settings, 1)
    net.prepare(store, utterances, settings)
    return net


@pytest.mark.parametrize(("size", "rate"), [(256, 1e-3), (1024, 2e-3)])
def test_larger_steps_have_a_higher_rate(
    size: int, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[TrainingConfig] = []
    monkeypatch.setattr(classifiers, "fit", lambda *arguments, **_: used.append(arguments[3]))
    net = prepared(small_store(tmp_path / "store"), 6, AlignmentConfig(batch_size=size, precision="float32"), [0])
    net.fit(np.arange(50), np.zeros(50, np.int64))
    assert used[0].batch_size == size and used[0].learning_rate == pytest.approx(rate)
    assert used[0].precision == "float32"


@pytest.mark.parametrize(("layers", "width"), [(1, 128), (2, 64), (0, 7)])
def test_its_model_is_that_of_the_settings_and_is_read_back_as_it_was(layers: int, width: int, tmp_path: Path) -> None:
    model = DnnConfig(layers=layers, width=width, left_context=2, right_context=1)
    store = small_store(tmp_path / "store")
    net = prepared(store, 6, AlignmentConfig(model=model, precision="float32", batch_size=16), [0])
    net.fit(np.arange(50), np.arange(50) % 6)
    sizes = [(2 + 1 + 1) * 4, *[width] * layers, 6]
    parameters = sum((before + 1) * after for before, after in itertools.pairwise(sizes))
    assert net._model.parameters_per_member == parameters
    folder = tmp_path / "model"
    folder.mkdir()
    net.save(folder)
    loaded = MonophoneNet.load(folder)
    assert loaded._model.settings == model and loaded._model.precision == "float32"
    assert np.array_equal(loaded.log_posteriors(store, [0])[0], net.log_posteriors(store, [0])[0])


def test_its_state_is_all_that_later_rounds_depend_on(tmp_path: Path) -> None:
    store, settings = small_store(tmp_path / "store"), AlignmentConfig(precision="float32", batch_size=16)
    frames, states = np.arange(50), np.arange(50) % 6
    net, resumed = (prepared(store, 6, settings, [0]) for _ in range(2))
    net.fit(frames, states)
    resumed.restore(net.state())
    for trained in (net, resumed):
        trained.fit(frames, states)
    assert np.array_equal(resumed.log_posteriors(store, [0])[0], net.log_posteriors(store, [0])[0])


NO_CONTEXT = AlignmentConfig(batch_size=64, model=replace(FLAT_START_MODEL, left_context=0, right_context=0))


def test_it_learns_states_that_can_be_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = rng.integers(0, 3, 3000)
    frames = (rng.normal(0, 0.3, (3000, 4)) + 2 * states[:, None]).astype(np.float32)
    store = write_store(tmp_path / "store", [("u", frames)])
    net = prepared(store, 3, NO_CONTEXT, [0])
    for _ in range(3):
        net.fit(np.arange(3000), states)
    assert (net.log_posteriors(store, [0])[0].argmax(1) == states).mean() > 0.95


def test_of_a_large_set_only_the_utterances_to_learn_from_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    lengths = [40, 700, 30, 900]
    states = [rng.integers(0, 3, n) for n in lengths]
    utterances = [
        (f"u{u}", rng.normal(0, 0.3, (n, 4)) + 2 * of_utterance[:, None])
        for u, (n, of_utterance) in enumerate(zip(lengths, states, strict=True))
    ]
    store = write_store(tmp_path / "store", utterances)
    monkeypatch.setattr(classifiers, "BLOCK_FRAMES", 1000)
    net = prepared(store, 3, NO_CONTEXT, [1, 3])
    assert net._windows.num_frames == 1600
    frames = np.concatenate([np.arange(*store.offsets[[1, 2]]), np.arange(*store.offsets[[3, 4]])])
    for _ in range(20):
        net.fit(frames, np.concatenate([states[1], states[3]]))
    for u in range(4):  # it labels any utterance
        assert (net.log_posteriors(store, [u])[0].argmax(1) == states[u]).mean() > 0.9

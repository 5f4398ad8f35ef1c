"""The flat start's net: its shape, what it is trained with, and that it is the same once it is read back."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.alignment import monophone_net
from asr_kd.alignment.monophone_net import MonophoneNet
from asr_kd.alignment.settings import FLAT_START_MODEL, AlignmentConfig
from asr_kd.frames.store import FrameStore, write_store


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
    monkeypatch.setattr(monophone_net, "fit", lambda *arguments, **_: used.append(arguments[3]))
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
    monkeypatch.setattr(monophone_net, "BLOCK_FRAMES", 1000)
    net = prepared(store, 3, NO_CONTEXT, [1, 3])
    assert net._windows.num_frames == 1600
    frames = np.concatenate([np.arange(*store.offsets[[1, 2]]), np.arange(*store.offsets[[3, 4]])])
    for _ in range(20):
        net.fit(frames, np.concatenate([states[1], states[3]]))
    for u in range(4):  # it labels any utterance
        assert (net.log_posteriors(store, [u])[0].argmax(1) == states[u]).mean() > 0.9

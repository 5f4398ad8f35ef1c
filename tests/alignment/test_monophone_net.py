"""The flat start's net: what it is trained with."""

from pathlib import Path

import numpy as np
import pytest

from asr_kd.alignment import monophone_net as classifier
from asr_kd.frames.store import write_store
from asr_kd.workspace.config import AlignmentConfig, TrainingConfig


@pytest.mark.parametrize(("size", "rate"), [(256, 1e-3), (1024, 2e-3)])
def test_larger_steps_have_a_higher_rate(
    size: int, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[TrainingConfig] = []
    monkeypatch.setattr(classifier, "fit", lambda *arguments, **_: used.append(arguments[3]))
    store = write_store(tmp_path / "store", [("u", np.random.default_rng(0).normal(size=(50, 4)))])
    net = classifier.MonophoneNet(store, 6, AlignmentConfig(batch_size=size), 1, [0])
    net.fit(np.arange(50), np.zeros(50, np.int64), epochs=1)
    assert used[0].batch_size == size and used[0].learning_rate == pytest.approx(rate)


def test_it_learns_states_that_can_be_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = rng.integers(0, 3, 3000)
    frames = (rng.normal(0, 0.3, (3000, 4)) + 2 * states[:, None]).astype(np.float32)
    store = write_store(tmp_path / "store", [("u", frames)])
    settings = AlignmentConfig(batch_size=64, context=0)
    net = classifier.MonophoneNet(store, 3, settings, 1, [0])
    net.fit(np.arange(3000), states, epochs=3)
    assert (net.log_posteriors(store, [0])[0].argmax(1) == states).mean() > 0.95


def test_of_a_large_set_only_the_utterances_to_learn_from_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    lengths = [40, 700, 30, 900]
    states = [rng.integers(0, 3, n) for n in lengths]
    utterances = [
        (f"u{u}", rng.normal(0, 0.3, (n, 4)) + 2 * found[:, None])
        for u, (n, found) in enumerate(zip(lengths, states, strict=True))
    ]
    store = write_store(tmp_path / "store", utterances)
    monkeypatch.setattr(classifier, "CHUNK_FRAMES", 1000)
    net = classifier.MonophoneNet(store, 3, AlignmentConfig(batch_size=64, context=0), 1, [1, 3])
    assert net._windows.num_frames == 1600
    frames = np.concatenate([np.arange(*store.offsets[[1, 2]]), np.arange(*store.offsets[[3, 4]])])
    net.fit(frames, np.concatenate([states[1], states[3]]), epochs=20)
    for u in range(4):  # any utterance can be asked about
        assert (net.log_posteriors(store, [u])[0].argmax(1) == states[u]).mean() > 0.9

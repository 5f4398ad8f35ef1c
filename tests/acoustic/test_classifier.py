"""The flat start's net: what it is trained with."""

from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic import classifier
from asr_kd.config import AlignmentConfig, TrainingConfig
from asr_kd.frames.store import write_store


@pytest.mark.parametrize(("size", "rate"), [(256, 1e-3), (1024, 2e-3)])
def test_larger_steps_have_a_higher_rate(
    size: int, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[TrainingConfig] = []
    monkeypatch.setattr(classifier, "fit", lambda *arguments, **_: used.append(arguments[3]))
    store = write_store(tmp_path / "store", [("u", np.random.default_rng(0).normal(size=(50, 4)))])
    net = classifier.NetClassifier(store, 6, AlignmentConfig(batch_size=size), seed=1)
    net.fit(np.arange(50), np.zeros(50, np.int64), epochs=1)
    assert used[0].batch_size == size and used[0].learning_rate == pytest.approx(rate)


def test_it_learns_states_that_can_be_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = rng.integers(0, 3, 3000)
    frames = (rng.normal(0, 0.3, (3000, 4)) + 2 * states[:, None]).astype(np.float32)
    store = write_store(tmp_path / "store", [("u", frames)])
    settings = AlignmentConfig(batch_size=64, context=0)
    net = classifier.NetClassifier(store, 3, settings, seed=1)
    net.fit(np.arange(3000), states, epochs=3)
    assert (net.log_posteriors(store, [0])[0].argmax(1) == states).mean() > 0.95

"""Posteriors of many utterances at once are those of each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr_kd.acoustic import inference as infer
from asr_kd.acoustic.model import AcousticModel
from asr_kd.frames.store import write_store
from asr_kd.workspace.config import ModelConfig


def test_many_utterances_at_once_have_the_posteriors_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    utterances = [(f"u{k}", rng.normal(size=(n, 4)).astype(np.float32)) for k, n in enumerate((7, 2, 11))]
    store = write_store(tmp_path / "train", utterances)
    model = AcousticModel(ModelConfig(1, 8, left_context=2, right_context=1), 16, 5, [1, 2])
    alone = [infer.all_log_posteriors(model, store, u)[0] for u in range(3)]
    monkeypatch.setattr(infer, "FRAMES_AT_ONCE", 5)  # no utterance ends where a part does
    for wanted in ([2, 0, 1], [1], [0, 1, 2]):
        found = infer.first_members_log_posteriors(model, store, wanted)
        assert [len(one) for one in found] == [len(alone[u]) for u in wanted]
        for one, u in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, alone[u], atol=1e-5)

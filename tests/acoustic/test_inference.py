"""Posteriors of many utterances at once are those of each alone."""

from __future__ import annotations

import numpy as np
import pytest

from asr_kd.acoustic import inference
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig


@pytest.mark.parametrize(
    "settings",
    [DnnConfig(layers=1, width=8, left_context=2, right_context=1), TdnnConfig(width=8, kernel=3, dilations=(1,))],
)
def test_many_utterances_at_once_have_the_posteriors_of_each_alone(
    settings: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 4)).astype(np.float32) for n in (7, 2, 11)]
    model = build_model(settings, num_dims=4, num_senones=5, seeds=[1, 2])
    model.precision = "float32"
    alone = [model.member_log_posteriors(frames)[0].numpy() for frames in features]
    monkeypatch.setattr(inference, "FRAMES_AT_ONCE", 5)  # no utterance ends where a part does
    for chosen in ([2, 0, 1], [1], [0, 1, 2]):
        posteriors = inference.first_member_log_posteriors(model, [features[u] for u in chosen])
        assert [len(rows) for rows in posteriors] == [len(alone[u]) for u in chosen]
        for rows, u in zip(posteriors, chosen, strict=True):
            np.testing.assert_allclose(rows, alone[u], atol=1e-5)

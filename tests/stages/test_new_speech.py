"""How much of training's mean counts with new speech follows from the corpus: whether levels say who speaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional

from asr_kd.acoustic.model import FrameModel
from asr_kd.frames.normalisation import Normalisation
from asr_kd.frames.store import FrameStore
from asr_kd.stages.new_speech import beginnings, chosen_prior, cross_entropy

from ..stores import write_store


class Sign:
    """Senone 1 where a normalised frame is above 0."""

    def log_posteriors(self, frames: np.ndarray) -> torch.Tensor:
        logits = torch.from_numpy(frames[:, :1])
        return functional.log_softmax(torch.cat([-logits, logits], dim=1), dim=1)


MODEL = cast(FrameModel, Sign())


def dev_of(folder: Path, length: int, *, level: float, balanced: bool) -> tuple[FrameStore, np.ndarray]:
    """Utterances of 40 speakers whose levels differ as given; where not balanced, most frames are of one senone."""
    rng = np.random.default_rng(0)
    labels, data = [], []
    for number in range(40):
        share = 0.5 if balanced else rng.choice([0.1, 0.9])
        senones = (np.arange(length) < share * length).astype(np.int32)
        labels.append(senones)
        frames = 2.0 * senones[:, None] - 1 + rng.normal(0, level) + rng.normal(0, 0.1, (length, 1))
        data.append((f"u{number}", frames.astype(np.float16)))
    return write_store(folder, data, scale=np.ones(1, np.float32)), np.concatenate(labels)


@pytest.mark.parametrize(("level", "balanced", "least", "most"), [(0.0, False, 400, 400), (3.0, True, 0, 0)])
def test_it_is_large_where_speakers_are_alike_and_none_where_they_differ(
    tmp_path: Path, level: float, balanced: bool, least: int, most: int
) -> None:
    store, labels = dev_of(tmp_path, 100, level=level, balanced=balanced)
    normalisation = Normalisation(np.zeros((1, 1), np.float32), np.ones(1, np.float32))
    assert least <= chosen_prior(MODEL, normalisation, store, labels) <= most


def test_the_cross_entropy_is_that_of_the_labelled_frames_of_beginnings(tmp_path: Path) -> None:
    store, labels = dev_of(tmp_path, 1000, level=1.0, balanced=False)
    labels = np.where(np.arange(len(labels)) % 7 == 0, -1, labels)
    normalisation: Any = Normalisation(np.full((1, 1), 0.5, np.float32), np.ones(1, np.float32), prior_frames=50)
    costs = []
    for utterance in range(40):
        frames = store.features[store.span(utterance)][:300].astype(np.float64)
        mean = (frames.sum() + 25) / 350
        for value, senone in zip(frames[:, 0] - mean, labels[store.span(utterance)][:300], strict=True):
            if senone >= 0:
                costs.append(np.log1p(np.exp(-2 * value if senone else 2 * value)))
    assert cross_entropy(MODEL, beginnings(normalisation, store, labels)) == pytest.approx(np.mean(costs), rel=1e-4)
    other = beginnings(replace(normalisation, prior_frames=0), store, labels)
    assert cross_entropy(MODEL, other) != pytest.approx(np.mean(costs))

"""A run whose numbers are no longer finite stops, and leaves nothing behind but the last good checkpoint."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from asr_kd.acoustic.criteria import HardTargets, Terms
from asr_kd.acoustic.divergence import DivergedError
from asr_kd.acoustic.model_files import load_model, save_model
from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.errors import UserError
from asr_kd.frames.batches import Batch

from .points import CPU, Points, dnn_of

MODEL = DnnConfig(layers=1, width=16, left_context=0, right_context=0)
TRAINING = TrainingConfig(epochs=3, batch_size=50, learning_rate=1e-2, precision="float32")  # 4 steps an epoch


class Spoilt:
    """Hard targets, but at one step the loss of member 1, or the gradient of all, is NaN."""

    def __init__(self, points: Points, *, step: int, gradient: bool = False) -> None:
        self._inner, self._step, self._gradient, self._calls = HardTargets(points.labels, CPU), step, gradient, 0

    def __call__(self, logits: Tensor, batch: Batch) -> Terms:
        self._calls += 1
        if self._calls != self._step:
            return self._inner(logits, batch)
        if self._gradient:
            logits.register_hook(lambda gradient: gradient * math.nan)
            return self._inner(logits, batch)
        terms = self._inner(logits, batch)
        return replace(terms, loss=terms.loss * torch.tensor([1.0, math.nan, 1.0]))


def train(criterion: Spoilt, **options: object) -> None:
    points = Points()
    fit(dnn_of(points, MODEL), TrainingData(points), criterion, TRAINING, RunControl(seed=1, **options))


@pytest.mark.parametrize("at_once", [True, False], ids=["cpu", "accelerator"])
def test_the_step_member_and_rate_are_named(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    monkeypatch.setattr("asr_kd.acoustic.divergence.is_accelerator", lambda device: not at_once)
    with pytest.raises(DivergedError, match=r"loss of model 1 is not finite at step 2 \(learning rate 0\.00\d+\)"):
        train(Spoilt(Points(), step=2))


@pytest.mark.parametrize("step", [3, 12], ids=["within an epoch", "the last step of all"])
def test_a_gradient_is_noticed_at_the_next_step_or_at_the_end(step: int) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        train(Spoilt(Points(), step=step, gradient=True))


@pytest.mark.parametrize("at_once", [True, False], ids=["cpu", "accelerator"])
def test_the_last_good_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    monkeypatch.setattr("asr_kd.acoustic.divergence.is_accelerator", lambda device: not at_once)
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(DivergedError):
        train(Spoilt(Points(), step=6, gradient=True), checkpoint=file, checkpoint_seconds=0.0)
    saved = torch.load(file, weights_only=True)
    assert '"step": 5' in saved["progress"]
    assert all(bool(torch.isfinite(value).all()) for value in saved["model"].values())


def test_a_model_with_numbers_that_are_not_finite_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    model = dnn_of(Points(), MODEL)
    save_model(model, tmp_path)
    with torch.no_grad():
        next(iter(model.parameters()))[0].fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        save_model(model, tmp_path)
    file = tmp_path / "member_0.safetensors"
    tensors = safetensors.torch.load_file(str(file))
    safetensors.torch.save_file({name: value * math.inf for name, value in tensors.items()}, str(file))
    with pytest.raises(UserError, match=r"damaged .* not finite.*; delete it and train it again"):
        load_model(tmp_path)

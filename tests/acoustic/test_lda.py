"""Linear discriminants: right against covariances written out, and a net that learnt from them needs them no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.acoustic import lda as discriminants
from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.lda import FACTOR, RIDGE, InputTransform, linear_discriminants
from asr_kd.acoustic.model import AcousticModel, load_model
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.training import DevScores
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore, write_store
from asr_kd.frames.windows import WindowedFrames
from asr_kd.io.stamp import Stamp
from asr_kd.stages.training_run import Lesson, train_nets
from asr_kd.workspace.config import ModelConfig, TrainingConfig
from asr_kd.workspace.run_options import RunOptions

SIZES = (300, 1, 450, 200)
NUM_CLASSES, LEFT, RIGHT = 5, 1, 1


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """Frames that are turned and scaled so that some of their directions are a thousand times louder than others."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4)) * np.array([30.0, 1.0, 1.0, 0.03])
    return write_store(tmp_path / "store", [(f"u{k}", rng.normal(size=(n, 4)) @ mixing) for k, n in enumerate(SIZES)])


def labels_of(store: FrameStore) -> np.ndarray:
    """By what is in the frame, so that the classes differ; the second utterance has none, and there is no class 4."""
    frames = store.normalised(0, len(SIZES))
    labels = (frames[:, 0] > 0) * 2 + (frames[:, 3] > 0)
    labels[SIZES[0] : SIZES[0] + 1] = -1
    return labels.astype(np.int32)


def windows_of(store: FrameStore) -> np.ndarray:
    every = WindowedFrames(store, left=LEFT, right=RIGHT)
    return every.inputs(torch.arange(store.num_frames)).double().numpy()


def transform_of(store: FrameStore, labels: np.ndarray, count: int) -> InputTransform:
    return linear_discriminants(store, labels, left=LEFT, right=RIGHT, num_classes=NUM_CLASSES, count=count)


def scatter(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariances within the classes and of their means, one input after the other."""
    inputs, labels = inputs[labels >= 0], labels[labels >= 0]
    means = np.stack([inputs[labels == c].mean(0) if (labels == c).any() else inputs[0] for c in range(NUM_CLASSES)])
    off, around = inputs - means[labels], means[labels] - inputs.mean(0)
    return off.T @ off / len(inputs), around.T @ around / len(inputs)


@pytest.mark.parametrize(("together", "frames"), [(64, 4096), (1, 7)])
def test_they_are_uncorrelated_within_and_between_classes_and_those_that_tell_most(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch, together: int, frames: int
) -> None:
    monkeypatch.setattr(discriminants, "_UTTERANCES", together)
    monkeypatch.setattr(discriminants, "_FRAMES", frames)
    labels, inputs = labels_of(store), windows_of(store)
    whole, some = transform_of(store, labels, 12), transform_of(store, labels, 3)
    weight = whole.weight.double().numpy()
    within, between = scatter(inputs, labels)
    within += RIDGE * within.trace() / 12 * np.eye(12)
    ratios = np.linalg.eigvals(np.linalg.solve(within, between)).real
    within, between = weight.T @ within @ weight, weight.T @ between @ weight
    found = np.diag(between) / np.diag(within)
    assert np.allclose(found, np.sort(ratios)[::-1], atol=1e-4 * ratios.max())
    assert found[0] > 10 * found[3]
    scale = np.sqrt(np.diag(within + between))
    for covariance in (within, between):
        assert np.allclose(covariance / np.outer(scale, scale), np.diag(np.diag(covariance) / scale**2), atol=1e-4)
    variances = np.diag(within + between)
    assert np.allclose(variances / variances.mean(), (found + FACTOR) / (found + FACTOR).mean(), rtol=1e-3)
    assert np.isclose(variances.mean(), 1)
    assert torch.allclose(whole.offset, torch.from_numpy(inputs[labels >= 0].mean(0) @ weight).float(), atol=1e-4)
    # fewer are the first ones
    cosines = torch.nn.functional.cosine_similarity(some.weight, whole.weight[:, :3], dim=0)
    assert torch.allclose(cosines.abs(), torch.ones(3), atol=1e-4)


def test_a_draw_of_the_utterances_is_enough_and_always_the_same(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = labels_of(store)
    monkeypatch.setattr(discriminants, "MOST_FRAMES", 320)
    read: list[np.ndarray] = []
    real = WindowedFrames.__init__

    def noted(self: WindowedFrames, *args: object, **kwargs: object) -> None:
        read.append(kwargs["utterances"])  # type: ignore[arg-type]
        real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(WindowedFrames, "__init__", noted)
    first, again = transform_of(store, labels, 2), transform_of(store, labels, 2)
    assert torch.equal(first.weight, again.weight)
    drawn, same = read
    assert np.array_equal(drawn, same) and len(drawn) < len(SIZES)
    assert sum(SIZES[u] for u in drawn if u != 1) >= 320


def test_what_cannot_be_is_one_sentence(store: FrameStore) -> None:
    labels = labels_of(store)
    with pytest.raises(UserError, match=r"lda_dims is 13.* has 12 numbers"):
        transform_of(store, labels, 13)
    with pytest.raises(UserError, match=r"store has no labelled frame"):
        transform_of(store, np.full_like(labels, -1), 2)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_folded_it_is_the_same_map(store: FrameStore, dropout: float) -> None:
    settings = ModelConfig(layers=2, width=8, input_dropout=dropout, lda_dims=3)
    transform = transform_of(store, labels_of(store), 3)
    model = AcousticModel(settings, 12, NUM_CLASSES, [1, 2], transform)
    model.precision = "float32"
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.normal_()
            layer.weight.mul_(3)
    inputs = torch.from_numpy(windows_of(store)).float()
    folded = model.folded()
    assert model.layers[0].weight.shape == (2, 3, 8) and folded.layers[0].weight.shape == (2, 12, 8)
    assert torch.allclose(model(inputs), folded(inputs), rtol=1e-4, atol=1e-4)
    assert folded.folded() is folded and folded.seeds == [1, 2]
    assert torch.isfinite(model(inputs, StepRng(1, 0, model.device))).all()
    some = model.some([1])
    assert torch.allclose(some(inputs)[0], model(inputs)[1], atol=1e-5)


def test_a_net_that_learnt_from_them_is_saved_as_any_other_and_answers_as_it_did(
    store: FrameStore, tmp_path: Path
) -> None:
    labels = labels_of(store)
    windows = WindowedFrames(store, left=LEFT, right=RIGHT)
    training = TrainingConfig(epochs=2, batch_size=64, precision="float32")
    answers = []

    def evaluate(net: AcousticModel) -> DevScores:
        with torch.no_grad():
            answers.append(net(windows.inputs(torch.arange(50))))
        return DevScores([float(len(answers))] * 2, [0.0] * 2)

    def lesson(device: torch.device) -> Lesson:
        transform = transform_of(store, labels, 3)
        objective = HardTargets(labels, device)
        return Lesson(windows, 12, NUM_CLASSES, objective, evaluate, valid=labels >= 0, transform=transform)

    model = ModelConfig(layers=1, width=8, lda_dims=3)
    folder, stamp = tmp_path / "nets", Stamp("train", {}, {})
    result = train_nets(folder, stamp, model, training, [1, 2], lesson, RunOptions(quiet=True))
    loaded = load_model(folder)
    loaded.precision = "float32"
    assert torch.allclose(loaded(windows.inputs(torch.arange(50))), answers[-1], rtol=1e-4, atol=1e-4)
    assert result.parameters == loaded.parameters_per_member == 12 * 8 + 8 + 8 * NUM_CLASSES + NUM_CLASSES

    def without(device: torch.device) -> Lesson:
        return replace(lesson(device), transform=None)

    with pytest.raises(UserError, match=r"digits.*leave out model.lda_dims"):
        train_nets(tmp_path / "digits", stamp, model, training, [1], without, RunOptions(quiet=True))

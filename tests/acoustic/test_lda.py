"""Linear discriminants: compared with covariances written out, and folded into a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.acoustic import lda
from asr_kd.acoustic.criteria import DevScores, HardTargets
from asr_kd.acoustic.dnn import Dnn
from asr_kd.acoustic.lda import FACTOR, RIDGE, InputTransform, linear_discriminants
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.model_files import load_model, save_model
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import DnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.frames.source import Context
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import WindowedFrames

from ..stores import write_store

SIZES = (300, 1, 450, 200)
NUM_SENONES, CONTEXT = 5, Context(1, 1)


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
    windows = WindowedFrames(store, CONTEXT)
    return windows.inputs(torch.arange(store.num_frames)).flatten(1).double().numpy()


def transform_of(store: FrameStore, labels: np.ndarray, count: int) -> InputTransform:
    return linear_discriminants(store, labels, CONTEXT, num_senones=NUM_SENONES, count=count)


def scatter(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariances within the classes and of their means, one input after the other."""
    inputs, labels = inputs[labels >= 0], labels[labels >= 0]
    means = np.stack([inputs[labels == c].mean(0) if (labels == c).any() else inputs[0] for c in range(NUM_SENONES)])
    off, around = inputs - means[labels], means[labels] - inputs.mean(0)
    return off.T @ off / len(inputs), around.T @ around / len(inputs)


@pytest.mark.parametrize(("together", "frames"), [(64, 4096), (1, 7)])
def test_they_are_uncorrelated_within_and_between_classes_and_those_that_tell_most(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch, together: int, frames: int
) -> None:
    monkeypatch.setattr(lda, "_UTTERANCES", together)
    monkeypatch.setattr(lda, "_FRAMES", frames)
    labels, inputs = labels_of(store), windows_of(store)
    whole, some = transform_of(store, labels, 12), transform_of(store, labels, 3)
    weight = whole.weight.double().numpy()
    within, between = scatter(inputs, labels)
    within += RIDGE * within.trace() / 12 * np.eye(12)
    ratios = np.linalg.eigvals(np.linalg.solve(within, between)).real
    within, between = weight.T @ within @ weight, weight.T @ between @ weight
    result = np.diag(between) / np.diag(within)
    assert np.allclose(result, np.sort(ratios)[::-1], atol=1e-4 * ratios.max())
    assert result[0] > 10 * result[3]
    scale = np.sqrt(np.diag(within + between))
    for covariance in (within, between):
        assert np.allclose(covariance / np.outer(scale, scale), np.diag(np.diag(covariance) / scale**2), atol=1e-4)
    variances = np.diag(within + between)
    assert np.allclose(variances / variances.mean(), (result + FACTOR) / (result + FACTOR).mean(), rtol=1e-3)
    assert np.isclose(variances.mean(), 1)
    assert torch.allclose(whole.offset, torch.from_numpy(inputs[labels >= 0].mean(0) @ weight).float(), atol=1e-4)
    # fewer are the first ones
    cosines = torch.nn.functional.cosine_similarity(some.weight, whole.weight[:, :3], dim=0)
    assert torch.allclose(cosines.abs(), torch.ones(3), atol=1e-4)


def test_a_draw_of_the_utterances_is_enough_and_always_the_same(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = labels_of(store)
    monkeypatch.setattr(lda, "MOST_FRAMES", 320)
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
    with pytest.raises(ValueError, match=r"lda_dims is 13.* has 12 numbers"):
        transform_of(store, labels, 13)
    with pytest.raises(ValueError, match="no frame has a label"):
        transform_of(store, np.full_like(labels, -1), 2)


def settings_of(**changes: float) -> DnnConfig:
    return DnnConfig(layers=2, width=8, left_context=1, right_context=1, lda_dims=3, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_folded_it_is_the_same_map_and_no_longer_says_that_it_has_a_transform(
    store: FrameStore, dropout: float
) -> None:
    settings = settings_of(input_dropout=dropout)
    transform = transform_of(store, labels_of(store), 3)
    model = build_model(settings, num_dims=4, num_senones=NUM_SENONES, seeds=[1, 2], transform=transform)
    assert isinstance(model, Dnn)
    model.precision = "float32"
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.normal_()
            layer.weight.mul_(3)
    inputs = torch.from_numpy(windows_of(store)).float().view(-1, 3, 4)
    folded = model.fold_input_transform()
    assert model.layers[0].weight.shape == (2, 3, 8) and folded.layers[0].weight.shape == (2, 12, 8)
    assert model.settings.lda_dims == 3 and folded.settings == replace(settings, lda_dims=0)
    assert torch.allclose(model(inputs), folded(inputs), rtol=1e-4, atol=1e-4)
    assert folded.fold_input_transform() is folded and folded.seeds == [1, 2] and folded.precision == "float32"
    assert torch.isfinite(model(inputs, StepRng(1, 0, model.device))).all()
    selected = model.select_members([1])
    assert torch.allclose(selected(inputs)[0], model(inputs)[1], atol=1e-5)


def test_a_model_that_learnt_from_them_is_saved_as_any_other_and_answers_as_it_did(
    store: FrameStore, tmp_path: Path
) -> None:
    labels, windows = labels_of(store), WindowedFrames(store, CONTEXT)
    training = TrainingConfig(epochs=2, batch_size=64, precision="float32")
    answers = []

    def evaluate(model: FrameModel) -> DevScores:
        with torch.no_grad():
            answers.append(model(windows.inputs(torch.arange(50))))
        return DevScores([float(len(answers))] * 2, [0.0] * 2)

    transform = transform_of(store, labels, 3)
    model = build_model(settings_of(), num_dims=4, num_senones=NUM_SENONES, seeds=[1, 2], transform=transform)
    data, criterion = TrainingData(windows, valid=labels >= 0), HardTargets(labels, model.device)
    fit(model, data, criterion, training, RunControl(seed=1, evaluate=evaluate))
    save_model(model.fold_input_transform(), tmp_path)
    loaded = load_model(tmp_path)
    assert torch.allclose(loaded(windows.inputs(torch.arange(50))), answers[-1], rtol=1e-4, atol=1e-4)
    assert loaded.parameters_per_member == 12 * 8 + 8 + 8 * 8 + 8 + 8 * NUM_SENONES + NUM_SENONES


def test_a_model_with_an_unfolded_transform_is_not_saved(store: FrameStore, tmp_path: Path) -> None:
    transform = transform_of(store, labels_of(store), 3)
    model = build_model(settings_of(), num_dims=4, num_senones=NUM_SENONES, seeds=[1], transform=transform)
    with pytest.raises(ValueError, match="fold_input_transform"):
        save_model(model, tmp_path)

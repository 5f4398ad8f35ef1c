"""Losses are scaled where products are in float16: the same training, and an overflow costs its member one step."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr_kd.acoustic import model as model_module
from asr_kd.acoustic.criteria import HardTargets, Terms
from asr_kd.acoustic.loss_scale import LossScale
from asr_kd.acoustic.model import FrameModel, build_model, compute_dtype, fastest_dtype, has_bfloat16
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.frames.batches import Batch

from .points import CPU, Points, dnn_of

MODEL = DnnConfig(layers=2, width=16, left_context=0, right_context=0, hidden_dropout=0.1)
STEPS_AN_EPOCH = 4


class Killed(Exception):
    pass


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[LossScale]:
    """Those of all trainings, as with products in float16; the factors begin with 8."""
    made: list[LossScale] = []

    def make(members: int, dtype: torch.dtype, device: torch.device) -> LossScale:
        made.append(LossScale(members, torch.float16, device, first=8.0, interval=5))
        return made[-1]

    monkeypatch.setattr("asr_kd.acoustic.checkpoint.LossScale", make)
    return made


def trained(criterion: HardTargets | None = None, optimizer: str = "adam", **control: Any) -> FrameModel:
    """A small ensemble after three epochs of four steps."""
    points = Points()
    model = dnn_of(points, MODEL)
    config = TrainingConfig(epochs=3, batch_size=50, optimizer=optimizer, precision="float32", clip_norm=1.0)
    fit(model, TrainingData(points), criterion or HardTargets(points.labels, CPU), config, RunControl(1, **control))
    return model


class Overflows(HardTargets):
    """In one step, the gradient of one member is infinite, as that of a product beyond float16's range."""

    def __init__(self, member: int, step: int, killed_at: int | None = None) -> None:
        super().__init__(Points().labels, CPU)
        self._member, self._step, self._killed_at, self._calls = member, step, killed_at, 0

    def __call__(self, logits: Tensor, batch: Batch) -> Terms:
        if self._calls == self._killed_at:
            raise Killed
        if self._calls == self._step:
            factors = torch.ones(len(logits), 1, 1)
            factors[self._member] = torch.inf
            logits.register_hook(lambda gradient: gradient * factors)
        self._calls += 1
        return super().__call__(logits, batch)


def same(one: FrameModel, other: FrameModel, members: list[int]) -> bool:
    pairs = ((one.member_state(member), other.member_state(member)) for member in members)
    return all(torch.equal(value, b[name]) for a, b in pairs for name, value in a.items())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_power_of_two_changes_nothing(optimizer: str, scales: list[LossScale]) -> None:
    scaled = trained(optimizer=optimizer)
    scales[0].active = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr_kd.acoustic.checkpoint.LossScale", LossScale)
        assert same(trained(optimizer=optimizer), scaled, [0, 1, 2])
    assert scales[0].state().tolist() == [[32.0] * 3, [2.0] * 3]  # twelve steps, doubled after five


def test_an_overflow_costs_its_member_alone(scales: list[LossScale]) -> None:
    """Its gradient is zero in that step: Adam goes on by its moments."""
    usual, disturbed = trained(), trained(Overflows(member=1, step=6))
    assert same(usual, disturbed, [0, 2]) and not same(usual, disturbed, [1])
    assert all(bool(torch.isfinite(value).all()) for value in disturbed.state_dict().values())
    # 8, 16 after five steps, 8 after that one, 16 after five more
    assert scales[1].state().tolist() == [[32.0, 16.0, 32.0], [2.0, 0.0, 2.0]]


def test_a_killed_run_goes_on_with_its_factors(scales: list[LossScale], tmp_path: Path) -> None:
    control = {"checkpoint": tmp_path / "checkpoint.pt", "checkpoint_seconds": 0.0}
    expected = trained(Overflows(member=1, step=6))
    with pytest.raises(Killed):
        trained(Overflows(member=1, step=6, killed_at=9), **control)
    resumed = trained(**control)
    assert same(expected, resumed, [0, 1, 2])
    assert torch.equal(scales[-1].state(), scales[0].state())


def test_factors_stay_within_bounds() -> None:
    scale = LossScale(2, torch.float16, CPU, interval=1)
    for _ in range(60):
        gradient = torch.tensor([[1.0], [torch.nan]])
        scale.unscale([gradient, None])
        assert gradient[1].item() == 0
    assert scale.state()[0].tolist() == [2.0**24, 1.0]


@pytest.fixture
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with a GPU of the parametrised capability, for who asks torch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: request.param)
    for cached in (has_bfloat16, fastest_dtype):
        cached.cache_clear()
    yield
    for cached in (has_bfloat16, fastest_dtype):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("gpu", "dtype"),
    [((6, 1), torch.float32), ((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
    indirect=["gpu"],
    ids=["pascal", "volta", "turing", "ampere"],
)
def test_each_gpu_computes_in_what_it_multiplies_fast(gpu: None, dtype: torch.dtype) -> None:
    assert compute_dtype("auto", torch.device("cuda")) == dtype
    assert compute_dtype("float16", torch.device("cuda")) == torch.float16
    assert compute_dtype("float16", CPU) == torch.float32  # such a model runs everywhere


@functools.cache
def _multiplies_float16() -> bool:
    try:
        torch.zeros(1, 2, 2, dtype=torch.float16).bmm(torch.zeros(1, 2, 2, dtype=torch.float16))
    except RuntimeError:
        return False
    return True


class Small(HardTargets):
    """A millionth of the loss: the gradients of the logits are below the least number of float16."""

    def __call__(self, logits: Tensor, batch: Batch) -> Terms:
        terms = super().__call__(logits, batch)
        return replace(terms, loss=1e-6 * terms.loss)


@pytest.mark.skipif(not _multiplies_float16(), reason="this torch multiplies float16 on GPUs alone")
@pytest.mark.parametrize("settings", [MODEL, TdnnConfig(width=16, kernel=1, dilations=(), chunk_frames=1)])
def test_float16_learns_what_float32_does_where_gradients_are_small(
    settings: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = Points(num_frames=1000)
    config = TrainingConfig(epochs=6, batch_size=100, optimizer="sgd", learning_rate=1e5, precision="float32")
    accuracy = {}
    for kind in ("float32", "float16", "unscaled"):
        model = build_model(settings, num_dims=points.dims, num_senones=points.senones, seeds=[1, 2])
        with monkeypatch.context() as patch:
            if kind != "float32":
                patch.setattr(model_module, "compute_dtype", lambda *_: torch.float16)
            if kind == "unscaled":
                patch.setattr(LossScale, "scaled", lambda _, loss: loss)
                patch.setattr(LossScale, "unscale", lambda *_: None)
            fit(model, TrainingData(points), Small(points.labels, CPU), config, RunControl(seed=1))
        assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
        answers = model(points.data.unsqueeze(1)).argmax(-1)
        accuracy[kind] = (answers == torch.from_numpy(points.labels)).float().mean(1).tolist()
    assert min(accuracy["float32"]) > 0.6 > max(accuracy["unscaled"])  # chance is a quarter
    assert accuracy["float16"] == pytest.approx(accuracy["float32"], abs=0.02)

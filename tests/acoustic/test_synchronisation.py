"""A training step never waits for the device: nothing is read back to the host before the epoch ends.

Counted in torch's own operations, with the torch kernels (numba's read the memory of tensors on the host) and without
dropout, whose bits torch 1.13 cannot draw while operations are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from asr_kd.acoustic.criteria import Criterion, HardTargets
from asr_kd.acoustic.loss_scale import LossScale
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, truncate
from asr_kd.distillation.targets import DistillationCriterion, OnlineTargets, StoredTargets, Teacher
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import windows_of

from ..stores import write_store

CPU = torch.device("cpu")
DNN = DnnConfig(layers=1, width=8, left_context=1, right_context=1, max_norm=2.0)
TDNN = TdnnConfig(width=8, kernel=3, dilations=(1,), chunk_frames=10)
_WAITING = ("_local_scalar_dense", "nonzero", "unique", "is_nonzero", "masked_select", "equal")


class Counter(TorchDispatchMode):
    """Counts operations for whose result the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(function) for name in _WAITING):
            self.calls.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(0)
    return write_store(tmp_path / "frames", [(f"u{k}", rng.normal(size=(n, 4))) for k, n in enumerate((37, 8, 55))])


def hard(store: FrameStore, folder: Path) -> Criterion:
    return HardTargets(np.arange(100) % 5, CPU)


def stored(store: FrameStore, folder: Path) -> Criterion:
    writer = SoftTargetWriter(folder, 5, np.full(5, 0.2, np.float32), exact=False)
    distributions = torch.randn(100, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    writer.append(truncate(distributions, keep_mass=0.9, max_entries=3))
    writer.close()
    provider = StoredTargets(SoftTargetStore(folder, temperature=2.0, num_frames=100))
    return DistillationCriterion(provider, np.arange(100) % 5, soft_weight=0.5, device=CPU)


def online(store: FrameStore, folder: Path) -> Criterion:
    models = [model_of(settings) for settings in (DNN, TDNN)]
    teachers = [Teacher(model, windows_of(store, model.context)) for model in models]
    provider = OnlineTargets(teachers, temperature=2.0, mean="arithmetic")
    return DistillationCriterion(provider, np.arange(100) % 5, soft_weight=0.5, device=CPU)


def model_of(settings: ModelConfig) -> FrameModel:
    return build_model(settings, num_dims=4, num_senones=5, seeds=[1, 2])


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    monkeypatch.setenv("ASR_KD_KERNELS", "torch")
    monkeypatch.setattr("asr_kd.kernels.softmax._check_senones", lambda *_: None)  # reads them on a CPU alone
    monkeypatch.setattr("asr_kd.acoustic.divergence._reads_at_once", lambda device: False)  # as on an accelerator
    counter = Counter()
    to_list = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> Any:
        counter.calls.append("tolist")
        return to_list(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    yield counter


@pytest.fixture(params=["", "scaled"])
def scaled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of losses as they are, and as they are scaled where products are in float16."""
    if request.param:
        monkeypatch.setattr(
            "asr_kd.acoustic.checkpoint.LossScale", lambda members, _, device: LossScale(members, torch.float16, device)
        )


@pytest.mark.parametrize("settings", [DNN, TDNN])
@pytest.mark.parametrize("targets", [hard, stored, online])
def test_no_step_waits_for_the_device(
    settings: ModelConfig, targets: Any, store: FrameStore, tmp_path: Path, counter: Counter, scaled: None
) -> None:
    model, folder = model_of(settings), tmp_path / "targets"
    folder.mkdir()
    criterion, windows = targets(store, folder), windows_of(store, model.context)
    counts = []
    for batch_size in (100, 20):  # 1 step an epoch, and 5 (or more)
        counter.calls.clear()
        # sgd: the step of torch's own AdamW on a CPU reads its counter, which lies on the host
        training = TrainingConfig(epochs=1, batch_size=batch_size, optimizer="sgd", precision="float32")
        with counter:
            progress = fit(model, TrainingData(windows), criterion, training, RunControl(seed=1))
        counts.append((progress.step, len(counter.calls)))
    assert counts[1][0] >= counts[0][0] + 4
    assert counts[0][1] == counts[1][1] > 0, counter.calls  # some at the end of the epoch, none in a step

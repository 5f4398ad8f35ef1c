"""A training step never waits for the device: nothing is read back to the host before the epoch ends.

Counted in torch's own operations, with the torch kernels (numba's read the memory of tensors on the host) and without
dropout, whose bits torch 1.13 cannot draw while operations are counted. What goes to the device is copied from pinned
memory.
"""

from __future__ import annotations

import threading
import traceback
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
from asr_kd.acoustic.settings import AugmentConfig, DnnConfig, ModelConfig, TdnnConfig, TrainingConfig
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
    monkeypatch.setattr("asr_kd.acoustic.divergence.is_accelerator", lambda device: True)
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


class Copies:
    """What is copied to an accelerator, as which the CPU is taken; how, and by which thread."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.waiting: list[str] = []  # where a copy made the host wait
        self.readers: set[int] = set()  # threads that read stored targets
        self.pinned = 0
        from_numpy, to, read = torch.from_numpy, torch.Tensor.to, SoftTargetStore.read
        of_host: dict[int, torch.Tensor] = {}  # which still live: their numbers are their own

        def noted(array: np.ndarray) -> torch.Tensor:
            tensor = from_numpy(array)
            of_host[id(tensor)] = tensor
            return tensor

        def pinned(tensor: torch.Tensor) -> torch.Tensor:
            self.pinned += 1
            return tensor.clone()

        def copied(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            to_device = any(isinstance(value, torch.device) for value in (*arguments, *options.values()))
            waits = id(tensor) in of_host or not options.get("non_blocking", False)
            if to_device and waits:
                self.waiting.append("".join(traceback.format_stack(limit=3)))
            return to(tensor, *arguments, **options)

        def noted_read(store: SoftTargetStore, frames: np.ndarray) -> Any:
            self.readers.add(threading.get_ident())
            return read(store, frames)

        for module in ("kernels.transfer", "acoustic.training", "acoustic.divergence"):
            patch.setattr(f"asr_kd.{module}.is_accelerator", lambda device: True)
        patch.setattr(torch, "from_numpy", noted)
        patch.setattr(torch.Tensor, "pin_memory", pinned)
        patch.setattr(torch.Tensor, "to", copied)
        patch.setattr(SoftTargetStore, "read", noted_read)


@pytest.mark.parametrize("settings", [DNN, TDNN])
@pytest.mark.parametrize("targets", [hard, stored, online])
def test_no_copy_to_the_device_makes_the_host_wait(
    settings: ModelConfig, targets: Any, store: FrameStore, tmp_path: Path
) -> None:
    training = TrainingConfig(epochs=2, batch_size=20, precision="float32", augment=AugmentConfig(1, 2, 1, 3))
    weights = []
    for on_accelerator in (False, True):
        model, folder = model_of(settings), tmp_path / f"targets-{on_accelerator}"
        folder.mkdir()
        criterion, windows = targets(store, folder), windows_of(store, model.context)
        with pytest.MonkeyPatch.context() as patch:
            copies = Copies(patch) if on_accelerator else None
            fit(model, TrainingData(windows), criterion, training, RunControl(seed=1))
        weights.append(model.state_dict())
    assert copies is not None and copies.pinned > 10
    assert copies.waiting == []
    assert (copies.readers != set()) == (targets is stored) and threading.get_ident() not in copies.readers
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

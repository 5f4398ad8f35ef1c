"""Processes that train together get the weights that one gets from the same batches, but for rounding."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from asr_kd.acoustic.criteria import Criterion, DevScorer, HardTargets
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.ranks import ALONE, Ranks, process_group
from asr_kd.acoustic.settings import AugmentConfig, DnnConfig, FrontConfig, ModelConfig, TdnnConfig, TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.distillation.targets import DistillationCriterion, OnlineTargets, TableTargets, Teacher
from asr_kd.errors import UserError
from asr_kd.frames.batches import Batches
from asr_kd.frames.source import ArrayFrames
from asr_kd.frames.windows import windows_of
from asr_kd.kernels.dropout import dropout_mask, fill_dropout_mask

CPU = torch.device("cpu")
DIMS, SENONES, STEPS = 6, 9, 50
LENGTHS = [7 + 11 * (k % 5) for k in range(20)]  # the last batch is small
DNN = DnnConfig(layers=2, width=24, left_context=2, right_context=1, hidden_dropout=0.2, input_dropout=0.1)
TDNN = TdnnConfig(width=16, kernel=3, dilations=(1, 2), chunk_frames=8, dropout=0.2, front=FrontConfig((4, 8)))
TEACHER = TdnnConfig(width=8, kernel=5, dilations=(2, 3))
MASKS = AugmentConfig(freq_masks=1, freq_width=2, time_masks=1, time_width=3)
CASES: dict[str, tuple[ModelConfig, str, TrainingConfig]] = {
    "dnn, hard": (DNN, "hard", TrainingConfig(batch_size=50, clip_norm=0.3)),
    "dnn, stored": (DNN, "stored", TrainingConfig(batch_size=50, augment=MASKS)),
    "dnn, online": (DNN, "online", TrainingConfig(batch_size=50)),
    "tdnn, hard": (TDNN, "hard", TrainingConfig(batch_size=60, augment=MASKS)),
    "tdnn, stored": (TDNN, "stored", TrainingConfig(batch_size=60, clip_norm=0.3)),
    "tdnn, online": (TDNN, "online", TrainingConfig(batch_size=60)),
    "batch norm, fewer chunks than ranks": (
        TdnnConfig(width=16, kernel=3, dilations=(1,), chunk_frames=40), "hard", TrainingConfig(batch_size=80),
    ),
    "layer norm, fewer chunks than ranks": (
        TdnnConfig(width=16, kernel=3, dilations=(1,), chunk_frames=40, norm="layer"), "hard",
        TrainingConfig(batch_size=80),
    ),
}  # fmt: skip


def source() -> ArrayFrames:
    rng = np.random.default_rng(0)
    return ArrayFrames([rng.normal(size=(length, DIMS)).astype(np.float32) for length in LENGTHS])


def criterion_of(kind: str, labels: np.ndarray) -> Criterion:
    if kind == "hard":
        return HardTargets(labels, CPU)
    rng = np.random.default_rng(2)
    if kind == "stored":
        provider = TableTargets(torch.from_numpy(np.log(rng.dirichlet(np.ones(SENONES), len(labels)))).float(), 1.0)
    else:
        teacher = build_model(TEACHER, num_dims=DIMS, num_senones=SENONES, seeds=[9])
        provider = OnlineTargets([Teacher(teacher)], temperature=2.0, mean="arithmetic")
    return DistillationCriterion(provider, labels, soft_weight=0.7, device=CPU)


def trained(  # type: ignore[no-untyped-def]
    case: str,
    ranks: Ranks,
    checkpoint: Path | None = None,
    after: Callable[[int], None] | None = None,
    seeds: Sequence[int] = (1, 2),
):
    """The model after fifty steps or so, and its log."""
    settings, kind, training = CASES[case]
    labels = np.random.default_rng(1).integers(0, SENONES, sum(LENGTHS))
    valid = np.random.default_rng(3).random(len(labels)) < 0.8
    model = build_model(settings, num_dims=DIMS, num_senones=SENONES, seeds=seeds)
    frames, criterion = source(), criterion_of(kind, labels)
    windows = windows_of(frames, settings.context | TEACHER.context)  # wide enough for the teacher too
    steps = Batches(windows, training.batch_size, length=settings.chunk_frames, seed=1, valid=valid).steps_per_epoch
    training = TrainingConfig(**{**vars(training), "epochs": -(-STEPS // steps), "precision": "float32"})
    control = RunControl(
        seed=1, evaluate=DevScorer(windows_of(frames, settings.context), labels), ranks=ranks, digest=case,
        checkpoint=checkpoint, checkpoint_seconds=0.0,
    )  # fmt: skip

    def counted(logits, batch):  # type: ignore[no-untyped-def]
        counted.calls += 1  # type: ignore[attr-defined]
        if after is not None:
            after(counted.calls)  # type: ignore[attr-defined]
        return criterion(logits, batch)

    counted.calls = 0  # type: ignore[attr-defined]
    progress = fit(model, TrainingData(windows, valid), counted, training, control)
    return model, progress


class Stopped(Exception):
    pass


def stop_after(steps: int) -> Callable[[int], None]:
    def stop(calls: int) -> None:
        if calls > steps:
            raise Stopped

    return stop


def of_a_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    variables = {"WORLD_SIZE": "3", "RANK": str(rank), "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": str(rank)}
    with process_group("cpu", variables) as (ranks, device):
        assert (ranks, device) == (Ranks(rank, 3), "cpu")
        # other weights, or another place in the run, are found before anything is added up
        with pytest.raises(UserError, match="the processes begin with other weights, steps or number formats; the pro"):
            trained("dnn, hard", ranks, seeds=[1, 2 + rank // 2])
        for case in CASES:
            model, progress = trained(case, ranks)
            torch.save(model.state_dict(), Path(folder) / f"{case}.{rank}.pt")
            (Path(folder) / f"{case}.{rank}.json").write_text(json.dumps(progress.rows))
        # a run that one process began goes on with two, and one that several began with one
        trained("dnn, hard", ranks, Path(folder) / "of_one.pt")[0]
        model, _ = trained("dnn, hard", ranks, Path(folder) / f"of_one.{rank}.pt")
        torch.save(model.state_dict(), Path(folder) / f"resumed.{rank}.pt")
        try:
            trained("tdnn, hard", ranks, Path(folder) / "of_two.pt", stop_after(20))
        except Stopped:
            ranks.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes have made."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("of_one", "of_one.0", "of_one.1", "of_one.2"):
        with pytest.raises(Stopped):
            trained("dnn, hard", ALONE, folder / f"{name}.pt", stop_after(17))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        patch.setenv("MASTER_PORT", str(20000 + hash(str(folder)) % 20000))
        patch.setattr(sys, "argv", ["test"])
        torch.multiprocessing.spawn(of_a_rank, (str(folder),), nprocs=3)
    return folder


def differ_most(ours: FrameModel | dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    state = ours if isinstance(ours, dict) else ours.state_dict()
    return max(float((state[name].float() - theirs[name].float()).abs().max()) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_three_processes_train_what_one_trains(folder: Path, case: str) -> None:
    model, progress = trained(case, ALONE)
    states = [torch.load(folder / f"{case}.{rank}.pt") for rank in (0, 1, 2)]
    assert differ_most(states[0], states[1]) == differ_most(states[0], states[2]) == 0.0
    assert differ_most(model, states[0]) < 2e-4
    rows = json.loads((folder / f"{case}.0.json").read_text())
    assert progress.step >= STEPS and len(rows) == len(progress.rows)
    for row, expected in zip(rows, progress.rows, strict=True):
        assert row.keys() == expected.keys()
        for name in row.keys() - {"seconds", "frames_per_second"}:
            assert np.allclose(row[name], expected[name], atol=2e-3), name


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(folder: Path) -> None:
    whole, _ = trained("dnn, hard", ALONE)
    assert differ_most(whole, torch.load(folder / "resumed.0.pt")) < 2e-4
    calls: list[int] = []
    resumed, _ = trained("tdnn, hard", ALONE, folder / "of_two.pt", calls.append)
    whole, progress = trained("tdnn, hard", ALONE)
    assert differ_most(resumed, whole.state_dict()) < 2e-4
    assert len(calls) < progress.step - 15  # it did not begin anew


@pytest.mark.parametrize("length", [1, 8])
def test_the_shares_of_a_batch_are_the_batch(length: int) -> None:
    windows, valid = windows_of(source(), DNN.context), np.random.default_rng(0).random(sum(LENGTHS)) < 0.9
    make = lambda part: Batches(windows, 50, length=length, seed=3, valid=valid, part=part).epoch(2)  # noqa: E731
    for whole, *parts in zip(make((0, 1)), *(make((k, 3)) for k in range(3)), strict=True):
        chunks = [part for part in parts if part.share is not None and part.share.chunks]
        assert torch.equal(torch.cat([part.frames for part in chunks]), whole.frames)
        assert torch.equal(torch.cat([part.inputs for part in chunks]), whole.inputs)
        assert sum(part.num_valid for part in parts) == whole.num_valid_of_all == parts[0].num_valid_of_all


@pytest.mark.parametrize("first", [1, 1000, 8192, 8193, 20_000])
def test_a_part_of_a_dropout_mask_is_that_of_the_whole(first: int) -> None:
    whole = dropout_mask((40_000,), 0.3, torch.float32, key=77)
    part = torch.empty(300, 10)
    fill_dropout_mask(part, 0.3, key=77, first=first)
    assert torch.equal(part.flatten(), whole[first : first + 3000])


def test_processes_that_do_not_find_each_other_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(UserError, match="the 2 processes of torchrun do not find each other"),
        process_group("cpu", {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}),
    ):
        pass

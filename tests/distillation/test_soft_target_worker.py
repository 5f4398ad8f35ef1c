"""Soft targets of utterances are their teachers' mean distribution, whoever computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.model_files import save_model
from asr_kd.acoustic.settings import DnnConfig, ModelConfig, TdnnConfig
from asr_kd.distillation import soft_target_worker as worker
from asr_kd.distillation.loss import ensemble_distribution
from asr_kd.distillation.settings import TargetsConfig
from asr_kd.distillation.soft_target_worker import (
    Shard,
    TargetsTask,
    TeacherFolder,
    clear_cache,
    compute_soft_targets,
    estimate_mean_distribution,
)
from asr_kd.distillation.store import TopK, restore
from asr_kd.frames.store import FrameStore

from ..stores import write_store

LENGTHS = (40, 3, 25, 32)
UNIFORM = np.full(6, 1 / 6, np.float32)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(3)
    utterances = [(f"u{k}", rng.normal(size=(length, 5))) for k, length in enumerate(LENGTHS)]
    yield write_store(tmp_path / "frames", utterances)
    clear_cache()


def make_teacher(folder: Path, settings: ModelConfig, members: int) -> FrameModel:
    folder.mkdir()
    model = build_model(settings, num_dims=5, num_senones=6, seeds=list(range(members)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.precision = "float32"
    save_model(model, folder)
    return model


def task_of(store: FrameStore, *teachers: TeacherFolder, **settings) -> TargetsTask:
    targets = TargetsConfig(source=("teacher",), temperature=2.0, **({"keep_mass": 1.0, "max_entries": 6} | settings))
    return TargetsTask(store.folder, teachers, targets, 6, "cpu")


def distributions(task: TargetsTask, first: int, end: int) -> torch.Tensor:
    shard = compute_soft_targets(Shard(task, first, end, UNIFORM))
    return restore(shard.targets, torch.from_numpy(UNIFORM))


def members_of(model: FrameModel, store: FrameStore) -> torch.Tensor:
    return torch.cat([model.member_log_posteriors(store.normalised(u)) for u in range(len(LENGTHS))], dim=1)


def test_they_are_the_members_tempered_mean(store: FrameStore, tmp_path: Path) -> None:
    model = make_teacher(tmp_path / "t", DnnConfig(layers=1, width=8, left_context=4, right_context=2), 3)
    task = task_of(store, TeacherFolder(tmp_path / "t", members=3))
    full = ensemble_distribution(members_of(model, store), temperature=2.0)
    assert torch.allclose(distributions(task, 0, 4), full, atol=1e-5)
    # of several seeds the first one teaches
    first = ensemble_distribution(members_of(model, store)[:1], temperature=2.0)
    assert torch.allclose(distributions(task_of(store, TeacherFolder(tmp_path / "t")), 0, 4), first, atol=1e-5)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_two_teachers_count_alike(store: FrameStore, tmp_path: Path, mean: str) -> None:
    settings = {"a": DnnConfig(layers=1, width=8, left_context=4), "b": TdnnConfig(width=8, dilations=(1, 2))}
    models = {name: make_teacher(tmp_path / name, kind, 3 if name == "a" else 1) for name, kind in settings.items()}
    folders = [TeacherFolder(tmp_path / name, models[name].members) for name in "ab"]
    each = [ensemble_distribution(members_of(models[name], store), temperature=2.0, mean=mean) for name in "ab"]
    expected = ensemble_distribution(torch.stack(each), temperature=1.0, mean=mean)
    assert torch.allclose(distributions(task_of(store, *folders, mean=mean), 0, 4), expected, atol=1e-5)


def test_members_answer_for_the_fold_that_they_did_not_see(store: FrameStore, tmp_path: Path) -> None:
    model = make_teacher(tmp_path / "t", DnnConfig(layers=1, width=8), 4)
    targets = distributions(task_of(store, TeacherFolder(tmp_path / "t", 4, folds=2)), 0, 4)
    logits = members_of(model, store)
    for utterance in range(4):
        frames = store.span(utterance)
        answering = logits[[0, 2] if utterance % 2 == 0 else [1, 3], frames]
        assert torch.allclose(targets[frames], ensemble_distribution(answering, temperature=2.0), atol=1e-5)


def test_long_utterances_go_through_in_parts(
    store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kind in (("a", DnnConfig(layers=1, width=8)), ("b", TdnnConfig(width=8, dilations=(1, 2)))):
        make_teacher(tmp_path / name, kind, 1)
        task = task_of(store, TeacherFolder(tmp_path / name))
        whole = distributions(task, 0, 4)
        monkeypatch.setattr(worker, "FRAMES_AT_ONCE", 7)
        assert torch.allclose(distributions(task, 0, 4), whole, atol=1e-5)
        monkeypatch.undo()


def test_they_do_not_depend_on_the_shards(store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_teacher(tmp_path / "t", DnnConfig(layers=1, width=8), 2)
    task = task_of(store, TeacherFolder(tmp_path / "t", 2), keep_mass=0.9, max_entries=4)
    whole = compute_soft_targets(Shard(task, 0, 4, UNIFORM))
    assert list(task.shards(store.offsets)) == [(0, 4)]
    monkeypatch.setattr(worker, "MAX_SHARD_FRAMES", 43)
    assert list(task.shards(store.offsets)) == [(0, 2), (2, 3), (3, 4)]
    monkeypatch.setattr(worker, "MAX_SHARD_FRAMES", 1)
    assert list(task.shards(store.offsets, 2)) == [(2, 3), (3, 4)]
    parts = [compute_soft_targets(Shard(task, *ends, UNIFORM)) for ends in task.shards(store.offsets)]
    together = TopK.concatenate([part.targets for part in parts])
    for name in ("ids", "log_probabilities", "counts", "log_residual_mass"):
        np.testing.assert_array_equal(getattr(together, name), getattr(whole.targets, name))
    for name in worker.SUMS:
        assert sum(part.sums[name] for part in parts) == pytest.approx(whole.sums[name])


def test_the_sample_has_the_mean_distribution(store: FrameStore, tmp_path: Path) -> None:
    model = make_teacher(tmp_path / "t", DnnConfig(layers=1, width=8), 2)
    task = task_of(store, TeacherFolder(tmp_path / "t", 2))
    mean, entries = estimate_mean_distribution(task, seed=1)  # of so few frames all are in the sample
    full = ensemble_distribution(members_of(model, store), temperature=2.0)
    np.testing.assert_allclose(mean, full.exp().mean(0), atol=1e-5)
    assert entries == 6


def test_the_models_precision_is_used(store: FrameStore, tmp_path: Path) -> None:
    model = make_teacher(tmp_path / "t", DnnConfig(layers=1, width=8), 1)
    model.precision = "bfloat16"
    (tmp_path / "b").mkdir()
    save_model(model, tmp_path / "b")
    exact, rounded = (distributions(task_of(store, TeacherFolder(tmp_path / name)), 0, 4) for name in "tb")
    expected = ensemble_distribution(members_of(model, store), temperature=2.0)
    assert torch.allclose(rounded, expected, atol=1e-5) and not torch.allclose(rounded, exact, atol=1e-4)

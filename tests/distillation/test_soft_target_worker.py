"""Soft targets are the same however the frames are spread over processes, and go on where a run was killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.distillation import soft_target_worker as softening
from asr_kd.distillation.ensemble import ensemble_distribution
from asr_kd.distillation.store import SoftTargetStore
from asr_kd.frames.windows import WindowedFrames
from asr_kd.stages import soft_targets as stage
from asr_kd.stages.soft_targets import make_soft_targets
from asr_kd.workspace.config import load_config
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace

from ..test_pipeline import STAGES, make_recipe, run

OPTIONS = RunOptions(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = make_recipe(tmp_path_factory.mktemp("softening"))
    run(config, STAGES[:4])  # up to the teachers
    return config


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_spread_over_processes_and_killed_they_are_the_same(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, work = load_config(trained), Workspace(trained.parent.parent, trained)
    folder = work.exp("soft_targets")
    found = make_soft_targets(config, work, OPTIONS, nj=1)
    expected = contents(folder)
    shutil.rmtree(folder)

    monkeypatch.setattr(softening, "_LONGEST", 1)  # a run is one batch
    monkeypatch.setattr(stage, "_SMALL", 0)
    assert found.frames > 3 * softening.FRAMES_AT_ONCE
    again = make_soft_targets(config, work, OPTIONS, nj=2)
    assert contents(folder).keys() == expected.keys()
    for name in expected.keys() - {"stamp.json"}:
        assert contents(folder)[name] == expected[name], name
    assert again.retained_mass == pytest.approx(found.retained_mass, rel=1e-12) and again.entries == found.entries
    shutil.rmtree(folder)

    monkeypatch.setattr("asr_kd.io.append_log.COMMIT_SECONDS", 0.0)
    starts: list[int] = []
    own = softening.compute_soft_targets

    def killed_in_the_third(one: softening.Run) -> softening.SoftTargetShard:
        starts.append(one.first)
        if len(starts) == 3:
            raise KeyboardInterrupt
        return own(one)

    monkeypatch.setattr(stage, "compute_soft_targets", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_soft_targets(config, work, OPTIONS, nj=1)
    assert not folder.exists()
    monkeypatch.setattr(softening, "_LONGEST", 3 * softening.FRAMES_AT_ONCE)  # as another version might have it
    make_soft_targets(config, work, OPTIONS, nj=1)
    assert starts[:4] == [0, 2048, 4096, 4096]
    for name in expected.keys() - {"stamp.json"}:
        assert contents(folder)[name] == expected[name], name


def test_they_are_the_teachers_mean_distribution(trained: Path) -> None:
    config, work = load_config(trained), Workspace(trained.parent.parent, trained)
    shutil.rmtree(work.exp("soft_targets"), ignore_errors=True)
    found = make_soft_targets(config, work, OPTIONS)
    data = stage.open_training_set(work)
    teachers = stage.load_model(work.exp("teacher"))
    store = SoftTargetStore(
        work.exp("soft_targets"), temperature=config.soft_targets.temperature, num_frames=data.train.num_frames
    )
    model = teachers.settings
    windows = WindowedFrames(data.train, left=model.left_context, right=model.right_context)
    numbers = torch.arange(0, data.train.num_frames, 97)
    with torch.no_grad():
        full = ensemble_distribution(
            teachers(windows.inputs(numbers)), temperature=config.soft_targets.temperature, mean="arithmetic"
        )
    kept = store.read(numbers.numpy()).log_probabilities
    divergence = float((full.exp() * (full - kept)).sum(-1).mean())
    assert divergence == pytest.approx(found.kl, abs=0.02) and divergence < 0.05
    assert np.isclose(json.loads((work.exp("soft_targets") / "stamp.json").read_text())["metadata"]["kl"], found.kl)

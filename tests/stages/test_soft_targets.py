"""Stage 5: the same store however it is computed, for the systems whose teachers are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from asr_kd.acoustic.model_files import load_model
from asr_kd.distillation import soft_target_worker as worker
from asr_kd.distillation.loss import ensemble_distribution
from asr_kd.distillation.store import SoftTargetStore
from asr_kd.distillation.targets import Teacher
from asr_kd.errors import UserError
from asr_kd.stages import soft_targets as stage
from asr_kd.stages.soft_targets import SystemTargets, make_soft_targets
from asr_kd.stages.train import train
from asr_kd.stages.training_set import open_training_set
from asr_kd.workspace.config import Config

from .toy import HARD, MODEL, OPTIONS, TRAINING, Toy, make_toy, soft

CUT = {"keep_mass": 0.8, "max_entries": 4}
NAME = "teacher,T2,keep_mass=0.8,max_entries=4"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "work")


@pytest.fixture
def config(toy: Toy) -> Config:
    config = toy.config(teacher=HARD | {"members": 2}, distilled=soft(**{"from": "teacher"} | CUT))
    train(config, toy.work, OPTIONS, ["teacher"])
    return config


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_spread_over_processes_and_killed_they_are_the_same(
    toy: Toy, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy.work.targets(NAME)
    (once,) = make_soft_targets(config, toy.work, OPTIONS, nj=1)
    expected = contents(folder)
    shutil.rmtree(folder)

    monkeypatch.setattr(worker, "MAX_SHARD_FRAMES", 1)  # a shard is one utterance
    monkeypatch.setattr(stage, "SERIAL_FRAMES", 0)
    (again,) = make_soft_targets(config, toy.work, OPTIONS, nj=2)
    assert contents(folder).keys() == expected.keys()
    for name in expected.keys() - {"stamp.json"}:
        assert contents(folder)[name] == expected[name], name
    assert again.retained_mass == pytest.approx(once.retained_mass, rel=1e-12) and again.entries == once.entries
    shutil.rmtree(folder)

    monkeypatch.setattr("asr_kd.io.append_log.COMMIT_SECONDS", 0.0)
    first_utterances: list[int] = []
    compute = worker.compute_soft_targets

    def killed_in_the_third(shard: worker.Shard) -> worker.SoftTargetShard:
        first_utterances.append(shard.first)
        if len(first_utterances) == 3:
            raise KeyboardInterrupt
        return compute(shard)

    monkeypatch.setattr(stage, "compute_soft_targets", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_soft_targets(config, toy.work, OPTIONS, nj=1)
    assert not folder.exists()
    monkeypatch.setattr(worker, "MAX_SHARD_FRAMES", 50)  # as another version might have it
    make_soft_targets(config, toy.work, OPTIONS, nj=1)
    assert first_utterances[:4] == [0, 1, 2, 2]
    for name in expected.keys() - {"stamp.json"}:
        assert contents(folder)[name] == expected[name], name


def test_they_are_the_teachers_mean_distribution_and_say_what_is_cut(toy: Toy, config: Config) -> None:
    (result,) = make_soft_targets(config, toy.work, OPTIONS)
    store, teacher = toy.train, load_model(toy.work.exp("teacher"))
    stored = SoftTargetStore(toy.work.targets(NAME), temperature=2.0, num_frames=store.num_frames)
    kl = 0.0
    for utterance in range(len(store.ids)):
        full = ensemble_distribution(teacher.member_log_posteriors(store.normalised(utterance)), temperature=2.0)
        frames = torch.arange(*store.span(utterance).indices(store.num_frames)[:2]).numpy()
        kl += float((full.exp() * (full - stored.read(frames).log_probabilities)).sum())
    assert kl / store.num_frames == pytest.approx(result.kl, rel=0.1) and 1e-5 < result.kl < 0.05
    assert 0.5 < result.retained_mass < 1 and 1 < result.entries <= 4
    metadata = json.loads((toy.work.targets(NAME) / "stamp.json").read_text())["metadata"]
    assert metadata["kl"] == result.kl and metadata["num_senones"] == 6
    assert str(result).startswith(f"soft targets {NAME}: stored; {store.num_frames} frames, ")
    (result,) = make_soft_targets(config, toy.work, OPTIONS)
    assert str(result).startswith(f"soft targets {NAME}: already stored; ")


def test_they_are_made_for_systems_whose_teachers_are_trained(toy: Toy) -> None:
    systems = {
        "teacher": HARD,
        "distilled": soft(**{"from": "teacher"} | CUT),
        "chained": soft(**{"from": "distilled"}),
        "online": soft(**{"from": "teacher", "online": True}),
    }
    config = toy.config(**systems)
    with pytest.raises(UserError, match=r"no teacher is trained yet \(teacher, distilled\); .*asr-kd train --teachers"):
        make_soft_targets(config, toy.work, OPTIONS)
    with pytest.raises(UserError, match=r"teacher is not there yet; make it first: asr-kd train teacher"):
        make_soft_targets(config, toy.work, OPTIONS, ["distilled"])
    train(config, toy.work, OPTIONS, ["teacher"])
    assert [result.folder.name for result in make_soft_targets(config, toy.work, OPTIONS)] == [NAME]
    with pytest.raises(UserError, match=r"distilled is not there yet; make it first: asr-kd train distilled"):
        make_soft_targets(config, toy.work, OPTIONS, ["chained"])
    with pytest.raises(UserError, match=r"online has targets\.online: true"):
        make_soft_targets(config, toy.work, OPTIONS, ["online"])
    with pytest.raises(UserError, match="teacher has no targets in the config"):
        make_soft_targets(config, toy.work, OPTIONS, ["teacher"])
    toy.label(seed=1)
    with pytest.raises(UserError, match=r"exp/teacher was trained on train senones .*asr-kd train teacher"):
        make_soft_targets(config, toy.work, OPTIONS)


def test_teachers_beside_a_student_with_masks_see_its_altered_frames(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the widest context; without masks each teacher has windows of its own, and the student's stay narrow."""
    wide, widths = HARD | {"model": MODEL | {"left_context": 5}}, {}
    for name, training in (("plain", TRAINING), ("masked", TRAINING | {"augment": {"time_masks": 1}})):
        student = soft(**{"from": ["teacher", "wide"], "online": True}) | {"training": training}
        config = toy.config(teacher=HARD, wide=wide, **{name: student})
        train(config, toy.work, OPTIONS, ["teacher", "wide"], nj=1)
        logits, seen = Teacher.logits, []
        with monkeypatch.context() as patch:
            patch.setattr(Teacher, "logits", lambda t, batch: seen.append((t, batch)) or logits(t, batch))  # noqa: B023
            train(config, toy.work, OPTIONS, [name], nj=1)
        widths[name] = {batch.inputs.shape[1] for _, batch in seen}, {t.windows is None for t, _ in seen}
    assert widths == {"plain": ({4}, {True, False}), "masked": ({7}, {True})}


def test_a_teacher_that_was_trained_again_makes_new_targets(toy: Toy, config: Config) -> None:
    make_soft_targets(config, toy.work, OPTIONS)
    larger = toy.config(teacher=HARD | {"members": 3}, distilled=soft(**{"from": "teacher"} | CUT))
    train(larger, toy.work, OPTIONS, ["teacher"])
    assert make_soft_targets(larger, toy.work, OPTIONS)[0].ran
    assert not make_soft_targets(larger, toy.work, OPTIONS)[0].ran


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"members": 1}, "members or seeds"),
        ({"members": 2, "folds": 2}, "folds"),
        ({"members": 2, "training": TRAINING | {"epochs": 3}}, r"training\.epochs"),
        ({"members": 2, "model": MODEL | {"input_dropout": 0.1}}, r"model\.input_dropout"),
        ({"members": 2, "train_fraction": 0.5}, "train_fraction"),
    ],
)
@pytest.mark.parametrize("online", [False, True])
def test_a_teacher_that_was_trained_with_other_settings_than_the_configs_is_refused(
    toy: Toy, config: Config, other: dict[str, Any], difference: str, online: bool
) -> None:
    targets = {"from": "teacher"} | CUT | {"online": online}
    changed = toy.config(teacher=HARD | other, distilled=soft(**targets))
    says = rf"exp/teacher was trained with other settings than the config's teacher \({difference}\); .*train teacher"
    if not online:
        with pytest.raises(UserError, match=says):
            make_soft_targets(changed, toy.work, OPTIONS)
    with pytest.raises(UserError, match=says):
        train(changed, toy.work, OPTIONS, ["distilled"])
    if "training" in other:  # where the teacher may be trained, it is trained again
        trained = train(changed, toy.work, OPTIONS, nj=1)
        ran = [result.folder.name for result in trained if result.ran]
        assert ran[0] == "teacher" and ran[-1] == "distilled" and len(ran) == 3 - online


def test_targets_of_another_teacher_are_not_learnt_from(toy: Toy, config: Config) -> None:
    make_soft_targets(config, toy.work, OPTIONS)
    larger = toy.config(teacher=HARD | {"members": 3}, distilled=soft(**{"from": "teacher"} | CUT))
    train(larger, toy.work, OPTIONS, ["teacher"])
    with pytest.raises(UserError, match=rf"{NAME}: its input teacher changed; make it again: asr-kd soft-targets dist"):
        SystemTargets(larger, toy.work, open_training_set(toy.work), "distilled").provider(torch.device("cpu"))

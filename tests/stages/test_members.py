"""Members of a system that are trained apart are those that are trained side by side."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from asr_kd.acoustic.model_files import load_model
from asr_kd.acoustic.training import read_log
from asr_kd.cli import main
from asr_kd.errors import UserError
from asr_kd.io.stamp import read_stamp
from asr_kd.stages import system_run
from asr_kd.stages.train import merge, merge_finished, train, train_member

from .toy import HARD, MODEL, OPTIONS, TRAINING, Toy, make_toy, soft

DROPOUT = MODEL | {"hidden_dropout": 0.2, "input_dropout": 0.1}
TDNN = {"kind": "tdnn", "width": 16, "dilations": [1, 2], "chunk_frames": 8, "dropout": 0.2}
AUGMENTED = TRAINING | {"augment": {"freq_masks": 1, "freq_width": 2}, "clip_norm": 0.5}
SYSTEMS: dict[str, dict[str, Any]] = {
    "teacher": HARD | {"members": 3, "model": DROPOUT},
    "tdnn": HARD | {"members": 2, "model": TDNN, "training": AUGMENTED},
    "folds": HARD | {"members": 4, "folds": 2, "model": DROPOUT},
    "lda": HARD | {"seeds": 2, "model": MODEL | {"lda_dims": 4}},
    "distilled": soft(**{"from": "teacher"}) | {"seeds": 2, "model": DROPOUT},
    "online": soft(**{"from": "teacher", "online": True}) | {"seeds": 2, "model": TDNN},
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("together"))
    train(toy.config(**SYSTEMS), toy.work, OPTIONS, nj=1)
    return toy


def same(ours: Toy, theirs: Toy, system: str) -> bool:
    """Bit for bit, where the products of one member and of several are one kernel of MKL's or oneDNN's.

    For these few units that is so in torch 1.13, but for the four numbers of a window that discriminants give.
    """
    if torch.__version__.startswith("1.") and system != "lda":
        return ours.weights(system) == theirs.weights(system)
    states = [load_model(each.work.exp(system)).state_dict() for each in (ours, theirs)]
    return all(torch.allclose(states[0][key], states[1][key], atol=1e-5) for key in states[1])


@pytest.fixture
def toy(together: Toy, tmp_path: Path) -> Toy:
    """The same work folder, in which the soft targets and the teacher are there."""
    toy = make_toy(tmp_path / "work")
    for name in ("teacher", "targets"):
        shutil.copytree(together.work.exp(name), toy.work.exp(name))
    return toy


@pytest.mark.parametrize("system", SYSTEMS)
def test_they_are_the_same_in_any_order(together: Toy, toy: Toy, system: str) -> None:
    config, count = toy.config(**SYSTEMS), len(together.weights(system))
    if system == "teacher":
        shutil.rmtree(toy.work.exp("teacher"))
    for member in reversed(range(count)):
        result = train_member(config, toy.work, OPTIONS, system, member)
        assert result.ran and f"{system}, member {member}: trained; 1 x" in str(result)
        assert not train_member(config, toy.work, OPTIONS, system, member).ran
    (merged,) = merge(config, toy.work, OPTIONS, [system])
    assert merged.ran and merged.members == count
    assert same(toy, together, system)
    ours, theirs = (each.work.exp(system) for each in (toy, together))
    assert (ours / "model.yaml").read_text() == (theirs / "model.yaml").read_text()
    assert read_stamp(ours)["digest"] == read_stamp(theirs)["digest"]
    rows, expected = (read_log(folder) for folder in (ours, theirs))
    assert len(rows) == len(expected) == 2
    for row, of_all in zip(rows, expected, strict=True):
        assert row.keys() == of_all.keys()
        assert all(np.allclose(row[key], of_all[key], atol=1e-6) for key in row if "second" not in key)
    assert not toy.work.exp(f"{system}.members").exists()
    assert not merge(config, toy.work, OPTIONS, [system])[0].ran
    assert load_model(toy.work.exp(system)).members == count


def test_large_members_are_trained_side_by_side(together: Toy, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_run, "_LARGE", 0)
    apart: list[list[int]] = []
    before = system_run.SystemRun.apart
    monkeypatch.setattr(
        system_run.SystemRun, "apart", lambda run, *arguments: apart.append(before(run, *arguments)) or apart[-1]
    )
    shutil.rmtree(toy.work.exp("teacher"))
    train(toy.config(**SYSTEMS), toy.work, OPTIONS, ["teacher"], nj=2)
    assert apart == [[0, 1, 2]] and same(toy, together, "teacher")
    assert not toy.work.exp("teacher.members").exists()


def test_what_was_begun_apart_is_ended_apart(together: Toy, toy: Toy) -> None:
    config = toy.config(**SYSTEMS)
    train_member(config, toy.work, OPTIONS, "tdnn", 1)
    made = (toy.work.exp("tdnn.members") / "1" / "stamp.json").stat().st_mtime_ns
    stopped = []

    def note(run: system_run.SystemRun, member: int, options: Any) -> Any:
        stopped.append((toy.work.exp("tdnn.members") / "1" / "stamp.json").stat().st_mtime_ns)
        return train_one(run, member, options)

    train_one, system_run.SystemRun.train_member = system_run.SystemRun.train_member, note  # type: ignore[assignment]
    try:
        train(config, toy.work, OPTIONS, ["tdnn"], nj=1)
    finally:
        system_run.SystemRun.train_member = train_one  # type: ignore[method-assign]
    assert stopped == [made] and same(toy, together, "tdnn")


def test_members_are_kept_where_another_system_is_ready(together: Toy, toy: Toy) -> None:
    config = toy.config(**SYSTEMS)
    for member in (0, 2):
        train_member(config, toy.work, OPTIONS, "folds", member)
    made = {k: (toy.work.exp("folds.members") / str(k) / "stamp.json").read_bytes() for k in (0, 2)}
    seen: list[dict[int, bytes]] = []
    merge_them = system_run.put_together

    def note(*arguments: Any) -> Any:
        seen.append({k: (toy.work.exp("folds.members") / str(k) / "stamp.json").read_bytes() for k in (0, 2)})
        return merge_them(*arguments)

    system_run.put_together = note  # type: ignore[assignment]
    try:
        train(config, toy.work, OPTIONS, ["tdnn", "folds"], nj=2)
    finally:
        system_run.put_together = merge_them
    assert seen == [made] and same(toy, together, "folds")


def test_a_student_s_members_do_not_stand_in_the_way_of_its_teacher(toy: Toy) -> None:
    config = toy.config(**SYSTEMS)
    train_member(config, toy.work, OPTIONS, "distilled", 0)
    shutil.rmtree(toy.work.exp("teacher"))
    merge_finished(config, toy.work)
    assert train(config, toy.work, OPTIONS, ["teacher"], nj=1)[0].ran


def test_what_cannot_be_trained_apart_is_refused(toy: Toy) -> None:
    patient = HARD | {"members": 2, "training": TRAINING | {"patience": 1}}
    systems = SYSTEMS | {"patient": patient, "joined": {"members": ["teacher", "tdnn"]}}
    config = toy.config(**systems)
    with pytest.raises(UserError, match="teacher has 3 models, counted from 0: there is no member 3"):
        train_member(config, toy.work, OPTIONS, "teacher", 3)
    with pytest.raises(UserError, match=r"systems.patient.training.patience ends the training of all members together"):
        train_member(config, toy.work, OPTIONS, "patient", 0)
    with pytest.raises(UserError, match=r"systems.lost takes its models from other systems: no member"):
        merge(toy.config(**systems, lost=HARD | {"model": DROPOUT, "reuse": "teacher"}), toy.work, OPTIONS, ["lost"])
    train_member(config, toy.work, OPTIONS, "tdnn", 0)
    with pytest.raises(UserError, match="tdnn has no member 1 yet; train what is missing: asr-kd train tdnn --con"):
        merge(config, toy.work, OPTIONS, ["tdnn"])
    shutil.rmtree(toy.work.exp("targets"))
    with pytest.raises(UserError, match="asr-kd soft-targets distilled"):
        train_member(config, toy.work, OPTIONS, "distilled", 0)


def command(toy: Toy, *words: str) -> Result:
    options = ["--config", str(toy.work.config_path), "--work-dir", str(toy.work.root)]
    return CliRunner().invoke(main, [*words, *options])


def test_several_commands_may_train_members_at_once_and_the_next_stage_puts_them_together(toy: Toy) -> None:
    shutil.rmtree(toy.work.exp("teacher"))
    shutil.rmtree(toy.work.exp("targets"))
    systems = {name: SYSTEMS[name] for name in ("teacher", "distilled")}
    toy.work.config_path.write_text(json.dumps({"systems": systems}))
    with (toy.work.exp(".lock")).open("w") as lock:  # of a command that trains another member
        fcntl.flock(lock, fcntl.LOCK_SH)
        for member in ("0", "2"):
            assert command(toy, "train", "teacher", "--member", member).exit_code == 0
        refused = command(toy, "soft-targets")
        assert refused.exit_code == 2 and "another command is writing in" in refused.output
        with (toy.work.exp("teacher.members") / ".1.lock").open("w") as of_member:
            fcntl.flock(of_member, fcntl.LOCK_EX)
            refused = command(toy, "train", "teacher", "--member", "1")
            assert refused.exit_code == 2 and "is making" in refused.output and "members/1; wait" in refused.output
    assert "no teacher is trained yet" in command(toy, "soft-targets").output
    assert command(toy, "train", "teacher", "--member", "1").exit_code == 0
    answer = command(toy, "soft-targets")
    assert answer.exit_code == 0 and "stored" in answer.output and len(toy.weights("teacher")) == 3
    for words in (["train", "--member", "0"], ["train", "teacher", "distilled", "--member", "0"], ["train", "--merge"]):
        assert "--member K needs the name of one system" in command(toy, *words).output

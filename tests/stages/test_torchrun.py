"""`torchrun -m asr_kd train`: the processes train each system together, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from asr_kd.acoustic.model_files import load_model
from asr_kd.cli import main
from asr_kd.stages.train import train, train_member

from .toy import HARD, MODEL, OPTIONS, Toy, make_toy, soft

SYSTEMS = {
    "dnn": HARD | {"members": 2, "model": MODEL | {"hidden_dropout": 0.2}},
    "tdnn": HARD | {"model": {"kind": "tdnn", "width": 16, "dilations": [1, 2], "chunk_frames": 8}},
    "teacher": {"members": ["dnn", "tdnn"]},
    "distilled": soft(**{"from": "teacher"}) | {"seeds": 2},
    "copied": HARD | {"model": MODEL | {"hidden_dropout": 0.2}, "reuse": "dnn"},
}


def torchrun(toy: Toy, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "asr_kd"]
    options = ["--config", str(toy.work.config_path), "--work-dir", str(toy.work.root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *words, *options], env=environment, capture_output=True, text=True, check=False)


def test_two_processes_train_a_config_as_one_does(tmp_path: Path) -> None:
    alone, both = make_toy(tmp_path / "alone"), make_toy(tmp_path / "both")
    train(alone.config(**SYSTEMS), alone.work, OPTIONS, nj=1)
    both.work.config_path.write_text(json.dumps({"systems": SYSTEMS}))
    result = torchrun(both, "train", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    lines = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert lines == [
        "dnn",
        "tdnn",
        "teacher",
        "soft targets teacher,T2,keep_mass=1.0,max_entries=6",
        "distilled",
        "copied",
    ]
    for name in SYSTEMS:
        ours, theirs = (load_model(toy.work.exp(name)).state_dict() for toy in (both, alone))
        assert all(torch.allclose(ours[key].float(), theirs[key].float(), atol=1e-4) for key in theirs), name
    assert "training dnn: not made yet" in (both.work.exp("log") / "train.log").read_text()
    again = torchrun(both, "train", "--device", "cpu")
    assert again.returncode == 0 and again.stdout.count("already") == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "unknown"], ": there is no system 'unknown' in the config"),
        (["train", "dnn", "--member", "0"], ": --member and --merge are for commands of their own"),
        (["soft-targets"], ": torchrun is for train; run soft-targets once, without it."),
    ],
)
def test_what_is_wrong_is_a_sentence(tmp_path: Path, words: list[str], says: str) -> None:
    toy = make_toy(tmp_path / "work")
    toy.work.config_path.write_text(json.dumps({"systems": SYSTEMS}))
    result = torchrun(toy, *words)
    # of the first process or of another one: torchrun ends all as soon as one has ended
    assert result.returncode != 0 and says in result.stderr and f"asr-kd {words[0]}" in result.stderr
    assert not list(toy.work.exp("").glob("dnn*"))


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "x"}, {"WORLD_SIZE": "many"}])
def test_variables_that_torchrun_has_not_set_are_one_sentence(tmp_path: Path, variables: dict[str, str]) -> None:
    toy = make_toy(tmp_path / "work")
    toy.work.config_path.write_text(json.dumps({"systems": SYSTEMS}))
    command = ["train", "--config", str(toy.work.config_path), "--work-dir", str(toy.work.root)]
    result = CliRunner().invoke(main, command, env=variables)
    assert result.exit_code == 2 and "LOCAL_WORLD_SIZE are not as torchrun sets them; start with" in result.output


def test_a_rank_that_a_job_script_has_set_means_nothing(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "work")
    toy.work.config_path.write_text(json.dumps({"systems": {"dnn": SYSTEMS["dnn"]}}))
    command = ["train", "--config", str(toy.work.config_path), "--work-dir", str(toy.work.root)]
    result = CliRunner().invoke(main, command, env={"RANK": "3"})
    assert result.exit_code == 0 and "dnn: trained; 2 x" in result.output


def test_members_that_were_trained_apart_are_not_thrown_away(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "work")
    train_member(toy.config(**SYSTEMS), toy.work, OPTIONS, "dnn", 1)
    toy.work.config_path.write_text(json.dumps({"systems": SYSTEMS}))
    result = torchrun(toy, "train", "dnn")
    assert result.returncode != 0 and "members of dnn have been trained apart; train those that are" in result.stderr
    assert (toy.work.exp("dnn.members") / "1").exists()

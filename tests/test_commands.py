"""How a command runs: alone in its work folder, and under which names its seconds and memory are noted."""

import errno
import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from asr_kd.cli import main
from asr_kd.commands import Commands, _key, _locked, _note
from asr_kd.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from asr_kd.commands import _locked

with _locked(Path(sys.argv[1]), "train"):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("train", {"systems": (), "teachers": False, "nj": 2}, "train"),
        ("train", {"systems": (), "teachers": True}, "train --teachers"),
        ("train", {"systems": ("direct", "distilled"), "teachers": False}, "train direct distilled"),
        ("decode", {"systems": ["direct"], "rescore_lm": ()}, "decode"),
        ("decode", {"systems": None, "rescore_lm": ("big=lm.arpa",)}, "decode --rescore-lm"),
    ],
)
def test_parts_of_a_stage_that_run_apart_are_noted_apart(name, options, key):
    assert _key(name, options) == key


@pytest.mark.parametrize("damaged", ['{"prepare": 2.', "[]", b"\xff"])
def test_damaged_notes_are_named(tmp_path: Path, damaged: str | bytes) -> None:
    file = tmp_path / "seconds.json"
    _note(file, "prepare", 2.5)
    _note(file, "align", 4.0)
    assert json.loads(file.read_text()) == {"prepare": 2.5, "align": 4.0}
    file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(
        UserError, match=r"seconds\.json is damaged; delete it: only what earlier commands noted .* lost\."
    ):
        _note(file, "train", 1.0)


# --- the lock of a work folder


def run(name: str, config: Path) -> Result:
    return CliRunner().invoke(main, [name, "--config", str(config), "--work-dir", str(config.parent / "work")])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text("seed: 1\n")
    return tmp_path / "c.yaml"


@pytest.mark.slow
def test_a_second_command_that_writes_in_a_work_folder_stops(config: Path) -> None:
    lock = config.parent / "work" / "exp" / ".lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        result = run("train", config)
        assert result.exit_code == 2
        (line,) = result.output.splitlines()
        assert line.startswith(f"asr-kd train: another command is writing in {config.parent / 'work'} (asr-kd train, ")
        assert f"process {holder.pid} on " in line
        assert "how much speech there is" in run("plan", config).output  # it only reads
        holder.kill()
    assert "has no systems to train" in run("train", config).output  # a killed process leaves no lock


def test_where_shards_run_may_be_said_by_variables(config: Path) -> None:
    queue = config.parent / "queue.yaml"
    queue.write_text("[1, 2]")
    command = ["features", "--config", str(config), "--work-dir", str(config.parent / "work")]
    variables = {"ASR_KD_EXECUTOR": "dask:slurm", "ASR_KD_EXECUTOR_CONFIG": str(queue)}
    result = CliRunner().invoke(main, command, env=variables)
    says = f"asr-kd features: {queue} must hold options by their names, such as `memory: 8GB`.\n"
    assert (result.exit_code, result.output) == (2, says)
    result = CliRunner().invoke(main, [*command, "--executor", "processes"], env=variables)
    assert "--executor-config is for --executor dask:slurm and other batch systems." in result.output


def test_a_process_that_a_command_started_does_not_keep_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "exp" / ".lock"
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with _locked(file, "train"):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout is not None and child.stdout.readline()
    try:
        with _locked(file, "decode"):
            assert file.read_text().startswith("asr-kd decode, process ")
    finally:
        child.communicate(b"\n")


def test_where_the_file_system_has_no_locks_the_command_goes_on(tmp_path: Path, monkeypatch, caplog) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with _locked(tmp_path / "exp" / ".lock", "train"):
        assert "cannot be locked (No locks available)" in caplog.text


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.parametrize("name", ["", "data", "exp"])
def test_a_file_where_a_folder_belongs_is_named_and_stays(config: Path, tmp_path: Path, name: str) -> None:
    """Nothing advises to delete what lies around it."""
    work = tmp_path / "work"
    file = work / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    result = call("features", "--config", config, "--work-dir", work)
    assert result.exit_code == 2 and "is a file" in result.output and "Traceback" not in result.output
    assert "delete" not in result.output and file.read_text() == "mine"


def test_a_work_folder_below_a_file_is_one_sentence(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = call("features", "--config", config, "--work-dir", tmp_path / "file" / "work")
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "Not a directory; there is a file where a folder belongs" in result.output


@pytest.mark.parametrize("command", ["plan", "features"])
def test_what_only_reads_needs_no_right_to_write(config: Path, tmp_path: Path, monkeypatch, command: str) -> None:
    """As on a read-only disk, also for root."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = call(command, "--config", config, "--work-dir", tmp_path)
    assert result.exit_code == 2 and "Traceback" not in result.output
    if command == "plan":
        assert "make the cuts first: asr-kd prepare" in result.output
    else:
        assert "exp: Read-only file system; give a folder on another disk" in result.output


@pytest.mark.parametrize("name", ["../../../outside", "a/b", "", ".."])
def test_a_sweep_stays_in_its_folder(config: Path, tmp_path: Path, name: str) -> None:
    grid = "systems.direct.training.epochs=1"
    config.write_text("corpus: {name: folder}\nsystems: {direct: {}}\n")
    result = call(
        "sweep", "--config", config, "--work-dir", tmp_path, "--name", name, "--grid", grid, "--system", "direct"
    )
    assert result.exit_code == 2 and "this cannot name a sweep" in result.output


@pytest.mark.parametrize("command", [("train", "--teachers"), ("soft-targets",)])
def test_where_nothing_is_distilled_the_stages_of_teachers_have_nothing_to_do(config: Path, command: tuple) -> None:
    """run.sh goes on to the stages after them."""
    config.write_text("systems: {direct: {model: {layers: 1, width: 8}}}\n")
    result = call(*command, "--config", config, "--work-dir", config.parent / "work")
    assert result.exit_code == 0 and result.output.endswith(": nothing to do\n")


@pytest.mark.parametrize(
    ("allocate", "says"),
    [
        (lambda: torch.empty(2**46), "you tried to allocate 281474976710656 bytes"),
        (lambda: torch.empty(2**62), "Storage size calculation overflowed"),
        (lambda: np.empty(2**46), "Unable to allocate 512. TiB"),
        (lambda: bytearray(2**46), "MemoryError"),
    ],
)
def test_memory_that_is_not_there_is_one_sentence_with_advice(allocate: Callable[[], object], says: str) -> None:
    group = Commands("asr-kd")
    group.add_command(click.Command("train", callback=allocate))
    result = CliRunner().invoke(group, ["train"])
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert result.output.startswith("asr-kd train: there is not enough memory (") and says in result.output
    assert "lower width, layers, members, batch_size" in result.output


def test_other_errors_of_the_runtime_stay_what_they_are() -> None:
    group = Commands("asr-kd")
    group.add_command(click.Command("train", callback=lambda: torch.ones(2) @ torch.ones(3)))
    assert isinstance(CliRunner().invoke(group, ["train"]).exception, RuntimeError)

"""What recipes/librispeech/run.sh makes of its options: a command that only prints stands in for asr-kd."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINI = ("--config", "recipes/librispeech/conf/mini.yaml", "--work-dir", "w", "--nj", "1")


@pytest.fixture
def run(tmp_path: Path):
    """-> {stage's name: its words}, of a recipe that is run with these options."""
    (tmp_path / "recipes/librispeech").mkdir(parents=True)
    shutil.copy(ROOT / "recipes/librispeech/run.sh", tmp_path / "recipes/librispeech")
    shutil.copytree(ROOT / "local", tmp_path / "local")
    command = tmp_path / "bin" / "asr-kd"
    command.parent.mkdir()
    command.write_text("#!/usr/bin/env bash\nprintf '%s|' \"$@\"\necho\n")
    command.chmod(0o755)

    def call(*options: str) -> dict[str, list[str]]:
        done = subprocess.run(
            ["bash", "recipes/librispeech/run.sh", *MINI, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
        )
        lines = [line.split("|")[:-1] for line in done.stdout.splitlines()]
        return {words[0]: words[5:] for words in lines}

    return call


def test_without_a_corpus_all_of_it_is_fetched(run) -> None:
    assert run("--stop-stage", "0") == {"download": ["--lexicon", "--lm", "3-gram.pruned.3e-7"]}
    assert run("--stop-stage", "0", "--lexicon", "l.txt", "--lm-text", "t.gz") == {"download": []}


def test_beside_a_corpus_at_hand_only_what_is_asked_for_is_fetched(run, tmp_path: Path) -> None:
    mine = ("--corpus-dir", "c")
    assert run("--stop-stage", "0", *mine) == {}
    goal = ["--no-corpus", "--lexicon", "--lm", "3-gram.pruned.3e-7"]
    assert run("--stop-stage", "0", *mine, "--openslr", "true") == {"download": goal}
    assert run("--stop-stage", "0", *mine, "--rescore-lm", "3-gram") == {"download": ["--no-corpus", "--lm", "3-gram"]}
    (tmp_path / "w/download").mkdir(parents=True)
    (tmp_path / "w/download/librispeech-lexicon.txt").touch()
    assert run("--stage", "1", "--stop-stage", "1", *mine)["prepare"][-2:] == [
        "--lexicon", "w/download/librispeech-lexicon.txt",
    ]  # fmt: skip


def test_parts_and_speakers_are_passed_on_to_every_command_that_reads_the_corpus(run) -> None:
    only = ("--stage", "1", "--stop-stage", "1", "--corpus-dir", "c")
    assert run(*only)["prepare"] == ["--corpus-dir", "c", "--nj", "1"]
    assert run(*only, "--dev-speakers", "7")["prepare"] == ["--dev-speakers", "7", "--corpus-dir", "c", "--nj", "1"]
    assert run(*only, "--dev-parts", "")["prepare"] == ["--set", "dev=", "--corpus-dir", "c", "--nj", "1"]
    parts = ("--train-parts", "a,b", "--dev-parts", "d", "--test-parts", "t", "--sets", "x=x1,x2 y=y1")
    sets = ["x=x1,x2", "y=y1", "dev=d", "train=a,b", "test=t"]
    expected = [word for value in sets for word in ("--set", value)]
    assert run(*only, *parts)["prepare"] == [*expected, "--corpus-dir", "c", "--nj", "1"]
    assert run("--stop-stage", "0", *parts)["download"][: len(expected)] == expected


def test_models_of_a_second_pass_are_files_or_names(run, tmp_path: Path) -> None:
    (tmp_path / "own model.arpa").touch()
    result = run("--stage", "7", "--stop-stage", "7", "--rescore-lm", "own model.arpa,3-gram.pruned.1e-7")
    assert result["decode"][2:] == [
        "--rescore-lm", "own model.arpa", "--rescore-lm", "w/download/3-gram.pruned.1e-7.arpa.gz",
    ]  # fmt: skip
    assert run("--stage", "7", "--stop-stage", "7")["decode"] == ["--nj", "1"]
    assert run("--stage", "7", "--stop-stage", "7", "--decoder", "k2")["decode"] == ["--decoder", "k2", "--nj", "1"]
    for refused in (("--rescore-lm", "typo.arpa"), ("--rescore-lm", "own model.arpa", "--decoder", "kaldi")):
        with pytest.raises(subprocess.CalledProcessError) as error:
            run("--stage", "1", *refused)
        assert error.value.returncode == 2 and error.value.stdout == "" and "--rescore-lm" in error.value.stderr


def test_a_model_fetched_for_the_second_pass_is_not_the_first_ones(run, tmp_path: Path) -> None:
    (tmp_path / "w/download").mkdir(parents=True)
    (tmp_path / "w/download/3-gram.pruned.3e-7.arpa.gz").touch()
    only = ("--stage", "1", "--stop-stage", "1", "--corpus-dir", "c")
    assert "--lm" in run(*only)["prepare"]
    assert "--lm" not in run(*only, "--rescore-lm", "3-gram.pruned.3e-7")["prepare"]

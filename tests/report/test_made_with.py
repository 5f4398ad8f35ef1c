"""A report names the commit and the machine that it was made on, as far as they can be known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import asr_kd
from asr_kd.report.made_with import made_with

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: Some  Processor <9>
flags\t\t: fpu avx2 avx512f avx512_bf16

processor\t: 1
"""


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_clone_has_its_commit_and_says_where_it_was_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "One")
    git(tmp_path, "tag", "v9")  # which says less than the commit
    commit = git(tmp_path, "rev-parse", "--short=10", "HEAD")
    assert made_with(tmp_path).commit == commit
    (tmp_path / "file").write_text("2")
    assert made_with(tmp_path).commit == f"{commit}-dirty"


def test_without_a_clone_or_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_with(tmp_path).commit == ""
    (tmp_path / ".git").mkdir()  # of no repository
    assert made_with(tmp_path).commit == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert made_with().commit == ""


def test_the_processor_is_named_with_what_it_multiplies(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    here = made_with(tmp_path, tmp_path / "cpuinfo")
    assert here.processor == "Some  Processor <9> with avx512_bf16"
    assert here.asr_kd == asr_kd.__version__ and here.cores >= 1
    assert here.torch.partition("+")[0] == torch.__version__.partition("+")[0]
    assert made_with(tmp_path, tmp_path / "none").processor  # elsewhere than on Linux

"""CONTRIBUTING.md's way to see that a change did not change results: the same code gives the same files."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from . import test_documents

ROOT = Path(__file__).parents[1]


def test_the_same_code_gives_the_same_files_and_a_difference_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *runs, compare = test_documents.commands(ROOT / "CONTRIBUTING.md", r"(?:python -m tests|diff )")
    assert [line.split()[-1] for line in runs] == ["before", "after"]
    for line in runs:
        python, option, module, folder = shlex.split(line)
        assert (python, option, module) == ("python", "-m", "tests.recipe")
        monkeypatch.setattr(sys, "argv", [module, folder])
        monkeypatch.delitem(sys.modules, module, raising=False)  # it runs in this process, which has loaded torch
        runpy.run_module(module, run_name="__main__")
    assert _printed(compare) == ""
    net = Path("after/exp/distilled/member_1.safetensors")
    contents = net.read_bytes()
    net.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    assert re.fullmatch(r"Files before/(\S+) and after/\1 differ\n", _printed(compare))


def _printed(line: str) -> str:
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    assert done.returncode in (0, 1), done.stderr
    return done.stdout

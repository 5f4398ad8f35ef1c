"""A process on another machine, whose file system may still show what was there before, does not answer from that."""

from __future__ import annotations

import json
import pickle
import platform
import shutil
from pathlib import Path

import pytest

from asr_kd.errors import UserError
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.workspace.same_files import OnSameFiles


def doubled(number: int) -> int:
    return 2 * number


@pytest.fixture
def artefacts(tmp_path: Path) -> list[Path]:
    """Two folders with stamps, a stamp by itself, and a folder without one."""
    paths = [tmp_path / name for name in ("model", "graph", "labels.stamp.json", "no-stamp")]
    for path in paths:
        if path.suffix == "":
            path.mkdir()
    for number, path in enumerate(paths[:3]):
        Stamp("make", {"number": number}, {}).write(path if path.suffix else path / "stamp.json")
    return paths


def elsewhere(function: OnSameFiles[int, int]) -> OnSameFiles[int, int]:
    """As another process gets it."""
    copy: OnSameFiles[int, int] = pickle.loads(pickle.dumps(function))
    return copy


def test_the_same_files_are_looked_at_once(artefacts: list[Path]) -> None:
    function = OnSameFiles(doubled, artefacts)
    assert function(1) == 2
    there = elsewhere(function)
    assert there(2) == 4
    shutil.rmtree(artefacts[0])
    assert there(3) == 6


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_artefact_that_is_another_one_is_named(artefacts: list[Path], number: int) -> None:
    function = elsewhere(OnSameFiles(doubled, artefacts))
    path = artefacts[number]
    was = read_stamp(path)
    Stamp("make", {"number": 9}, {}).write(path if path.suffix else path / "stamp.json")
    now = read_stamp(path)
    assert was is not None and now is not None
    message = rf"^{path} is {now['digest']} on {platform.node()}, but {was['digest']} where the work was begun; run"
    with pytest.raises(UserError, match=message):
        function(1)


def test_weights_that_were_trained_again_are_others(artefacts: list[Path]) -> None:
    function = elsewhere(OnSameFiles(doubled, artefacts))
    stamp = json.loads((artefacts[0] / "stamp.json").read_text())
    (artefacts[0] / "stamp.json").write_text(json.dumps(stamp | {"metadata": {"contents": "abc"}}))
    with pytest.raises(UserError, match=f"{stamp['digest']}-abc on .* but {stamp['digest']} where"):
        function(1)


def test_an_artefact_that_is_not_there_is_named(artefacts: list[Path]) -> None:
    function = elsewhere(OnSameFiles(doubled, artefacts))
    shutil.rmtree(artefacts[1])
    with pytest.raises(UserError, match=f"{artefacts[1]} is not there on "):
        function(1)

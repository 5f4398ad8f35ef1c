"""Progress: what a log file gets, and what a terminal gets."""

import fcntl
import os
import pty
import re
import struct
import termios

import pytest

from asr_kd.io import progress
from asr_kd.io.progress import progress_bar


def test_a_log_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    with progress_bar("teacher 1", 4000, "frame", initial=1000, unit_scale=True, position=1) as bar:
        bar.set_postfix({"loss": "1.250"}, refresh=False)
        for _ in range(3):
            bar.update(1000)
    lines = capsys.readouterr().err.splitlines()
    form = r"\d\d:\d\d:\d\d teacher 1: (\d+) %, \d\.00k of 4\.00k, .+frame/s, [\d:?]+ left(, loss=1.250)?"
    matches = [re.fullmatch(form, line) for line in lines]
    assert all(matches), lines
    shares = [int(match[1]) for match in matches if match]
    assert shares[0] == 25 and shares[-1] == 100 and shares == sorted(shares)


def test_what_has_no_end_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    assert list(progress_bar("reading text", unit="line", items=iter("abc"))) == ["a", "b", "c"]
    assert re.search(r"reading text: 3, .+line/s$", capsys.readouterr().err)


def test_short_work_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar("points", items=[1, 2])) == [1, 2]
    assert list(progress_bar(None, items=[1, 2])) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with open(follower, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        for _ in progress_bar("points", items=[1, 2]):
            pass
        terminal.flush()
        drawn = os.read(leader, 10000).decode()
    os.close(leader)
    assert "\rpoints:   0%|" in drawn  # a read may end before what follows

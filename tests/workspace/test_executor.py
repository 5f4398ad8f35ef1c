"""Shards over processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr_kd.errors import FullDiskError, UserError
from asr_kd.io.files import full_disk_is_an_error
from asr_kd.io.folders import resuming_folder
from asr_kd.io.stamp import Stamp
from asr_kd.workspace import executor
from asr_kd.workspace.executor import parallel_map, running_on

from .shards import WAIT, die, note_and_fail_at_0


@pytest.mark.slow
@pytest.mark.parametrize("nj", [1, 2])
def test_answers_come_in_the_order_of_the_pieces(nj: int) -> None:
    assert list(parallel_map(math.factorial, range(5), nj=nj)) == [1, 1, 2, 6, 24]


def complain(shard: int) -> int:
    logging.getLogger("asr_kd.of_a_helper").warning("shard %d is odd", shard)
    return shard


@pytest.mark.slow
def test_what_helpers_log_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    assert list(parallel_map(complain, range(4), nj=2)) == [0, 1, 2, 3]
    assert sorted(record.getMessage() for record in caplog.records) == [f"shard {k} is odd" for k in range(4)]
    assert {record.process for record in caplog.records}.isdisjoint({os.getpid()})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_pieces_of_a_killed_helper_are_done_again(tmp_path: Path) -> None:
    shards = [(str(tmp_path), number, 1) for number in range(6)]
    assert list(parallel_map(die, shards, nj=2)) == list(range(6))
    assert len(list(tmp_path.glob("*.death"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_helpers_that_are_killed_again_are_one_sentence(tmp_path: Path) -> None:
    shards = [(str(tmp_path), number, 99) for number in range(6)]
    with pytest.raises(
        UserError, match=r"killed twice, at shard \d of 6, most often because memory ran out; .*lower --nj"
    ):
        list(parallel_map(die, shards, nj=2))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_what_was_finished_before_helpers_were_killed_is_kept(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    stamp = Stamp("x", {}, {})
    with pytest.raises(UserError, match="killed twice"), resuming_folder(tmp_path / "made", stamp) as folder:
        for number in parallel_map(die, [(str(deaths), number, 99) for number in range(6)], nj=2):
            (folder / f"{number}.done").touch()
    with resuming_folder(tmp_path / "made", stamp) as folder:
        assert (folder / "0.done").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
@pytest.mark.parametrize("busy", ["note_and_wait", "note_and_hold"])
def test_helpers_end_with_a_killed_parent(busy: str, tmp_path: Path) -> None:
    code = (
        f"from asr_kd.workspace.executor import parallel_map; from shards import {busy}\n"
        "if __name__ == '__main__':\n"
        f"    list(parallel_map({busy}, [({str(tmp_path)!r}, k) for k in range(4)], nj=2))"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}) as parent:
        _until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        helpers = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
        assert all(_runs(pid) for pid in helpers)
        parent.send_signal(signal.SIGKILL)
    _until(lambda: not any(_runs(pid) for pid in helpers))


def _until(true) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """An orphan that has ended may stay as a zombie where nothing reaps it."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.slow
def test_where_one_fails_those_that_wait_do_not_begin(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the first shard"):
        list(parallel_map(note_and_fail_at_0, [(str(tmp_path), number) for number in range(20)], nj=2))
    begun = {path.stem for path in tmp_path.glob("*.begun")}
    assert len(begun) < 10
    assert {path.stem for path in tmp_path.glob("*.ended")} == begun - {"0"}  # what has begun was waited for


@pytest.mark.slow
def test_what_is_interrupted_ends_and_nothing_else_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.workspace.shards", str(tmp_path)]
    process = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    try:
        while len(list(tmp_path.glob("*.begun"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=WAIT / 2) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert {path.stem for path in tmp_path.glob("*.begun")} == {"0", "1"}


def test_full_shared_memory_is_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another program filled /dev/shm: no semaphore can be made."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    says = "^/dev/shm, the memory that processes share, is full; delete .*, or run the same command again with --nj 1"
    with pytest.raises(FullDiskError, match=says), full_disk_is_an_error(Path("work")):
        list(parallel_map(math.factorial, range(5), nj=2))
    assert list(parallel_map(math.factorial, range(5), nj=1)) == [1, 1, 2, 6, 24]


@pytest.mark.parametrize(("free", "jobs"), [(2.9e9, 2), (0.5e9, 1), (64e9, 8), (None, 8)])
def test_no_more_processes_run_by_default_than_memory_suffices_for(
    free: float | None, jobs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor, "usable_cores", lambda: 8)
    monkeypatch.setattr(executor, "available_memory", lambda: free)
    with running_on("processes", None, tmp_path) as at_once:
        assert at_once == jobs
    assert (f"{jobs} of 8 cores are used, since memory is short; --nj says otherwise" in caplog.text) == (jobs < 8)


@pytest.mark.parametrize(
    ("spec", "nj", "free", "jobs", "says"),
    [
        ("processes", 8, 2.9e9, 8, ""),  # it fits, if each needs little
        ("processes", 64, None, 8, "64 processes are too many for the cores that may be used (8): --nj 8 is taken"),
        ("processes:64", 2, 64e9, 8, "64 processes are too many for the cores that may be used (8): --nj 8 is taken"),
        ("processes", 8, 1e9, 3, "8 processes are too many for the free memory (1.0 GB): --nj 3 is taken"),
        ("processes:2", None, 0.1e9, 1, "2 processes are too many for the free memory (100.0 MB): --nj 1 is taken"),
        ("processes", 1, 0.1e9, 1, ""),
    ],
)
def test_no_more_processes_run_than_there_are_cores_and_memory_for(
    spec: str, nj: int | None, free: float | None, jobs: int, says: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(executor, "usable_cores", lambda: 8)
    monkeypatch.setattr(executor, "available_memory", lambda: free)
    with running_on(spec, None, tmp_path, nj) as at_once:
        assert at_once == jobs
    assert [record.getMessage().startswith(says) for record in caplog.records] == ([True] if says else [])

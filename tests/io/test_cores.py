"""Cores: those of control groups, those that others use, and the threads that follow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr_kd.errors import UserError
from asr_kd.io import cores
from asr_kd.io.cores import LoadWatch, Threads, choose_threads, taken_cores, usable_cores


def group(root: Path, line: str, **files: str) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(f"4:memory:/x\n{line}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_cfs", ".cfs").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_quota_of_the_group_or_of_one_above_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores(tmp_path) == 8
    group(tmp_path, "0::/a/b", a__b__cpu_max="max 100000")
    assert usable_cores(tmp_path) == 8
    group(tmp_path, "0::/a/b", a__cpu_max="350000 100000")
    assert usable_cores(tmp_path) == 3
    group(tmp_path, "0::/a/b", a__b__cpu_max="50000 100000")
    assert usable_cores(tmp_path) == 1  # half a core is one process
    group(tmp_path, "2:cpu,cpuacct:/a", cpu__a__cpu_cfs_quota_us="-1", cpu__a__cpu_cfs_period_us="100000")
    assert usable_cores(tmp_path) == 8
    group(tmp_path, "2:cpu,cpuacct:/a", cpu__a__cpu_cfs_quota_us="200000")
    assert usable_cores(tmp_path) == 2
    (tmp_path / "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us").write_text("?")
    assert usable_cores(tmp_path) == 8


def test_what_others_keep_busy_is_what_the_kernel_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    stat = tmp_path / "stat"
    rows = (
        "cpu  9 9 9 9 9\ncpu0 {} 0 10 {} 5 0 0 0 0 0\ncpu1 {} 0 0 0 0 0 0 0 0 0\ncpu2 {} 0 0 {} 0 0 0 0 0 0\nintr 1\n"
    )
    stat.write_text(rows.format(100, 100, 0, 50, 50))
    # core 0 works for three quarters of the time, core 2 does not, and core 1 is another's
    monkeypatch.setattr(cores.time, "sleep", lambda _: stat.write_text(rows.format(175, 125, 100, 50, 150)))
    assert taken_cores(stat=stat) == pytest.approx(0.75)
    assert taken_cores(stat=tmp_path / "none") == 0


def test_threads_follow_what_others_leave_and_own_work_is_not_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    stat, now = tmp_path / "stat", {"wall": 0.0, "own": 0.0}
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    busy = [0, 0, 0, 0]  # ticks, of which a second has a hundred
    monkeypatch.setattr(cores.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(cores.time, "process_time", lambda: now["own"])

    def pass_time(seconds: float, shares: list[float], own: float) -> None:
        now["wall"] += seconds
        now["own"] += own
        for core, share in enumerate(shares):
            busy[core] += round(100 * seconds * share)
        ticks = round(100 * now["wall"])
        stat.write_text("".join(f"cpu{core} {work} 0 0 {ticks - work} 0\n" for core, work in enumerate(busy)))

    pass_time(0, [0] * 4, 0)
    watch = LoadWatch(seconds=5, stat=stat)
    pass_time(4.9, [1] * 4, 19.6)
    assert watch.threads() is None
    pass_time(0.1, [1] * 4, 0.4)
    assert watch.threads() == 4  # all of it is its own
    pass_time(5, [1] * 4, 15)  # others have a quarter of it
    assert watch.threads() == 3
    pass_time(5, [1] * 4, 5)
    assert watch.threads() == 1
    pass_time(5, [1] * 4, 0)
    assert watch.threads() == 1
    pass_time(5, [1, 0, 0, 0], 5)
    assert watch.threads() == 4


@pytest.mark.parametrize(("count", "others"), [(2, 1), (2, 3), (4, 1), (4, 3), (8, 5), (8, 8), (16, 14), (16, 0)])
def test_on_a_fair_scheduler_no_core_is_fought_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, others: int
) -> None:
    """Programs of one thread each come when the net has all cores: in the end it has those that are left."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
    monkeypatch.setattr(cores, "usable_cores", lambda: count)
    stat, now = tmp_path / "stat", {"wall": 0.0, "own": 0.0}
    monkeypatch.setattr(cores.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(cores.time, "process_time", lambda: now["own"])
    busy, threads = 0.0, count

    def write() -> None:  # the load is spread over all cores
        work, ticks = round(100 * busy / count), round(100 * now["wall"])
        stat.write_text("".join(f"cpu{core} {work} 0 0 {ticks - work} 0\n" for core in range(count)))

    write()
    watch = LoadWatch(seconds=5, stat=stat)
    for _ in range(12):
        share = min(1.0, count / (threads + others))
        now["wall"] += 5
        now["own"] += 5 * share * threads
        busy += 5 * share * (threads + others)
        write()
        chosen = watch.threads()
        assert chosen is not None
        threads = chosen
    left = max(1, count - others)
    assert left <= threads <= left + (count > 8)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat")
def test_a_busy_program_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None and busy.stdout.readline()
        assert taken_cores() > 0.5
        busy.kill()


@pytest.mark.parametrize(
    ("asked", "variable", "taken", "threads", "says"),
    [
        (3, None, 3.9, "3", ""),
        (3, "1", 0, "3", ""),
        (64, "1", 0, "4", "--threads 64 is more than the 4 cores that this process may use: 4 threads are used"),
        (None, "2", 3.9, "2", ""),
        (None, "4,2", 0, "4,2", ""),
        (
            None,
            "64",
            0,
            "4",
            "OMP_NUM_THREADS=64 is more than the 4 cores that this process may use: 4 threads are used",
        ),
        (None, None, 0.3, "4", ""),
        (None, None, 1.2, "3", "other programs keep 1 of 4 cores busy: --threads 3 is taken"),
        (None, None, 9.9, "1", "other programs keep 4 of 4 cores busy: --threads 1 is taken"),
    ],
)
def test_threads_are_those_asked_for_or_as_many_as_cores_are_free(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, variable: str | None, taken: float, threads: str, says: str
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    monkeypatch.setattr(cores, "_allowed", lambda: 4)
    monkeypatch.setattr(cores, "taken_cores", lambda: taken)
    environment = {} if variable is None else {"OMP_NUM_THREADS": variable}
    assert choose_threads(asked, environment) == Threads(follow_load=asked is None and variable is None, remark=says)
    assert environment == {"OMP_NUM_THREADS": threads}


@pytest.mark.parametrize("value", ["", "many", "-3", "0", "2.5"])
def test_what_is_no_number_of_threads_is_one_sentence(value: str) -> None:
    with pytest.raises(UserError, match=rf"OMP_NUM_THREADS={value}: it must be a number of threads, at least 1"):
        choose_threads(None, {"OMP_NUM_THREADS": value})


def test_cores_beyond_a_quota_may_be_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    monkeypatch.setattr(cores, "_allowed", lambda: 64)
    environment: dict[str, str] = {}
    for taken, threads in ((10.0, "4"), (62.0, "2"), (64.0, "1")):
        monkeypatch.setattr(cores, "taken_cores", lambda taken=taken: taken)
        choose_threads(None, environment)
        assert environment.pop("OMP_NUM_THREADS") == threads

"""A disk that is too small; the memory that is free; that of a process tree, where what is shared counts once."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from asr_kd.errors import UserError
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import available_memory, check_disk, tree_memory

MEBIBYTE = 1 << 20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_human_bytes() -> None:
    assert [human_bytes(n) for n in (0, 999, 1500, 36e6, 2.9e9, 5e15)] == [
        "0 bytes", "999 bytes", "1.5 kB", "36.0 MB", "2.9 GB", "5000.0 TB",
    ]  # fmt: skip


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr_kd.io.resources.shutil.disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    check_disk(tmp_path / "not" / "there" / "yet", 5e6)
    with pytest.raises(UserError, match=r"yet needs 6.0 MB of disk, but 5.0 MB are free; free some space"):
        check_disk(tmp_path / "not" / "there" / "yet", 6e6)
    assert list(tmp_path.iterdir()) == []
    partial = tmp_path / ".yet.partial"
    partial.mkdir()
    (partial / "begun").write_bytes(bytes(1_000_000))
    check_disk(tmp_path / "yet", 6e6)  # a killed run has written the first million bytes


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_memory_is_the_machines_where_no_group_limits_it(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    write(tmp_path, proc__meminfo="MemTotal:  9000 kB\nMemAvailable:  5000 kB\n")
    assert available_memory(tmp_path) == 5000 * 1024
    write(tmp_path, proc__self__cgroup="0::/user/job\n", **{"sys__fs__cgroup__user__memory.max": "max\n"})
    write(tmp_path, **{"sys__fs__cgroup__user__memory.current": "1000\n"})
    assert available_memory(tmp_path) == 5000 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_that_of_the_tightest_control_group(tmp_path: Path, version: int) -> None:
    write(tmp_path, proc__meminfo="MemAvailable:  5000 kB\n")
    top = "sys/fs/cgroup" + ("" if version == 2 else "/memory")
    limit, usage = ("memory.max", "memory.current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    limit, usage = (name if name.startswith("memory") else f"memory.{name}" for name in (limit, usage))
    write(
        tmp_path, proc__self__cgroup="0::/user/job\n" if version == 2 else "4:cpu,memory:/user/job\n1:name=systemd:/\n"
    )
    write(tmp_path, **{f"{top}/user/job/{limit}": "3000000\n", f"{top}/user/job/{usage}": "1000000\n"})
    write(
        tmp_path,
        **{
            f"{top}/user/job/memory.stat": "anon 7\n"
            + "".join(
                f"{name} {size}\n"
                for name, size in (
                    ("active_file", 100_000),
                    ("inactive_file", 200_000),
                    ("total_active_file", 100_000),
                    ("total_inactive_file", 200_000),
                )
            )
        },
    )
    assert available_memory(tmp_path) == 2_300_000
    write(tmp_path, **{f"{top}/user/{limit}": "1500000\n", f"{top}/user/{usage}": "1400000\n"})  # of all its jobs
    assert available_memory(tmp_path) == 100_000


def test_this_system_says_how_much_memory_there_is() -> None:
    free = available_memory()
    assert free is None or 1e6 < free < 1e15


def test_the_tree_is_walked_through_all_threads_and_generations(tmp_path: Path) -> None:
    files = {
        "self/task/1/children": "20 ",
        "self/task/2/children": "30 99 ",  # 99 has ended
        "self/smaps_rollup": "00400000-7fff [rollup]\nRss:  5000 kB\nPss:  1000 kB\n",
        "20/task/20/children": "21",
        "20/smaps_rollup": "Rss: 900 kB\nPss: 100 kB\n",
        "21/status": "Name: x\nVmHWM: 999 kB\nVmRSS: 10 kB\n",
        "30/task/30/children": "",
        "30/smaps_rollup": "Pss: 1 kB\n",
        "40/smaps_rollup": "Pss: 5000 kB\n",  # someone else's
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert tree_memory("self", tmp_path) == 1111 * 1024
    assert tree_memory("20", tmp_path) == 110 * 1024


HOLDERS = """
import subprocess, sys, time
from asr_kd.io.resources import MemoryMeter
hold = "import sys; x = bytearray(60 << 20); x[::4096] = b'1' * len(x[::4096]); print(flush=True); sys.stdin.read()"
with MemoryMeter(seconds=0.05) as meter:
    for _ in range(int(sys.argv[2])):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        helpers = [subprocess.Popen([sys.executable, "-c", hold], **pipes) for _ in range(int(sys.argv[1]))]
        for helper in helpers:
            helper.stdout.readline()
        time.sleep(0.5)  # several samples
        for helper in helpers:
            helper.communicate()
print(meter.peak)
"""
SHORT_PEAK = """
from asr_kd.io.resources import MemoryMeter
with MemoryMeter(seconds=60) as meter:
    before = meter.peak
    x = bytearray(300 << 20)
    x[::4096] = b"1" * len(x[::4096])
    del x
print(meter.peak - before)
"""


def output(script: str, *arguments: int) -> int:
    """Of a process of its own: this one may be large."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@linux
def test_helpers_that_run_at_once_are_summed_and_those_in_turn_are_not() -> None:
    in_turn, together = output(HOLDERS, 1, 2), output(HOLDERS, 3, 1)
    assert 60 * MEBIBYTE < in_turn < 110 * MEBIBYTE
    assert 115 * MEBIBYTE < together - in_turn < 160 * MEBIBYTE  # two helpers more


@linux
def test_a_short_peak_of_this_process_is_not_missed() -> None:
    assert output(SHORT_PEAK) > 290 * MEBIBYTE

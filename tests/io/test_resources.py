"""Sizes in words, and a disk that is too small."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from asr_kd.errors import UserError
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import available_memory, check_disk


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

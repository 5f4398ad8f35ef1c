"""Disk and memory: what is free on this machine, control groups included, and what a run holds at most."""

from __future__ import annotations

import resource
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.control_groups import groups, read_lines
from asr_kd.io.formatting import human_bytes

_PROC = Path("/proc")
_KIBIBYTE = 1024


def check_disk(path: Path, needed: float) -> None:
    """Raises UserError where `path` will need more bytes than its disk has free.

    What a killed run has left (`asr_kd.io.folders.partial_folder`) is subtracted.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    partial = path.with_name(f".{path.name}.partial")
    needed -= sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    if free < needed:
        raise UserError(
            f"{path} needs {human_bytes(needed)} of disk, but {human_bytes(free)} are free; "
            f"free some space, then run the same command again."
        )


def available_memory(root: Path = Path("/")) -> float | None:
    """Bytes available without swapping: of the machine, or of this process's control groups (containers) if less.

    None where the system does not say.

    Args:
      root: where proc/ and sys/ are.
    """
    machine = float(_bytes(root / "proc/meminfo", "MemAvailable:"))
    return min([*([machine] if machine else []), *_left_in_control_groups(root)], default=None)


class MemoryMeter:
    """The most memory that this process and those that it started held at the same time.

    Samples the memory of the process tree in a thread, from `__enter__` to `__exit__`.

    Pages that processes share (a memory-mapped file, a library) are divided among them (Linux's Pss): their sum counts
    each page once. For this process alone the kernel's own maximum counts too, which no sample can miss. Where there is
    no /proc, the largest helper process is counted and no other.

    Args:
      seconds: between samples.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._seconds = seconds
        self._sampled = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory meter", daemon=True)

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        """Bytes, so far."""
        if _PROC.exists():
            # not ru_maxrss, which a process inherits from the one that started it
            return max(self._sampled, _bytes(_PROC / "self" / "status", "VmHWM:"))
        unit = 1 if sys.platform == "darwin" else _KIBIBYTE  # macOS counts bytes
        return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._sampled = max(self._sampled, tree_memory("self"))


def tree_memory(process: str, proc: Path = _PROC) -> int:
    """Bytes that a process and all its descendants hold now; processes that end meanwhile count 0.

    Args:
      process: its number, or "self".
    """
    return sum(_memory(number, proc) for number in _tree(process, proc))


def _tree(process: str, proc: Path) -> Iterator[str]:
    yield process
    for task in (proc / process / "task").glob("*"):
        for child in " ".join(read_lines(task / "children")).split():
            yield from _tree(child, proc)


def _memory(process: str, proc: Path) -> int:
    # the second where the first may not be read
    return _bytes(proc / process / "smaps_rollup", "Pss:") or _bytes(proc / process / "status", "VmRSS:")


def _bytes(file: Path, name: str) -> int:
    """The number on the line that begins with this name; 0 where there is none."""
    lines = [line for line in read_lines(file) if line.startswith(name)]
    return _KIBIBYTE * int(lines[0].split()[1]) if lines else 0


def _left_in_control_groups(root: Path) -> Iterator[float]:
    files = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
    for group, version in groups("memory", root):
        most, used = (read_lines(group / file) for file in files[version])
        if most and used and most[0].isdigit():  # version 2 says "max" where there is no limit
            counts = dict(row.split()[:2] for row in read_lines(group / "memory.stat"))
            total = "total_" if version == 1 else ""  # with those of the groups below
            # pages of files can be given up
            cached = sum(float(counts.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))
            yield max(0.0, float(most[0]) - float(used[0]) + cached)

"""The most memory that this process and those that it started held at the same time."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_KIBIBYTE = 1024


class MemoryMeter:
    """Samples the memory of the process tree in a thread, from `__enter__` to `__exit__`.

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
        for child in _text(task / "children").split():
            yield from _tree(child, proc)


def _memory(process: str, proc: Path) -> int:
    # the second where the first may not be read
    return _bytes(proc / process / "smaps_rollup", "Pss:") or _bytes(proc / process / "status", "VmRSS:")


def _bytes(file: Path, name: str) -> int:
    """The number on the line that begins with this name; 0 where there is none."""
    lines = [line for line in _text(file).splitlines() if line.startswith(name)]
    return _KIBIBYTE * int(lines[0].split()[1]) if lines else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

"""How many cores this process may use, control groups included, and how many of them other programs keep busy."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.errors import UserError
from asr_kd.io.control_groups import groups, read_lines

_VARIABLE = "OMP_NUM_THREADS"
_SECONDS = 0.3  # that the load is measured for
_WATCHED = 5.0  # seconds between two looks at the load of a machine that is at work
_PASSING = 0.35  # of a core, which others may take without costing a thread


def usable_cores(root: Path = Path("/")) -> int:
    """Returns how many cores this process may run on; no more than the quota of its control groups (containers) gives.

    Args:
      root: where proc/ and sys/ are.
    """
    return max(1, min([_allowed(), *map(math.floor, _quotas(root))]))


def _allowed() -> int:
    """Cores that this process may run on; a quota may pay for fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Cores that the group of this process and those above it may use; none where there is no limit."""
    files = {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}
    for group, version in groups("cpu", root):
        numbers = " ".join(row for file in files[version] for row in read_lines(group / file)).split()
        # "max", or -1 in version 1, where there is no limit
        if len(numbers) == 2 and numbers[0].isdigit() and int(numbers[1]) > 0:
            yield int(numbers[0]) / int(numbers[1])


def taken_cores(seconds: float = _SECONDS, stat: Path = Path("/proc/stat")) -> float:
    """How many of the cores that this process may run on others keep busy meanwhile; it waits, and is not counted."""
    before = _busy_and_all(stat)
    time.sleep(seconds)
    return _taken(before, _busy_and_all(stat))


def _taken(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    taken = 0.0
    for name, (busy, every) in after.items():
        since = before.get(name, (busy, every))
        taken += (busy - since[0]) / max(1, every - since[1])
    return taken


def _busy_and_all(stat: Path) -> dict[str, tuple[int, int]]:
    """Returns for each core of this process, by name, the ticks in which it worked, and all its ticks."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    counts = {}
    for line in read_lines(stat):
        name, *numbers = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in mine:
            ticks = [int(number) for number in numbers[:8]]  # what guests take is part of the first ones
            counts[name] = sum(ticks) - sum(ticks[3:5]), sum(ticks)  # idle, and idle while a disk works
    return counts


def _free(taken: int) -> int:
    """Threads for the cores that are left where others keep so many busy."""
    return max(1, min(usable_cores(), _allowed() - taken))


class LoadWatch:
    """A watch on the load of other programs, which says how many threads a net should use from now on.

    The work of this process is not counted as theirs; that of processes that it has started is.

    Args:
      seconds: from one look at the load to the next.
      stat: the kernel's figures, as /proc/stat has them.
    """

    def __init__(self, seconds: float = _WATCHED, stat: Path = Path("/proc/stat")) -> None:
        self._seconds, self._stat = seconds, stat
        self._since, self._own, self._ticks = self._look()

    def _look(self) -> tuple[float, float, dict[str, tuple[int, int]]]:
        """The time, the seconds that this process has worked, and the ticks of the cores."""
        return time.monotonic(), time.process_time(), _busy_and_all(self._stat)

    def threads(self) -> int | None:
        """A number of threads once the load has been watched for long enough, else None; it does not wait."""
        if time.monotonic() - self._since < self._seconds:
            return None
        since, own, ticks = self._since, self._own, self._ticks
        self._since, self._own, self._ticks = self._look()
        taken = max(0.0, _taken(ticks, self._ticks) - (self._own - own) / (self._since - since))
        # rivals for the same cores have less than they want
        return _free(math.ceil(taken - _PASSING))


@dataclass(frozen=True)
class Threads:
    """How many threads a command was given.

    Attributes:
      follow_load: nobody has asked for a number: it may change with what other programs leave.
      remark: what the user should know of it, or nothing.
    """

    follow_load: bool
    remark: str = ""


def choose_threads(asked: int | None, environment: MutableMapping[str, str] = os.environ) -> Threads:
    """Says before torch is loaded with how many threads it is to work.

    Threads wait for each other at the end of every operation. Beside another program on the same core, all of them wait
    for the one that shares it: on two cores training fell to a third (benchmarks/bench_busy.py). So there are no more
    than cores which nobody else keeps busy.

    Args:
      asked: by the user; None: the variable OMP_NUM_THREADS, or by what is free.

    Raises:
      UserError: the variable is no number of threads.
    """
    cores, given = usable_cores(), environment.get(_VARIABLE)
    if asked is not None:
        environment[_VARIABLE] = str(min(asked, cores))
        return Threads(follow_load=False, remark=_too_many(f"--threads {asked}", asked, cores))
    if given is not None:
        first = given.partition(",")[0].strip()  # further ones are for threads that start threads
        if not first.isdecimal() or int(first) < 1:
            raise UserError(f"{_VARIABLE}={given}: it must be a number of threads, at least 1; unset or correct it.")
        if int(first) > cores:
            environment[_VARIABLE] = str(cores)
        return Threads(follow_load=False, remark=_too_many(f"{_VARIABLE}={given}", int(first), cores))
    allowed = _allowed()
    taken = min(allowed, round(taken_cores()))
    threads = _free(taken)
    environment[_VARIABLE] = str(threads)
    if threads == cores:
        return Threads(follow_load=True)
    return Threads(True, f"other programs keep {taken} of {allowed} cores busy: --threads {threads} is taken")


def _too_many(what: str, threads: int, cores: int) -> str:
    """A remark, or nothing where there are cores for them."""
    if threads <= cores:
        return ""
    return f"{what} is more than the {cores} cores that this process may use: {cores} threads are used"

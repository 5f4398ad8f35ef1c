"""What helper processes and workers of a cluster do in tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

WAIT = 60.0  # seconds; far more than it takes


def note_and_wait(shard: tuple[str, int]) -> None:
    folder, number = shard
    (Path(folder) / f"{number}.part").write_text(str(os.getpid()))
    (Path(folder) / f"{number}.part").rename(Path(folder) / f"{number}.pid")
    time.sleep(10 * WAIT)


def note_slowly(shard: tuple[str, int]) -> int:
    time.sleep(0.2)
    return shard[1]


def note_and_hold(shard: tuple[str, int]) -> None:
    """As `note_and_wait`, but no other thread of Python can run meanwhile."""
    folder, number = shard
    (Path(folder) / f"{number}.part").write_text(str(os.getpid()))
    (Path(folder) / f"{number}.part").rename(Path(folder) / f"{number}.pid")
    3 ** (1 << 30)


def die(shard: tuple[str, int, int]) -> int:
    """The shard with that number kills its process, so many times."""
    folder, number, times = shard
    deaths = len(list(Path(folder).glob("*.death")))
    if number == 3 and deaths < times:
        (Path(folder) / f"{deaths}.death").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def note_and_fail_at_0(shard: tuple[str, int]) -> None:
    folder, number = shard
    (Path(folder) / f"{number}.begun").touch()
    if number == 0:
        raise ValueError("the first shard")
    time.sleep(0.5)
    (Path(folder) / f"{number}.ended").touch()


def note_and_sleep(shard: tuple[str, int]) -> None:
    folder, number = shard
    (Path(folder) / f"{number}.begun").touch()
    time.sleep(WAIT)


if __name__ == "__main__":  # a command in a terminal, where Ctrl-C reaches all processes
    from asr_kd.workspace.executor import parallel_map

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background would not hear it
    list(parallel_map(note_and_sleep, [(sys.argv[1], number) for number in range(6)], nj=2))

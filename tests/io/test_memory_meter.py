"""Memory of a process tree: what is held at once is summed, what is shared is counted once."""

import subprocess
import sys
from pathlib import Path

import pytest

from asr_kd.io.memory_meter import tree_memory

MEBIBYTE = 1 << 20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_tree_is_walked_through_all_threads_and_generations(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "self/task/1/children": "20 ",
            "self/task/2/children": "30 99 ",  # 99 has ended
            "self/smaps_rollup": "00400000-7fff [rollup]\nRss:  5000 kB\nPss:  1000 kB\n",
            "20/task/20/children": "21",
            "20/smaps_rollup": "Rss: 900 kB\nPss: 100 kB\n",
            "21/status": "Name: x\nVmHWM: 999 kB\nVmRSS: 10 kB\n",
            "30/task/30/children": "",
            "30/smaps_rollup": "Pss: 1 kB\n",
            "40/smaps_rollup": "Pss: 5000 kB\n",  # someone else's
        },
    )
    assert tree_memory("self", tmp_path) == 1111 * 1024
    assert tree_memory("20", tmp_path) == 110 * 1024


HOLDERS = """
import subprocess, sys, time
from asr_kd.io.memory_meter import MemoryMeter
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
from asr_kd.io.memory_meter import MemoryMeter
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


@linux
def test_helpers_that_run_at_once_are_summed_and_those_in_turn_are_not() -> None:
    in_turn, together = output(HOLDERS, 1, 2), output(HOLDERS, 3, 1)
    assert 60 * MEBIBYTE < in_turn < 110 * MEBIBYTE
    assert 115 * MEBIBYTE < together - in_turn < 160 * MEBIBYTE  # two helpers more


@linux
def test_a_short_peak_of_this_process_is_not_missed() -> None:
    assert output(SHORT_PEAK) > 290 * MEBIBYTE

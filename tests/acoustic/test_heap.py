"""Freed memory is kept: a step's large tensors cost no page faults once the first step has been made."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from asr_kd.acoustic.heap import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()
def step():
    parts = [torch.ones(4 << 20) for _ in range(4)]  # 16 MiB each
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of five steps in a process of their own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be asked to keep memory")
def test_large_tensors_fault_once():
    kept, count = faults("keep")
    if not kept:
        pytest.skip("this C library cannot be asked to keep memory")
    _, without = faults("leave")
    assert count < 200
    assert count < without / 10

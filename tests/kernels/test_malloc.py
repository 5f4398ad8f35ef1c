"""Freed memory is kept: large tensors of a step cost few page faults once the heap has grown."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from asr_kd.kernels.malloc import disable_malloc_trim

PROGRAM = """
import resource, sys
import torch
from asr_kd.kernels.malloc import disable_malloc_trim

disabled = sys.argv[1] == "keep" and disable_malloc_trim()
def step():
    logits = torch.ones(10 << 20)  # 40 MiB: without being asked, glibc maps all above 32 anew
    tempered = logits / 2
    loss = (tempered.exp() * logits).sum()

for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(int(disabled), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of twenty steps in a process of their own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    retained, count = done.stdout.split()
    return retained == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be asked to keep memory")
def test_large_tensors_fault_once():
    retained, count = faults("keep")
    if not retained:
        pytest.skip("this C library cannot be asked to keep memory")
    _, without = faults("leave")
    assert count < without / 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc reads the variables")
def test_processes_that_are_started_afterwards_keep_memory_too() -> None:
    environment: dict[str, str] = {"MALLOC_TOP_PAD_": "0"}
    if not disable_malloc_trim(environment):
        pytest.skip("this C library has no mallopt")
    assert environment.pop("MALLOC_TOP_PAD_") == "0", "what the user has set stays"
    run = [sys.executable, "-c", PROGRAM, "leave"]
    counts = [
        int(subprocess.run(run, capture_output=True, text=True, check=True, env=os.environ | more).stdout.split()[1])
        for more in (environment, dict.fromkeys(environment, ""))
    ]
    assert counts[0] < counts[1] / 5

"""Machine code where it cannot be kept, and how many threads it takes."""

import os
import subprocess
import sys
from typing import Any

import pytest

from asr_kd.kernels import compiled


def test_machine_code_needs_no_folder_to_be_kept_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that nobody may write to, for a user without a home."""
    calls = []

    def njit(**options: Any) -> Any:
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr("numba.njit", njit)
    assert compiled(parallel=True)(len) is len
    assert [bool(options.get("cache")) for options in calls] == [True, False]
    assert all(options["parallel"] and options["nogil"] for options in calls)


_SCRIPT = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
import numba
from asr_kd.kernels.dropout import dropout_mask
dropout_mask((100_000,), 0.2, torch.float32, key=1)
print(torch.get_num_threads(), numba.get_num_threads())
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_keeps_to_the_threads_that_it_was_told_to_take(count: int) -> None:
    """In a process of its own: numba starts its threads once, and then sets the number of OpenMP's to all of them."""
    env = os.environ | {"NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", "NUMBA_THREADING_LAYER": "omp"}
    command = [sys.executable, "-c", _SCRIPT, str(count)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert result.stdout.split() == [str(count), str(count)]

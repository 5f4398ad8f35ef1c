"""How commands set up their process: MKL's code path, before torch is loaded; freed memory; its end with its parent.

Commands import this module before torch: it must stay small.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from collections.abc import MutableMapping
from pathlib import Path

_NEVER = 2**31 - 1
_PR_SET_PDEATHSIG = 1  # of sys/prctl.h
# numbers of malloc.h, variables of a process that starts, values
_MALLOC = (
    (-4, "MALLOC_MMAP_MAX_", 0),
    (-1, "MALLOC_TRIM_THRESHOLD_", _NEVER),
    (-2, "MALLOC_TOP_PAD_", 64 << 20),  # bytes that the heap grows by at once
)


@functools.cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags of the first processor as Linux names them, and its maker, such as "AuthenticAMD"; empty elsewhere."""
    try:
        first, _, _ = cpuinfo.read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return frozenset()
    entries = (line.partition(":") for line in first.splitlines())
    return frozenset(" ".join(value for name, _, value in entries if name.strip() in ("flags", "vendor_id")).split())


def choose_mkl_code_path(cpu: frozenset[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes MKL use AVX2 on AMD processors; by default it does not.

    torch 1.13.1 comes with MKL 2020.0, which uses SSE code on a processor that is not Intel's: float32 products
    then run at a quarter of the speed (benchmarks/bench_training.py). Later versions do not read this variable. A value
    that is set already stays.
    """
    if {"AuthenticAMD", "avx2", "fma"} <= cpu:
        environment.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def disable_malloc_trim(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Tells glibc not to return freed memory to the operating system, here and in processes that start from now on.

    By default glibc maps every large tensor and unmaps it when it is freed. Each step of training then pays for pages
    that the operating system has to find and zero again: about 20,000 page faults a step with three nets of 1000
    senones and batches of 1024, almost a third of its processor time. Returns False where mallopt is not available;
    variables that are set already stay.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library, such as musl
    for _, variable, value in _MALLOC:
        environment.setdefault(variable, str(value))
    return all([mallopt(number, value) == 1 for number, _, value in _MALLOC])


def end_with_parent(parent: int) -> bool:
    """Has Linux kill this process as soon as the thread that started it ends, whatever this process is doing.

    Python's own threads cannot promise that: compiling a kernel holds the interpreter's lock for seconds.

    Args:
      parent: process number of the parent, which may have ended before this is called.

    Returns False where the system cannot do it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        done = ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) == 0
    except (OSError, AttributeError):
        return False
    if os.getppid() != parent:
        os._exit(1)
    return bool(done)

"""What the processor can do, and what a library has to be told of it before it is loaded.

Imported with the package, ahead of torch: it must stay small.
"""

from __future__ import annotations

import functools
import os
from collections.abc import MutableMapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MKL_CODE_PATH, _AVX2 = "MKL_DEBUG_CPU_TYPE", "5"


@functools.cache
def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """The flags of the first processor as Linux names them, and its maker, such as "AuthenticAMD"; empty elsewhere."""
    found: set[str] = set()
    try:
        with cpuinfo.open(encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "vendor_id"):
                    found.update(value.split())
                if not line.strip():
                    break  # the next processor's
    except OSError:
        return frozenset()
    return frozenset(found)


def choose_mkl_code_path(cpu: frozenset[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Has MKL use AVX2 on processors of AMD, where it would not by itself.

    torch 1.13.1 comes with MKL 2020.0, which takes code for SSE on a processor that is not Intel's: float32 products
    then run at a quarter of the speed (benchmarks/bench_training.py). Later versions do not read this variable. A value
    that is there already stays.
    """
    if {"AuthenticAMD", "avx2", "fma"} <= cpu:
        environment.setdefault(_MKL_CODE_PATH, _AVX2)

"""What the processor can do, and what MKL must know about it before torch is loaded.

Commands import this module before torch: it must stay small.
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
    flags: set[str] = set()
    try:
        with cpuinfo.open(encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "vendor_id"):
                    flags.update(value.split())
                if not line.strip():
                    break  # the next processor's
    except OSError:
        return frozenset()
    return frozenset(flags)


def choose_mkl_code_path(cpu: frozenset[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes MKL use AVX2 on AMD processors; by default it does not.

    torch 1.13.1 comes with MKL 2020.0, which uses SSE code on a processor that is not Intel's: float32 products
    then run at a quarter of the speed (benchmarks/bench_training.py). Later versions do not read this variable. A value
    that is set already stays.
    """
    if {"AuthenticAMD", "avx2", "fma"} <= cpu:
        environment.setdefault(_MKL_CODE_PATH, _AVX2)

"""Lets glibc keep freed memory for the next batch instead of returning it to the operating system.

glibc maps every large tensor and unmaps it when it is freed. Each step of training then pays for pages that the kernel
has to find and zero again: about 20,000 page faults a step with three nets of 1000 senones and batches of 1024, almost
a third of its processor time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import MutableMapping

_NEVER = 2**31 - 1
# numbers of malloc.h, variables of a process that starts, values
_SETTINGS = (
    (-4, "MALLOC_MMAP_MAX_", 0),
    (-1, "MALLOC_TRIM_THRESHOLD_", _NEVER),
    (-2, "MALLOC_TOP_PAD_", 64 << 20),  # bytes that the heap grows by at once
)


def disable_malloc_trim(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Tells glibc not to return freed memory to the operating system, here and in processes that start from now on.

    For the start of a command, not for libraries. Returns False where mallopt is not available; variables that are set
    already stay.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library, such as musl
    for _, variable, value in _SETTINGS:
        environment.setdefault(variable, str(value))
    return all([mallopt(number, value) == 1 for number, _, value in _SETTINGS])

"""Freed memory is kept for the next batch instead of going back to the system.

glibc maps every large tensor anew and unmaps it when it is freed, so each step of training pays for pages that the
kernel has to find and zero again: about 20,000 page faults a step with three nets of 1000 states and batches of 1024,
almost a third of its processor time.
"""

from __future__ import annotations

import ctypes
import functools
import sys

# names and numbers of malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = 2**31 - 1
_GROW_BY = 64 << 20  # bytes that the heap grows by at once


@functools.cache
def disable_malloc_trim() -> bool:
    """From now on this process keeps what it frees; True where that can be asked for (glibc), else nothing changes."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library, such as musl
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _GROW_BY))
    return all([mallopt(name, value) == 1 for name, value in wanted])

"""Functions that numba turns into machine code, kept on disk where that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

_MOST_THREADS = numba.get_num_threads()  # before anyone asked for fewer


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` without Python's lock, with further options of it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder that the machine code could be kept in: compile it anew in each process
            return numba.njit(nogil=True, **options)(function)

    return decorate


def use_threads(count: int) -> None:
    """How many threads the parallel functions that are called next use, where there are so many."""
    numba.set_num_threads(min(count, _MOST_THREADS))

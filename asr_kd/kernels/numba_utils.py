"""Functions that numba turns into machine code, kept on disk where that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` without Python's lock, with further options of it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder that the machine code could be kept in: compile it anew in each process
            return numba.njit(nogil=True, **options)(function)

    return decorate


def use_torchs_threads() -> None:
    """Lets the parallel functions that are called next use as many threads as torch does.

    numba and torch share OpenMP's threads, and when numba starts it sets their number to all cores: processes that
    were told to take one core each would then get in each other's way, so torch's own number is put back.
    """
    import torch

    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)

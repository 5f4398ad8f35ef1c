"""Functions that numba compiles to machine code, cached on disk where possible.

numba's cache follows changes of the file that a compiled function is in, not of others: a compiled function that
another one calls must be in the same file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` that releases the interpreter's lock and caches on disk; `options` are numba's."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder to cache in: each process compiles it
            return numba.njit(nogil=True, **options)(function)

    return decorate


def use_torchs_threads() -> None:
    """Makes the parallel functions that are called next use as many threads as torch does.

    numba and torch share OpenMP's threads, and numba sets their number to all cores when it starts. Processes that
    are to use one core each would then compete, so this restores torch's number.
    """
    import torch

    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)

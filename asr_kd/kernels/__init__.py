"""CPU kernels in numba, each beside its reference in torch; `asr_kd.kernels.switch` chooses between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` that releases the interpreter's lock and caches on disk; `options` are numba's.

    numba's cache follows changes of the file that a compiled function is in, not of others: a compiled function that
    another one calls must be in the same file.
    """
    import numba  # not with the package: commands set up their process (`asr_kd.kernels.process`) before

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder to cache in: each process compiles it
            return numba.njit(nogil=True, **options)(function)

    return decorate

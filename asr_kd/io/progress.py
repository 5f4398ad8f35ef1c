"""Progress of long work on standard error: a bar on a terminal; elsewhere, as in a log file, now and then a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_SECONDS = 30.0  # between two lines; work that takes less has none
_UP = "\x1b[A"  # tqdm moves the cursor up from the bar of another process
_COUNTED = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"
_ENDLESS = "{desc}: {n_fmt}, {rate_fmt}{postfix}"  # where the total is not known


class _Lines:
    """Writes each state that tqdm would draw over the one before it as a line with its time."""

    def write(self, text: str) -> None:
        """Writes what tqdm draws, if it is more than a movement of the cursor."""
        if shown := " ".join(text.replace(_UP, "").split()):
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {shown}\n")

    def flush(self) -> None:
        """Flushes standard error."""
        sys.stderr.flush()


def progress_bar(
    label: str | None,
    total: float | None = None,
    unit: str = "it",
    *,
    items: Iterable[Any] | None = None,
    **options: Any,
) -> tqdm[Any]:
    """A bar with rate and time left, which `update()` moves, or the iteration over it.

    Args:
      label: what stands before it; None: nothing is shown.
      total: how many units there are, where that is known and `items` has no length.
      unit: what is counted, in the singular.
      items: what to iterate over.
      options: tqdm's others, such as `initial` and `unit_scale`.

    >>> list(progress_bar(None, items=["a", "b"]))
    ['a', 'b']
    """
    shown: dict[str, Any] = {"desc": label, "total": total, "unit": unit, "disable": label is None}
    if sys.stderr is not None and sys.stderr.isatty():
        shown |= {"mininterval": 0.5, "dynamic_ncols": True}
    else:
        counted = total is not None or hasattr(items, "__len__")
        shown |= {"file": _Lines(), "mininterval": _SECONDS, "maxinterval": _SECONDS, "delay": _SECONDS}
        shown |= {"bar_format": _COUNTED if counted else _ENDLESS}
    return tqdm(items, **(options | shown))

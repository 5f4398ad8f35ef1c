"""How often to interrupt work, for example to save a checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_LEAST_WORK = 50.0  # times as long as the last interruption took


class Throttle:
    """Due `seconds` after the last interruption, and not before 50 times as long as that took.

    Args:
      seconds: 0 or less: always due.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = time.monotonic() + seconds

    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    @contextlib.contextmanager
    def interruption(self) -> Iterator[None]:
        """Times the block, which is the interruption."""
        started = time.monotonic()
        yield
        ended = time.monotonic()
        pause = max(self._seconds, _LEAST_WORK * (ended - started)) if self._seconds > 0 else 0.0
        self._due = ended + pause

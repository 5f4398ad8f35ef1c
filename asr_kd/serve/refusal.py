"""What the server refuses: one sentence, the status of an HTTP answer, the code that closes a WebSocket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from starlette.requests import Request
from starlette.responses import JSONResponse


class Reason(Enum):
    """(status, code): RFC 9110 section 15, RFC 6455 section 7.4.1 and IANA's registry of close codes."""

    MALFORMED = (400, 1007)
    FORBIDDEN = (403, 1008)
    SLOW = (408, 1008)
    LARGE = (413, 1009)
    BUSY = (503, 1013)
    FULL = (507, 1011)

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def code(self) -> int:
        return self.value[1]


class Refusal(Exception):
    """One sentence for who asked."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


async def answer_refusal(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of a `Refusal`: {"error": sentence}."""
    assert isinstance(error, Refusal)
    return JSONResponse({"error": str(error)}, error.reason.status)


class Slots:
    """How many may do something at once; the next one is refused rather than waits."""

    def __init__(self, number: int, sentence: str) -> None:
        self._free, self._sentence = number, sentence

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Raises Refusal where no slot is free."""
        if self._free <= 0:
            raise Refusal(Reason.BUSY, self._sentence)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

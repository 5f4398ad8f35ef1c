"""The recogniser that all connections share: it works in a thread of its own, so that the server answers meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr_kd.corpora.audio import BadAudio
from asr_kd.io.formatting import human_seconds
from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.transcript import Transcript
from asr_kd.serve.refusal import Slots

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """What one may ask of the server.

    Attributes:
      upload: bytes of a recording.
      longest: seconds of a recording; a small file may hold very many.
      streams, uploads: how many at once.
      patience: seconds without a message after which a stream or an upload ends.
    """

    upload: int = 100_000_000
    longest: float = 4 * 3600.0
    streams: int = 4
    uploads: int = 2
    patience: float = 60.0


class Recognition:
    """A recogniser and what bounds its use. One job is done after the other, as a model and a search are for one thread
    at a time; neither holds Python's lock for long, so that the server answers meanwhile.

    Attributes:
      name: of the model, for the page.
    """

    def __init__(self, recogniser: Recogniser, name: str, limits: Limits) -> None:
        self.recogniser, self.name, self.limits = recogniser, name, limits
        self.streams = Slots(limits.streams, f"{limits.streams} streams are open already; try again later.")
        self.uploads = Slots(limits.uploads, f"{limits.uploads} recordings are in work already; try again later.")
        self._thread = ThreadPoolExecutor(1, "recogniser")

    async def run(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """A function's result, from the recogniser's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*arguments, **options))

    async def pieces(self, path: Path, channel: int | None) -> AsyncIterator[Transcript]:
        """Yields the words of a recording piece by piece; streams go on between two of them.

        Raises:
          BadAudio: the recording cannot be used.
        """
        samples = await self.run(self._read, path, channel)
        transcripts = self.recogniser.transcribe_pieces(samples, confidence=True)
        while (transcript := await self.run(next, transcripts, None)) is not None:
            yield transcript

    def _read(self, path: Path, channel: int | None) -> NDArray[np.float32]:
        try:
            seconds = soundfile.info(path).duration
        except soundfile.LibsndfileError:
            seconds = 0.0  # `read` says what is wrong
        if seconds > self.limits.longest:
            longest = human_seconds(self.limits.longest)
            raise BadAudio(f"{path} is longer than {longest}, or does not say how long it is; cut it in parts")
        return self.recogniser.read(path, channel)

    def close(self) -> None:
        """What has begun is done; what waits is not."""
        self._thread.shutdown(cancel_futures=True)

"""Speech as it comes: samples in, words out, at a latency of a chunk and of what the model looks ahead.

Shapes:  n samples, L frames of a portion, D mel bins, C senones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as settings_dataclass

from asr_kd.alignment.topology import CannotAlignError
from asr_kd.decoding.decoder import Hypothesis
from asr_kd.frames.features import FRAME_LENGTH, frame_samples
from asr_kd.runtime.transcript import Transcript
from asr_kd.settings import STRICT, Count, Positive

if TYPE_CHECKING:
    from asr_kd.runtime.recogniser import Recogniser

_BEFORE = 3  # frames of samples before a portion, so that only the first frame of all is at an edge
_NO_WORDS = 10.0  # seconds after which a stretch without words is forgotten
_BREATH = 0.1  # seconds of silence at which a stretch that is too long ends


@settings_dataclass(frozen=True, config=STRICT)
class StreamSettings:
    """The settings that say when a stream answers.

    Attributes:
      chunk: frames that the model gets at once.
      silence: seconds after the last word that end a stretch of speech.
      longest: seconds of a stretch, which ends at the next short silence then, and at twice as many in any case.
      confidence: say how sure the search is of each word, when a stretch has ended; that takes longer than the words.
    """

    chunk: Count = 20
    silence: Positive = 0.8
    longest: Positive = 30.0
    confidence: bool = False


@dataclass(frozen=True)
class Update:
    """What a stream knows after more samples.

    Attributes:
      finished: stretches of speech that ended since the last update; these words do not change any more.
      partial: the words of the stretch that has not ended, as they seem now.
    """

    finished: tuple[Transcript, ...]
    partial: str


class Stream:
    """One stream of speech through a recogniser. A running mean is subtracted, whatever the model was trained with.

    >>> def listen(recogniser, blocks):
    ...     stream = recogniser.stream()
    ...     for samples in blocks:  # (n,) float32 in [-1, 1], any number of them
    ...         update = stream.accept(samples)
    ...         for stretch in update.finished:
    ...             print(stretch.text)
    ...     for stretch in stream.finish().finished:
    ...         print(stretch.text)
    """

    def __init__(self, recogniser: Recogniser, settings: StreamSettings) -> None:
        self._recogniser, self._settings = recogniser, settings
        self._features = _FeatureStream(recogniser, settings.chunk)
        self._net = _NetStream(recogniser)
        self._search = recogniser.decoder.stream()
        self._seconds = recogniser.frame_seconds
        self._begin = 0  # frame at which the stretch began
        self._partial = ""
        self._ended = False

    @property
    def latency(self) -> float:
        """Seconds from a sound to the words that it makes: a chunk, and what the model looks ahead."""
        return (self._settings.chunk + self._recogniser.parts.model.context.right) * self._seconds + FRAME_LENGTH

    def accept(self, samples: NDArray[np.float32]) -> Update:
        """(n,) more samples at the recogniser's rate.

        Raises:
          ValueError: the stream has ended, or samples are not float32, or not finite.
        """
        if self._ended:
            raise ValueError("the stream has ended; open another one")
        if samples.ndim != 1 or samples.dtype != np.float32 or not np.isfinite(samples).all():
            raise ValueError(f"samples are {samples.dtype} {samples.shape}, not finite float32 (n,)")
        finished = tuple(
            transcript
            for features in self._features.accept(samples)
            for transcript in self._heard(self._net.accept(features))
        )
        return Update(finished, self._partial)

    def finish(self) -> Update:
        """The end of the stream: the words of what is left."""
        if self._ended:
            raise ValueError("the stream has ended; open another one")
        self._ended = True
        finished: list[Transcript] = []
        for features in self._features.finish():
            finished += self._heard(self._net.accept(features))
        finished += self._heard(self._net.finish())
        if self._search.num_frames:
            finished += self._stretch()
        return Update(tuple(finished), "")

    def _heard(self, loglikes: NDArray[np.float32]) -> Iterator[Transcript]:
        """Searches on; yields the stretch that has ended by these frames."""
        if not len(loglikes):
            return
        self._search.accept(loglikes)
        words, _ = self._search.best()
        self._partial = " ".join(words)
        if self._has_ended():
            yield from self._stretch()

    def _has_ended(self) -> bool:
        """Returns whether the stretch of speech has ended.

        Only paths that end with a whole word or silence count: others often begin a word in the last frames.
        """
        words, senones = self._search.best(final=True)
        silent = self._recogniser.silences[senones]
        quiet = self._seconds * (len(silent) if silent.all() else int(silent[::-1].argmin()))
        seconds, settings = self._search.num_frames * self._seconds, self._settings
        if seconds >= 2 * settings.longest:
            return True
        if seconds >= (settings.longest if words else _NO_WORDS):
            return quiet >= min(_BREATH, settings.silence)
        return bool(words) and quiet >= settings.silence

    def _stretch(self) -> Iterator[Transcript]:
        """Ends the stretch; yields it where it has words, or was lost."""
        hypothesis, loglikes = self._search.finish(), self._search.loglikes
        transcript = self._timed(hypothesis, loglikes)
        self._begin += len(loglikes)
        self._partial = ""
        self._search.restart()
        if transcript.words or transcript.lost:
            yield transcript

    def _timed(self, hypothesis: Hypothesis, loglikes: NDArray[np.float32]) -> Transcript:
        """Returns when each word of a hypothesis was said, without last words for which there are not enough frames.

        These words had just begun.
        """
        start = self._begin * self._seconds
        lattice = self._search.lattice() if self._settings.confidence else None
        while True:
            try:
                return self._recogniser.timed(hypothesis, loglikes, start, lattice)
            except CannotAlignError:
                hypothesis = replace(hypothesis, words=hypothesis.words[:-1])


class _FeatureStream:
    """Samples to the log-mel energies that the whole recording would have."""

    def __init__(self, recogniser: Recogniser, chunk: int) -> None:
        self._recogniser = recogniser
        self._shift = frame_samples(recogniser.sampling_rate)
        self._length = round(FRAME_LENGTH * recogniser.sampling_rate)
        self._chunk = chunk
        self._buffer = np.zeros(0, np.float32)  # begins `_known` frames before the next one
        self._known = 0

    def accept(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float16]]:
        """(n,) -> chunks of frames that no later sample changes."""
        self._buffer = np.concatenate([self._buffer, samples])
        while (len(self._buffer) - self._length) // self._shift + 1 - self._known >= self._chunk:
            end = self._known + self._chunk
            used = self._buffer[: (end - 1) * self._shift + self._length + self._shift]
            yield self._recogniser.features(used)[self._known : end]
            before = min(_BEFORE, end)
            self._buffer = self._buffer[(end - before) * self._shift :]
            self._known = before

    def finish(self) -> Iterator[NDArray[np.float16]]:
        """The last frames."""
        if len(self._buffer) >= self._length:
            yield self._recogniser.features(self._buffer)[self._known :]


class _NetStream:
    """Log-mel energies to log-likelihoods, `right` frames late."""

    def __init__(self, recogniser: Recogniser) -> None:
        parts = recogniser.parts
        self._recogniser, self._context = recogniser, parts.model.context
        self._scale = parts.normalisation.scale
        self._mean = parts.normalisation.running_mean(recogniser.settings.running_seconds)
        self._state = self._mean.start()
        self._padded: NDArray[np.float32] | None = None  # normalised frames from the left context of the next one on

    def accept(self, features: NDArray[np.float16]) -> NDArray[np.float32]:
        """(L, D) -> (L', C)."""
        if not len(features):
            return self._none()
        means, self._state = self._mean.means(features.astype(np.float32), self._state)
        normalised = ((features - means) * self._scale).astype(np.float32)
        if self._padded is None:
            self._padded = np.repeat(normalised[:1], self._context.left, axis=0)
        return self._forward(normalised)

    def finish(self) -> NDArray[np.float32]:
        """Returns the log-likelihoods of the last frames; the last frame is repeated in place of those to come."""
        if self._padded is None:
            return self._none()
        return self._forward(np.repeat(self._padded[-1:], self._context.right, axis=0))

    def _none(self) -> NDArray[np.float32]:
        return np.zeros((0, self._recogniser.parts.model.num_senones), np.float32)

    def _forward(self, normalised: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._padded is not None
        self._padded = np.concatenate([self._padded, normalised])
        ready = len(self._padded) - self._context.left - self._context.right
        if ready <= 0:
            return self._none()
        log_posteriors = self._recogniser.parts.model.log_posteriors_inside(torch.from_numpy(self._padded))
        self._padded = self._padded[ready:]
        return self._recogniser.without_priors(log_posteriors)

"""Samples of utterances: one channel of a recording, or of a segment of it, checked and at the target's rate.

Utterances of one recording are read together, so that a long recording is decoded once. Where a seek gives the very
samples that decoding from the beginning gives (PCM and its like), what lies between them is left out.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.corpora.headers import check_header
from asr_kd.corpora.sources import BadAudio, Encoded, LhotseRecording, Source, open_source

__all__ = [
    "SUFFIXES", "UNREADABLE", "Audio", "AudioFormat", "BadAudio", "Clip", "Extent", "Recorded", "check_audio",
    "read_audio", "read_clips",
]  # fmt: skip

# of files that libsndfile reads
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".rf64", ".sph", ".w64")
UNREADABLE = (".m4a", ".aac", ".wma", ".webm", ".mp4", ".amr", ".3gp")  # of recordings that it does not read
_NO_LENGTH = 1 << 62  # samples: what libsndfile says where it cannot know
_BLOCK = 1 << 20  # samples
_OVERSHOOT = 0.05  # seconds: times of segments are rounded, so the last one may end a little after its recording
# Codings that are exact after a seek; libsndfile 1.2 gives other samples in Vorbis and MP3, and none in GSM.
_SEEKABLE = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})


@dataclass(frozen=True)
class AudioFormat:
    """What audio is read as: mono, at one rate.

    Attributes:
      sampling_rate: Hz.
      resample: convert audio at another rate; else it is refused.
      channel: of recordings with several, from 0; None: such recordings are refused.
      channel_key: what sets it, for messages.
      silent: take recordings whose samples are all the same; else they are refused.
    """

    sampling_rate: int
    resample: bool = False
    channel: int | None = None
    channel_key: str = "corpus.channel"
    silent: bool = False


@dataclass(frozen=True)
class Audio:
    """The place of an utterance's samples in a recording.

    Attributes:
      source: the encoded recording; most often a file's name.
      start: seconds from the recording's beginning.
      duration: seconds; None: to the recording's end.
      channel: from 0; None: the config's choice, or the only one.
      recording: the recording's name; "": the utterance's.
      rate: Hz that the corpus itself says to convert the recording to; None: none.
    """

    source: Source
    start: float = 0.0
    duration: float | None = None
    channel: int | None = None
    recording: str = ""
    rate: int | None = None

    def __str__(self) -> str:
        if self.start == 0 and self.duration is None:
            return str(self.source)
        end = "its end" if self.duration is None else f"{self.start + self.duration:.2f} s"
        return f"{self.source} from {self.start:.2f} s to {end}"


@dataclass(frozen=True)
class Recorded:
    """A recording as it is."""

    rate: int  # Hz
    samples: int  # per channel
    channels: int


@dataclass(frozen=True)
class Extent:
    """What an utterance takes of its recording."""

    samples: int  # at the recording's rate
    recording: Recorded
    channel: int  # from 0
    rate: int  # Hz of the target

    @property
    def num_samples(self) -> int:
        """The number of samples at the target's rate, rounded half up."""
        return (2 * self.samples * self.rate + self.recording.rate) // (2 * self.recording.rate)


@dataclass(frozen=True)
class Clip:
    """The samples of one utterance, (n,) float32 from -1 to 1, at the recording's rate."""

    samples: NDArray[np.float32]
    extent: Extent

    def resampled(self) -> NDArray[np.float32]:
        """(extent.num_samples,) float32 at the target's rate."""
        rate, target = self.extent.recording.rate, self.extent.rate
        if rate == target:
            return self.samples
        import torch
        from torchaudio.functional import resample

        samples = resample(torch.from_numpy(self.samples), rate, target)
        return np.asarray(samples[: self.extent.num_samples].numpy())  # resample rounds up


def read_audio(audio: Audio | Path, target: AudioFormat) -> NDArray[np.float32]:
    """(n,) float32 all samples of an utterance, from -1 to 1, at the target's rate.

    Raises:
      BadAudio: see `read_clips`.
    """
    return _read_one(audio, target).resampled()


def check_audio(audio: Audio | Path, target: AudioFormat) -> Extent:
    """Reads all samples of an utterance; raises as `read_audio` does."""
    return _read_one(audio, target).extent


def _read_one(audio: Audio | Path, target: AudioFormat) -> Clip:
    ((_, clip),) = read_clips([audio if isinstance(audio, Audio) else Audio(audio)], target)
    if isinstance(clip, BadAudio):
        raise clip
    return clip


def read_clips(utterances: Sequence[Audio], target: AudioFormat) -> Iterator[tuple[int, Clip | BadAudio]]:
    """Reads utterances, those of one recording one after the other.

    Yields:
      The number of an utterance, and its clip; or why it cannot be used: the recording is missing, damaged, cut short,
      of another rate or has several channels, and the format does not say what to do about it; the segment ends after
      the recording; samples are not finite, all the same, or none.
    """
    recordings: dict[Source, list[int]] = {}
    for number, audio in enumerate(utterances):
        recordings.setdefault(audio.source, []).append(number)
    for source, numbers in recordings.items():
        if isinstance(source, LhotseRecording):
            yield from ((number, _read_by_lhotse(source, utterances[number], target)) for number in numbers)
        else:
            yield from _read_recording(source, sorted(numbers, key=lambda n: utterances[n].start), utterances, target)


def _read_recording(
    source: Encoded, numbers: Sequence[int], utterances: Sequence[Audio], target: AudioFormat
) -> Iterator[tuple[int, Clip | BadAudio]]:
    """Reads utterances of one recording, given in the order of their beginnings, as `read_clips` does."""
    import soundfile

    left = list(numbers)
    try:
        with open_source(source) as file:
            check_header(file, str(source))
            # by its name where it has one; that may be no UTF-8
            in_memory = isinstance(file, io.BytesIO)
            with soundfile.SoundFile(file if in_memory else os.fsencode(str(source))) as sound:
                stream = _Stream(sound, str(source), known_length=any(utterances[n] != Audio(source) for n in left))
                while left:
                    try:
                        clip: Clip | BadAudio = _clip(stream, utterances[left[0]], target)
                    except BadAudio as bad:
                        clip = bad
                    yield left.pop(0), clip
    except BadAudio as bad:
        yield from ((number, bad) for number in left)
    except soundfile.LibsndfileError as error:
        yield from ((n, BadAudio(_damage(str(source), error.error_string))) for n in left)


def _damage(name: str, reason: str) -> str:
    # what libsndfile says of a text whose name ends in .mp3 is that it is no file; what is none was refused before
    if "not recognised" in reason or "not a regular file" in reason:
        return f"{name} is in no format that libsndfile reads; convert it (ffmpeg -i FILE FILE.wav), or fetch it again"
    return f"{name} is damaged ({reason.rstrip('.')}); fetch it again"


class _Stream:
    """An open recording that is read forwards.

    Args:
      known_length: decode all of a recording whose header does not give its length, to know it.
    """

    def __init__(self, sound: Any, name: str, *, known_length: bool):
        self.name, self._sound = name, sound
        self._seekable = sound.format != "OGG" and sound.subtype in _SEEKABLE and sound.frames < _NO_LENGTH
        sound.seekable = lambda: False  # else soundfile seeks at each read, which FLAC of unknown length and GSM refuse
        self._first = 0  # sample that is first in the buffer
        self._buffer: NDArray[np.float32] = np.zeros((0, sound.channels), np.float32)
        self.ended = False
        if known_length and sound.frames >= _NO_LENGTH:
            self.read(0, None)

    @property
    def recording(self) -> Recorded:
        """The recording, with the length that its header promises or, once its end is reached, the one found."""
        samples = self._position if self.ended else self._sound.frames
        return Recorded(self._sound.samplerate, samples, self._sound.channels)

    @property
    def promised(self) -> int:
        return self._sound.frames if self._sound.frames < _NO_LENGTH else 0

    @property
    def _position(self) -> int:
        return self._first + len(self._buffer)

    def read(self, first: int, end: int | None) -> NDArray[np.float32]:
        """(n, channels) samples from one up to another; fewer where the recording ends before.

        Args:
          first: not before that of the last call.
          end: None: the recording's end.
        """
        self._skip(first)
        blocks = [self._buffer]
        position = self._position
        while not self.ended and (end is None or position < end):
            count = _BLOCK if end is None else min(_BLOCK, end - position)
            blocks.append(self._sound.read(count, dtype="float32", always_2d=True))
            position += len(blocks[-1])
            self.ended = len(blocks[-1]) < count
        self._buffer = np.concatenate(blocks) if len(blocks) > 1 else self._buffer
        return self._buffer if end is None else self._buffer[: max(0, end - first)]

    def _skip(self, first: int) -> None:
        """Drops samples, so that the buffer begins at `first` or at the recording's end."""
        if first >= self._position and self._seekable and not self.ended:
            self._sound.seek(min(first, self._sound.frames))
            self._first, self._buffer = min(first, self._sound.frames), self._buffer[:0]
        while first > self._position and not self.ended:
            block = self._sound.read(min(_BLOCK, first - self._position), dtype="float32", always_2d=True)
            self.ended = len(block) == 0
            self._first, self._buffer = self._position + len(block), self._buffer[:0]
        dropped = min(max(0, first - self._first), len(self._buffer))
        self._first, self._buffer = self._first + dropped, self._buffer[dropped:].copy() if dropped else self._buffer


def _clip(stream: _Stream, audio: Audio, target: AudioFormat) -> Clip:
    rate, channels = stream.recording.rate, stream.recording.channels
    _check_rate(stream.name, rate, audio, target)
    channel = _channel(stream.name, channels, audio, target)
    first = _samples(audio.start, rate)
    end = None if audio.duration is None else first + _samples(audio.duration, rate)
    samples = np.ascontiguousarray(stream.read(first, end)[:, channel])
    recording = stream.recording
    if stream.ended and recording.samples < stream.promised:
        raise BadAudio(f"{stream.name} is cut short: {recording.samples} of {stream.promised} samples; fetch it again")
    lacking = 0 if end is None else end - first - len(samples)
    if lacking > _OVERSHOOT * rate or (first and not len(samples)):
        raise BadAudio(f"{audio}: the recording ends at {recording.samples / rate:.2f} s; correct the segment's times")
    return Clip(_checked(samples, audio, target), Extent(len(samples), recording, channel, target.sampling_rate))


def _samples(seconds: float, rate: int) -> int:
    return int(seconds * rate + 0.5)


def _check_rate(name: str, rate: int, audio: Audio, target: AudioFormat) -> None:
    if rate != target.sampling_rate and not target.resample and audio.rate != target.sampling_rate:
        raise BadAudio(
            f"{name} has {rate} Hz, the config says {target.sampling_rate}; convert it, or set corpus.resample to true "
            "(or corpus.sampling_rate)"
        )


def _channel(name: str, channels: int, audio: Audio, target: AudioFormat) -> int:
    channel = target.channel if audio.channel is None else audio.channel
    if channel is None and channels > 1:
        raise BadAudio(
            f"{name} has {channels} channels; choose one by {target.channel_key} (0 is the first), or make it mono"
        )
    if channel is not None and channel >= channels:
        have = f"{channels} channels" if channels > 1 else "1 channel"
        which = target.channel_key if audio.channel is None else "the corpus"
        raise BadAudio(f"{name} has {have}, but {which} names channel {channel} (0 is the first); name another")
    return channel or 0


def _checked(samples: NDArray[np.float32], audio: Audio, target: AudioFormat) -> NDArray[np.float32]:
    if len(samples) == 0:
        raise BadAudio(f"{audio} holds no samples; record it again")
    if not np.isfinite(samples).all():
        raise BadAudio(f"{audio} holds samples that are not finite (NaN); write it again")
    if not target.silent and samples.min() == samples.max():
        raise BadAudio(f"{audio} is digital silence; record it again, or leave it out")
    return samples


def _read_by_lhotse(source: LhotseRecording, audio: Audio, target: AudioFormat) -> Clip | BadAudio:
    from lhotse import Recording

    try:
        recording = Recording.from_dict(source.data)
        _check_rate(str(source), recording.sampling_rate, audio, target)
        channels = recording.channel_ids or [0]
        channel = _channel(str(source), len(channels), audio, target)
        loaded = recording.load_audio(channels=channels[channel], offset=audio.start, duration=audio.duration)[0]
        samples = _checked(loaded.astype(np.float32, copy=False), audio, target)
        recorded = Recorded(recording.sampling_rate, recording.num_samples, len(channels))
        return Clip(samples, Extent(len(samples), recorded, channel, target.sampling_rate))
    except BadAudio as bad:
        return bad
    except Exception as error:  # lhotse's back ends raise errors of any class; for the user it is a bad file
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        return BadAudio(f"{audio} cannot be read by lhotse: {reason}; is the file missing or truncated?")

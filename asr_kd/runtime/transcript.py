"""What was recognised: words with their times, and how files have them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

from pydantic import TypeAdapter

_PAUSE = 0.5  # seconds between two words that end a caption
_LINE, _SECONDS = 42, 6.0  # characters and duration of a caption at most, as broadcasters have it
_BREAK = re.compile(r"[\t\r\n]")  # that a line's name cannot have
_DIGITS = 2  # of seconds: frames are 10 ms
_LONGEST = 1e6  # seconds of a recording that is read back


@dataclass(frozen=True)
class Word:
    """A recognised word.

    Attributes:
      start, end: seconds from the recording's beginning.
      confidence: from 0 to 1, see `asr_kd.decoding.confidence`; None where it was not asked for, or no path of a
        stream's search came to an end.
    """

    word: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Transcript:
    """The words of a recording, or of a part of it.

    Attributes:
      start, end: seconds from the recording's beginning, of what was recognised.
      lost: (start, end) seconds of stretches for which the search came to no end.
    """

    words: tuple[Word, ...]
    start: float
    end: float
    lost: tuple[tuple[float, float], ...] = ()

    @property
    def text(self) -> str:
        """The words, with spaces between them."""
        return " ".join(word.word for word in self.words)


@dataclass(frozen=True)
class _Answer:
    """What the format json has."""

    words: tuple[Word, ...]
    recording: str = "recording"
    seconds: float = 0.0
    lost: tuple[tuple[float, float], ...] = ()


def joined(parts: Sequence[Transcript]) -> Transcript:
    """Transcripts of the parts of a recording, at least one, as that of the whole."""
    words = (word for part in parts for word in part.words)
    lost = (stretch for part in parts for stretch in part.lost)
    return Transcript(tuple(words), parts[0].start, parts[-1].end, tuple(lost))


def _text(name: str, transcript: Transcript) -> str:
    return f"{_BREAK.sub(' ', name)}\t{transcript.text}\n"


def _ctm(name: str, transcript: Transcript) -> str:
    utterance = "_".join(PurePath(name).stem.split())  # a column has no spaces
    lines = []
    for word in transcript.words:
        start, end = round(word.start, _DIGITS), round(word.end, _DIGITS)  # so that none ends after the next begins
        sure = "" if word.confidence is None else f" {word.confidence:.3f}"
        lines.append(f"{utterance} 1 {start:.{_DIGITS}f} {end - start:.{_DIGITS}f} {word.word}{sure}\n")
    return "".join(lines)


def as_data(transcript: Transcript) -> dict[str, Any]:
    """What the format json has of it, but the recording's name."""
    words = [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(word).items()}
        for word in transcript.words
    ]
    lost = [[round(start, 3), round(end, 3)] for start, end in transcript.lost]
    seconds = round(transcript.end - transcript.start, 3)
    return {"seconds": seconds, "text": transcript.text, "words": words, "lost": lost}


def _json(name: str, transcript: Transcript) -> str:
    return json.dumps({"recording": name} | as_data(transcript), ensure_ascii=False) + "\n"


def read_json(data: bytes) -> tuple[str, Transcript]:
    """The name of the recording and the transcript that the format json has written.

    Raises:
      ValueError: this is no such JSON.

    >>> _, transcript = read_json(b'{"recording": "a.wav", "words": [{"word": "A", "start": 0.5, "end": 1}]}')
    >>> transcript.text, transcript.end
    ('A', 1.0)
    """
    answer = TypeAdapter(_Answer).validate_json(data)
    words = tuple(sorted(answer.words, key=lambda word: word.start))
    edges = [edge for word in words for edge in (word.start, word.end)]
    edges += [edge for stretch in answer.lost for edge in stretch]
    if not all(0 <= edge < _LONGEST for edge in edges):  # NaN is not either
        raise ValueError("the times of words are not seconds from a recording's beginning")
    return answer.recording, Transcript(words, 0.0, answer.seconds or max(edges, default=0.0), answer.lost)


def _captions(name: str, transcript: Transcript, *, web: bool) -> str:
    """SubRip, or WebVTT."""
    blocks = ["WEBVTT\n\n"] if web else []
    for number, words in enumerate(captions(transcript), 1):
        times = " --> ".join(_clock(seconds, "." if web else ",") for seconds in (words[0].start, words[-1].end))
        text = " ".join(word.word for word in words)
        blocks.append(f"{number}\n{times}\n{html.escape(text, quote=False) if web else text}\n\n")
    return "".join(blocks)


def captions(transcript: Transcript) -> Iterator[list[Word]]:
    """The words of each caption: a pause ends one, and so does its size."""
    caption: list[Word] = []
    for word in transcript.words:
        length = sum(len(each.word) + 1 for each in caption) + len(word.word)
        full = caption and (length > _LINE or word.end - caption[0].start > _SECONDS)
        if full or (caption and word.start - caption[-1].end >= _PAUSE):
            yield caption
            caption = []
        caption.append(word)
    if caption:
        yield caption


def _clock(seconds: float, point: str) -> str:
    """
    >>> _clock(3725.5, ",")
    '01:02:05,500'
    """
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


# name -> (name of the recording, transcript) -> what is written of it
FORMATS: dict[str, Callable[[str, Transcript], str]] = {
    "text": _text,
    "ctm": _ctm,
    "json": _json,
    "srt": partial(_captions, web=False),
    "vtt": partial(_captions, web=True),
}
CAPTIONS = ("srt", "vtt")  # formats of a file for one recording
CONFIDENT = ("ctm", "json")  # formats that have confidences

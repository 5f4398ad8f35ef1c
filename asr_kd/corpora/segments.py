"""Kaldi's `segments`: which part of which recording an utterance is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.listing import read_table


@dataclass(frozen=True)
class Segment:
    """A part of a recording, in seconds; no duration: to its end; no channel: the config's, or the only one."""

    recording: str
    start: float
    duration: float | None
    channel: int | None = None

    @classmethod
    def parse(cls, fields: str) -> Segment | None:
        """The segment that a line describes after the utterance's id; None where it describes none.

        Kaldi writes -1 for the end of a recording, and may write a channel (0 is the first) after it.

        >>> Segment.parse("call-7 1.5 3.25")
        Segment(recording='call-7', start=1.5, duration=1.75, channel=None)
        >>> Segment.parse("call-7 1.5 -1 0")
        Segment(recording='call-7', start=1.5, duration=None, channel=0)
        """
        try:
            recording, first, last, *more = fields.split()
            start, end = float(first), float(last)
            channel = int(*more) if more else None
        except (ValueError, TypeError):
            return None
        if channel is not None and channel < 0:
            return None
        if not (0 <= start < math.inf) or not (start < end < math.inf or end == -1):
            return None
        return cls(recording, start, None if end == -1 else round(end - start, 9), channel)


def read_segments(path: Path, fix: str) -> dict[str, Segment]:
    """Utterance -> its segment.

    Args:
      fix: what to do about a file that cannot be read.

    Raises:
      UserError: the file cannot be read, a line is wrong, or an utterance is there twice.
    """
    expected = "'utterance-id recording-id start end [channel]', in seconds, the end after the start"
    rows = read_table(path, fix, expected, lambda _, fields: fields if Segment.parse(fields) else None)
    segments = {utterance: Segment.parse(fields) for utterance, fields in rows.items()}
    return {utterance: segment for utterance, segment in segments.items() if segment}

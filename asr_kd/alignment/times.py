"""When each word and phone of an utterance is said, in seconds; as Praat's TextGrid (by praatio) and NIST's CTM."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.textgrid import Textgrid
from praatio.utilities.constants import INTERVAL_TIER
from praatio.utilities.errors import PraatioException
from praatio.utilities.textgrid_io import parseTextgridStr

from asr_kd.errors import UserError

_DIGITS = 4  # of a second


@dataclass(frozen=True)
class Interval:
    start: float  # seconds
    end: float
    label: str  # "" is silence


@dataclass(frozen=True)
class Times:
    """One utterance; both tiers cover it from 0 to `duration` without gaps."""

    utterance: str
    duration: float
    words: list[Interval]
    phones: list[Interval]


def ctm_lines(utterances: Sequence[Times], tier: str) -> Iterator[str]:
    """`utterance channel start duration label`, sorted as NIST's tools expect it; silence is left out."""
    for times in sorted(utterances, key=lambda times: times.utterance):
        for interval in times.words if tier == "words" else times.phones:
            if interval.label:
                yield f"{times.utterance} 1 {interval.start:.2f} {interval.end - interval.start:.2f} {interval.label}\n"


def write_textgrid(times: Times, path: Path) -> None:
    """Praat's long text form in UTF-8, with the tiers `words` and `phones`."""
    duration = round(times.duration, _DIGITS)
    grid = Textgrid(0, duration)
    for name, intervals in (("words", times.words), ("phones", times.phones)):
        entries = [(round(i.start, _DIGITS), round(i.end, _DIGITS), i.label) for i in intervals]
        grid.addTier(IntervalTier(name, entries, 0, duration))
    grid.save(str(path), "long_textgrid", includeBlankSpaces=False)


def read_textgrid(path: Path) -> Times:
    """Reads the tiers `words` and `phones`, in the long or short form, UTF-8 or UTF-16; one that is missing is empty.

    Raises:
      UserError: the file cannot be read, has neither tier, or an interval of them is out of order.
    """
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        grid = parseTextgridStr(content.decode(encoding), includeEmptyIntervals=True)
    except (OSError, ValueError, IndexError, PraatioException) as error:
        reason = "it does not have a TextGrid's lines" if isinstance(error, IndexError) else str(error).rstrip(".")
        raise UserError(f"{path}: cannot be read as a TextGrid ({reason}); save it as text with Praat.") from None
    tiers = {tier["name"]: tier for tier in grid["tiers"]}
    if "words" not in tiers and "phones" not in tiers:
        raise UserError(f"{path}: there is no tier 'words' or 'phones', only {sorted(tiers)}; rename its tiers.")
    read = (_intervals(path, tiers[name]) if name in tiers else [] for name in ("words", "phones"))
    return Times(path.stem, float(grid["xmax"]), *read)


def _intervals(path: Path, tier: dict[str, Any]) -> list[Interval]:
    where = f"{path}: tier {tier['name']!r}"
    if tier["class"] != INTERVAL_TIER:
        raise UserError(f"{where} has points, not intervals; give an interval tier this name.")
    intervals = [Interval(float(start), float(end), label) for start, end, label in tier["entries"]]
    before = 0.0
    for number, interval in enumerate(intervals, 1):
        if interval.end < interval.start or interval.start < before:
            raise UserError(
                f"{where}: interval {number} ({interval.label!r}) is from {interval.start} to {interval.end} s, and "
                f"the one before it ends at {before} s; correct its times."
            )
        before = interval.end
    return intervals

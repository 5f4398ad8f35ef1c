"""When each word and phone of an utterance is said, in seconds; as Praat's TextGrid and as NIST's CTM."""

from __future__ import annotations

import codecs
import math
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from praatio.data_classes import interval_tier
from praatio.data_classes.textgrid import Textgrid

from asr_kd.errors import UserError
from asr_kd.io.files import open_text
from asr_kd.io.textgrid import IntervalTier, parse_textgrid

_DIGITS = 4  # of a second, in all files
_TIERS = {"words": ("words", "word", "wrd"), "phones": ("phones", "phone", "phn")}
_ROUNDING = 1e-6  # seconds by which an interval may begin before the one before it ends


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
    """`utterance channel start duration label`, sorted as NIST's tools expect it; silence is left out.

    Starts and ends are rounded before durations are taken, so that none ends after the next begins.
    """
    for times in sorted(utterances, key=lambda times: times.utterance):
        for interval in times.words if tier == "words" else times.phones:
            if interval.label:
                start, end = round(interval.start, _DIGITS), round(interval.end, _DIGITS)
                yield f"{times.utterance} 1 {start:.{_DIGITS}f} {end - start:.{_DIGITS}f} {interval.label}\n"


def read_ctm(path: Path) -> Iterator[tuple[str, Interval]]:
    """(utterance, interval) of each line, in the file's order; comments (;;) are left out, channels do not count.

    Raises:
      UserError: the file cannot be read, or a line is wrong; the line is named.
    """
    with open_text(path, "the CTM file", "write it again") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields or fields[0].startswith(";;"):
                continue
            try:
                start, duration = float(fields[2]), float(fields[3])
                interval = Interval(start, start + duration, fields[4])
            except (IndexError, ValueError):
                start = duration = math.nan
            if not (0 <= start < math.inf and 0 <= duration < math.inf):
                raise UserError(
                    f"{path}:{number}: expected UTTERANCE CHANNEL START DURATION LABEL, found {line.strip()[:60]!r}; "
                    "correct the line."
                )
            yield fields[0], interval


def find_textgrids(folder: Path, utterances: Collection[str]) -> dict[str, Path]:
    """Name -> file, of all TextGrids below a folder.

    A name is the file's without its ending; with the folders that the file lies in where that is one of `utterances`.

    Raises:
      UserError: two files have one name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() != ".textgrid" or path.name[0] == ".":
            continue
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if name not in utterances:
            name = name.rpartition("/")[2]
        if name in files:
            raise UserError(f"{folder}: {files[name]} and {path} are both of {name}; delete one of them.")
        files[name] = path
    return files


def write_textgrid(times: Times, path: Path) -> None:
    """Praat's long text form in UTF-8, with the tiers `words` and `phones`."""
    duration = round(times.duration, _DIGITS)
    grid = Textgrid(0, duration)
    for name, intervals in (("words", times.words), ("phones", times.phones)):
        entries = [(round(i.start, _DIGITS), round(i.end, _DIGITS), i.label) for i in intervals]
        grid.addTier(interval_tier.IntervalTier(name, entries, 0, duration))
    grid.save(str(path), "long_textgrid", includeBlankSpaces=False)


def read_textgrid(path: Path) -> Times:
    """Reads the words and the phones, in the long or short form, UTF-8 or UTF-16; a tier that is missing is empty.

    The tiers of intervals are called word, words or wrd, and phone, phones or phn, in any case; after a speaker's name
    and " - ", too. Tiers of points do not count.

    Raises:
      UserError: the file cannot be read, has neither tier or one of them twice, or an interval is out of order.
    """
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        end, tiers = parse_textgrid(content.decode(encoding))
    except (OSError, ValueError) as error:
        reason = "it is neither UTF-8 nor UTF-16" if isinstance(error, UnicodeDecodeError) else str(error).rstrip(".")
        raise UserError(f"{path}: cannot be read as a TextGrid ({reason}); save it as text with Praat.") from None
    chosen = {of: _tier(path, tiers, of) for of in _TIERS}
    if not any(chosen.values()):
        names = ", ".join(repr(tier.name) for tier in tiers) or "tiers of points"
        raise UserError(f"{path}: there is no tier 'words' or 'phones', only {names}; rename its tiers.")
    return Times(path.stem, end, *(_intervals(path, tier) if tier else [] for tier in chosen.values()))


def _tier(path: Path, tiers: Sequence[IntervalTier], of: str) -> IntervalTier | None:
    named = [tier for tier in tiers if tier.name.strip().lower().rpartition(" - ")[2] in _TIERS[of]]
    if len(named) > 1:
        both = " and ".join(repr(tier.name) for tier in named[:2])
        raise UserError(f"{path}: tiers {both} are both of {of}; rename or delete one of them.")
    return named[0] if named else None


def _intervals(path: Path, tier: IntervalTier) -> list[Interval]:
    intervals = [Interval(*entry) for entry in tier.intervals]
    before = 0.0
    for number, interval in enumerate(intervals, 1):
        if interval.end < interval.start or interval.start < before - _ROUNDING:
            raise UserError(
                f"{path}: tier {tier.name!r}: interval {number} ({interval.label!r}) is from {interval.start} to "
                f"{interval.end} s, and the one before it ends at {before} s; correct its times."
            )
        before = interval.end
    return intervals

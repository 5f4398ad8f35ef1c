"""TIMIT's manual times: .PHN and .WRD files, and the sets of phones they are mapped to.

A line of either is "FIRST END LABEL", in samples. The phones of an utterance follow each other without gaps; words may
overlap, where two of them share a sound.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.listing import read_lines
from asr_kd.errors import UserError
from asr_kd.lang.lexicon import SILENCE

PHONES_FILE = "phones.txt"
_SILENT = "sil"
_DROPPED = "-"
_FIX = "correct the line or fetch the file again"


@dataclass(frozen=True)
class Span:
    """A phone or word, from one sample up to another."""

    first: int
    end: int
    label: str


def read_phone_map(conf_dir: Path, phone_set: int) -> dict[str, str | None]:
    """TIMIT's phone -> the one of the set of 61, 48 or 39, upper case; None: left out. Silence of any kind is SIL.

    Raises:
      UserError: the file is missing, or a line has not three columns.
    """
    path = conf_dir / PHONES_FILE
    column = {61: 0, 48: 1, 39: 2}[phone_set]
    table: dict[str, str | None] = {}
    for number, line in read_lines(path, "put the table of phones beside the config"):
        if line.startswith("#"):
            continue
        columns = line.split()
        if len(columns) != 3:
            raise UserError(f"{path}:{number}: expected the phones of the sets of 61, 48 and 39, found {line!r}.")
        name = columns[column]
        # silence is silence in every set, and so is what a smaller set makes of it
        silent = columns[1] == _SILENT or name == _SILENT
        table[columns[0]] = SILENCE if silent else None if columns[1] == _DROPPED and column else name.upper()
    return table


def scored_phones(conf_dir: Path, size: int) -> dict[str, str | None]:
    """Phone of this set or a larger one, upper case -> what it is scored as; None: left out.

    Args:
      size: of the set that is scored: 61, 48 or 39.

    Raises:
      UserError: as `read_phone_map`.
    """
    scored = read_phone_map(conf_dir, size)
    table: dict[str, str | None] = {}
    for phone_set in (s for s in (61, 48, 39) if s >= size):
        for phone, name in read_phone_map(conf_dir, phone_set).items():
            if name is not None:
                # a smaller set joins phones of the larger, so phones of the same name are scored alike
                table[name] = scored[phone]
    return table


def read_phones(path: Path, known: Mapping[str, str | None], num_samples: int | None) -> list[Span]:
    """The phones of a .PHN file as they are written.

    Args:
      num_samples: of the recording; None: not known.

    Raises:
      UserError: the file is missing, a line is malformed, a phone is unknown, times overlap, leave a gap, or run past
        the recording.
    """
    spans = _read(path, num_samples)
    for number, (before, span) in enumerate(itertools.pairwise(spans), 2):
        if span.first != before.end:
            how = "overlaps with" if span.first < before.end else "leaves a gap after"
            raise UserError(
                f"{path}:{number}: {span.label} {how} the phone before, which ends at {before.end}; {_FIX}."
            )
    for number, span in enumerate(spans, 1):
        if span.label not in known:
            raise UserError(f"{path}:{number}: {span.label} is none of the phones of {PHONES_FILE}; {_FIX}.")
    return spans


def read_words(path: Path, num_samples: int | None) -> list[Span]:
    """The words of a .WRD file, in order; errors as `read_phones` but for overlaps and gaps."""
    spans = _read(path, num_samples)
    for number, (before, span) in enumerate(itertools.pairwise(spans), 2):
        if span.first < before.first:
            raise UserError(f"{path}:{number}: {span.label} begins before the word above it; {_FIX}.")
    return spans


def _read(path: Path, num_samples: int | None) -> list[Span]:
    spans = []
    for number, line in read_lines(path, "fetch it again, or leave the utterance out"):
        fields = line.split()
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            raise UserError(f"{path}:{number}: expected FIRST END LABEL, found {line[:60]!r}; {_FIX}.")
        span = Span(int(fields[0]), int(fields[1]), fields[2].lower())
        if span.end <= span.first:
            raise UserError(f"{path}:{number}: {span.label} ends at {span.end}, where it begins or before; {_FIX}.")
        if num_samples is not None and span.end > num_samples:
            raise UserError(
                f"{path}:{number}: {span.label} ends at {span.end}, but the recording has {num_samples} samples; "
                f"{_FIX}."
            )
        spans.append(span)
    if not spans:
        raise UserError(f"{path} is empty; fetch it again, or leave the utterance out.")
    return spans


def mapped(spans: list[Span], table: Mapping[str, str | None]) -> list[Span]:
    """Phones of another set: a phone that is left out is added to the one before it; adjacent silences are joined."""
    result: list[Span] = []
    for span in spans:
        label = table[span.label]
        if result and (label is None or label == result[-1].label == SILENCE):
            result[-1] = Span(result[-1].first, span.end, result[-1].label)
        else:
            # an utterance that begins with a phone that is left out: its time goes to silence
            result.append(Span(span.first, span.end, SILENCE if label is None else label))
    return result

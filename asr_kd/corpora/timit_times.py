"""TIMIT's manual times: .PHN and .WRD files, and the sets of phones they are mapped to.

A line of either is "FIRST END LABEL", in samples. The phones of an utterance follow each other without gaps; words may
overlap, where two of them share a sound.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.listing import read_table
from asr_kd.corpora.settings import CorpusConfig, TimitConfig
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring
from asr_kd.io.files import read_lines
from asr_kd.lang.lexicon import SILENCE
from asr_kd.lang.normalise import unspaced
from asr_kd.lang.settings import LangConfig

PHONES_FILE = "phones.txt"
_SILENT = "sil"
_DROPPED = "-"


@dataclass(frozen=True)
class Span:
    """A phone or word, from one sample up to another."""

    first: int
    end: int
    label: str


def read_phone_map(conf_dir: Path, phone_set: int) -> dict[str, str | None]:
    """TIMIT's phone -> the one of the set of 61, 48 or 39, upper case; None: left out. Silence of any kind is SIL.

    Raises:
      UserError: the file is missing, a line has not three columns, or a phone is there twice.
    """
    path = conf_dir / PHONES_FILE
    column = {61: 0, 48: 1, 39: 2}[phone_set]
    rows = read_table(
        path, "put the table of phones beside the config", "the phones of the sets of 61, 48 and 39",
        lambda phone, smaller: smaller if len(smaller.split()) == 2 else None, comment="#",
    )  # fmt: skip
    table: dict[str, str | None] = {}
    for phone, smaller in rows.items():
        columns = (phone, *smaller.split())
        name = columns[column]
        # silence is silence in every set, and so is what a smaller set makes of it
        silent = columns[1] == _SILENT or name == _SILENT
        table[phone] = SILENCE if silent else None if columns[1] == _DROPPED and column else name.upper()
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


def scoring_of(corpus: CorpusConfig, lang: LangConfig, config_path: Path) -> Scoring:
    """What a recipe's errors are counted in: its words; or, where phones are recognised, the phones that are scored.

    Where a language is written without spaces they are its characters. Elsewhere characters are counted beside the
    words where words are made of characters or pieces.

    Raises:
      UserError: the table of phones is missing or malformed, or more phones are to be scored than are trained.
    """
    if not isinstance(corpus, TimitConfig) or corpus.transcripts != "phones":
        split = lang.normalise == "spoken" and unspaced(lang.language)
        return Scoring(unspaced=split, characters=not split and lang.units in ("characters", "bpe"))
    if corpus.scored_phones > corpus.phone_set:
        raise UserError(
            f"{config_path}: corpus.scored_phones is {corpus.scored_phones}, but corpus.phone_set only "
            f"{corpus.phone_set}; phones that training does not distinguish cannot be scored apart."
        )
    return Scoring(scored_phones(config_path.parent, corpus.scored_phones))


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
            raise _wrong(path, number, f"{span.label} {how} the phone before, which ends at {before.end}")
    for number, span in enumerate(spans, 1):
        if span.label not in known:
            raise _wrong(path, number, f"{span.label} is none of the phones of {PHONES_FILE}")
    return spans


def read_words(path: Path, num_samples: int | None) -> list[Span]:
    """The words of a .WRD file, in order; errors as `read_phones` but for overlaps and gaps."""
    spans = _read(path, num_samples)
    for number, (before, span) in enumerate(itertools.pairwise(spans), 2):
        if span.first < before.first:
            raise _wrong(path, number, f"{span.label} begins before the word above it")
    return spans


def _read(path: Path, num_samples: int | None) -> list[Span]:
    spans = []
    for number, line in read_lines(path, "fetch it again, or leave the utterance out"):
        fields = line.split()
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            raise _wrong(path, number, f"expected FIRST END LABEL, found {line[:60]!r}")
        span = Span(int(fields[0]), int(fields[1]), fields[2].lower())
        if span.end <= span.first:
            raise _wrong(path, number, f"{span.label} ends at {span.end}, where it begins or before")
        if num_samples is not None and span.end > num_samples:
            what = f"{span.label} ends at {span.end}, but the recording has {num_samples} samples"
            raise _wrong(path, number, what)
        spans.append(span)
    if not spans:
        raise UserError(f"{path} is empty; fetch it again, or leave the utterance out.")
    return spans


def _wrong(path: Path, number: int, what: str) -> UserError:
    return UserError(f"{path}:{number}: {what}; correct the line or fetch the file again.")


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

"""Labels from elsewhere: the phone times of another aligner, read from the files of a folder.

The folder holds files of one kind:

- TextGrids, one for each utterance and named after it, with a tier of phones;
- CTM files (`*.ctm`, `*.ctm.gz`), "utterance channel start duration phone", as of `ali-to-phones --ctm-output`;
- Kaldi archives (`*.ark`, `*.scp`, `ali.*.gz`) with a vector of integers for each utterance, one a frame: phones
  (`ali-to-phones --per-frame=true`), pdfs (`ali-to-pdf`) or transitions.

Where labels are numbers, `phones.txt` in the folder ("phone number" lines, as in Kaldi's lang folders) names them.

Shapes:  K labels of an utterance.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.times import Interval, find_textgrids, read_ctm, read_textgrid
from asr_kd.errors import UserError
from asr_kd.io.files import read_lines
from asr_kd.io.kaldi_tables import file_of, read_int_vectors, script_entries

# a label (an index into the names), its start and its end in frames
SPAN = np.dtype([("label", "<i4"), ("start", "<f4"), ("end", "<f4")])
_PHONES = "phones.txt"
_CTM = re.compile(r".*\.ctm(\.gz)?")
_WORDS = re.compile(r"words\.ctm(\.gz)?")
_ARCHIVE = re.compile(r".*\.ark(\.gz)?|ali\.\d+\.gz")
_TRANSITIONS = re.compile(r"ali\.\d+\.gz")

Row = tuple[str, float, float]  # label, start and end in frames


@dataclass(frozen=True)
class GivenLabels:
    """The labels of some utterances.

    Attributes:
      folder: that they were read from, for messages.
      names: of the labels; the first is "", silence.
      spans: utterance -> (K,) of SPAN, in the order of their starts.
    """

    folder: Path
    names: Sequence[str]
    spans: Mapping[str, NDArray[np.void]]


def label_files(folder: Path) -> list[Path]:
    """All files that `read_labels` reads; errors as there."""
    kind, files = _sources(folder)
    if kind == "Kaldi archives":
        files += [file_of(where) for path in files if path.suffix == ".scp" for _, where in script_entries(path)]
    if missing := [path for path in files if not path.exists()]:
        raise UserError(
            f"{missing[0]} is missing, but an .scp in {folder} names it; put it there, or correct the .scp."
        )
    table = folder / _PHONES
    return sorted({*files, *([table] if table.exists() else [])})


def read_labels(folder: Path, utterances: Collection[str], frame_seconds: float) -> GivenLabels:
    """The labels of those of these utterances that the folder has labels of.

    Args:
      frame_seconds: from one of our frames to the next; times become frames by it. Archives count frames already.

    Raises:
      UserError: there is no such folder, it has no labels, labels of several kinds or of other utterances alone; or a
        file cannot be read.
    """
    kind, files = _sources(folder)
    table = folder / _PHONES
    phones = _read_phones(table) if table.exists() else {}
    request = _Request(folder, files, phones, utterances, frame_seconds)
    index: dict[str, int] = {"": 0}
    labelled: dict[str, list[NDArray[np.void]]] = {}
    other = ""
    for utterance, rows in _READERS[kind](request):
        if utterance in utterances:
            indexed = [(index.setdefault(label, len(index)), start, end) for label, start, end in rows]
            labelled.setdefault(utterance, []).append(np.array(indexed, SPAN))
        else:
            other = min(other or utterance, utterance)
    if not labelled:
        names = f" ({other} and so on, but the utterances are {min(utterances)} and so on)" if other else ""
        raise UserError(f"{folder}: it has labels of none of the training utterances{names}; name another folder.")
    spans = {u: np.sort(np.concatenate(parts), order="start", kind="stable") for u, parts in labelled.items()}
    return GivenLabels(folder, list(index), spans)


def _sources(folder: Path) -> tuple[str, list[Path]]:
    """The kind of files that a folder has, and these files, sorted; without what an .scp names."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name the one that holds the labels as alignment.dir.")
    inside = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    times = [path for path in inside if _CTM.fullmatch(path.name)]
    scripts = [path for path in inside if path.suffix == ".scp"]
    kinds = {
        "TextGrids": sorted(find_textgrids(folder, ()).values()),
        # align --export ctm writes words.ctm too
        "CTM files": [path for path in times if not _WORDS.fullmatch(path.name)] or times,
        "Kaldi archives": scripts or [path for path in inside if _ARCHIVE.fullmatch(path.name)],
    }
    present = [kind for kind, files in kinds.items() if files]
    if len(present) != 1:
        what = f"{present[0]} and {present[1]}; keep one kind" if present else "no TextGrid, .ctm, .ark or .scp file"
        raise UserError(f"{folder}: the folder of the labels (alignment.dir) holds {what}.")
    return present[0], kinds[present[0]]


@dataclass(frozen=True)
class _Request:
    """What is read: some utterances' labels from files of one kind. Of other utterances only the names are given."""

    folder: Path
    files: Sequence[Path]
    phones: Mapping[str, str]  # number -> name
    utterances: Collection[str]
    frame_seconds: float

    def row(self, interval: Interval, names: Mapping[str, str]) -> Row:
        """Counts the times of an interval in frames; its label is renamed where it is among `names`."""
        label = names.get(interval.label, interval.label)
        return label, interval.start / self.frame_seconds, interval.end / self.frame_seconds


def _read_textgrids(request: _Request) -> Iterator[tuple[str, Sequence[Row]]]:
    for utterance, path in find_textgrids(request.folder, request.utterances).items():
        needed = utterance in request.utterances
        intervals = read_textgrid(path).phones if needed else []
        if needed and not intervals:
            raise UserError(f"{path}: there is no tier 'phones' in it; rename its tier of phones, or delete the file.")
        yield utterance, [request.row(interval, {}) for interval in intervals]


def _read_ctms(request: _Request) -> Iterator[tuple[str, Sequence[Row]]]:
    for path in request.files:
        for utterance, lines in itertools.groupby(read_ctm(path), lambda line: line[0]):
            yield utterance, [request.row(interval, request.phones) for _, interval in lines]


def _read_archives(request: _Request) -> Iterator[tuple[str, Sequence[Row]]]:
    """Equal numbers that follow each other are one label. Kaldi's own ali.1.gz, ... have transitions, no phones."""
    for path in request.files:
        names = {} if _TRANSITIONS.fullmatch(path.name) else request.phones
        for utterance, numbers in read_int_vectors(path):
            if utterance not in request.utterances:
                yield utterance, ()
                continue
            starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
            labels, ends = [str(number) for number in numbers[starts]], np.append(starts[1:], len(numbers))
            if names and (unknown := [label for label in labels if label not in names]):
                raise UserError(
                    f"{path}: {utterance} has the label {unknown[0]}, which {request.folder / _PHONES} lacks; put the "
                    "phones.txt that it was made with there, or none where the labels are pdfs or transitions."
                )
            yield utterance, list(zip((names.get(label, label) for label in labels), starts.tolist(), ends.tolist()))


_READERS = {"TextGrids": _read_textgrids, "CTM files": _read_ctms, "Kaldi archives": _read_archives}


def _read_phones(path: Path) -> dict[str, str]:
    """Number -> phone."""
    table = {}
    for line_number, line in read_lines(path, "take it from the lang folder that the labels were made with"):
        phone, *number = line.split()
        if len(number) != 1 or not number[0].isdigit():
            raise UserError(
                f"{path}:{line_number}: expected PHONE NUMBER, found {line.strip()[:60]!r}; correct the line."
            )
        table[number[0]] = phone
    return table

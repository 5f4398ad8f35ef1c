"""Two alignments of the same speech: how far apart their boundaries are, and constant offsets that move ours closer.

An aligner has no reason to agree with people on where a vowel turns into an R, and is always off by the same few
milliseconds. Offsets, one for each kind of boundary, can be learnt from some manual times; they are no part of the
alignment itself, which knows no manual time, and frames keep their labels.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from kaldialign import align as align_sequences

from asr_kd.alignment.times import Interval, Times
from asr_kd.errors import UserError
from asr_kd.io.yaml_files import load_yaml
from asr_kd.lang.phones import BETWEEN, CLASSES, INSIDE, boundary_kind

TOLERANCES = (10, 20, 30, 50)  # milliseconds
OFFSETS_FILE = "boundary_offsets.yaml"
SILENT = frozenset({"", "SIL", "SP", "SPN", "<EPS>", "<SIL>", "PAU", "EPI", "H#"})
POSITION = re.compile(r"_[BIES]$")
_NOTHING = "\0"  # no label
_ROUNDING = 1e-6  # seconds: a difference of 0.02 is within 20 ms in spite of rounding
# Weight, in boundaries, of the median of all kinds in each kind's: the median of a few boundaries is not reliable.
_PULL = 10
_LARGEST_MOVE = 0.4  # of the shorter neighbour: less than half, so that boundaries keep their order
_MOST_PARTS = 16  # that speakers are divided into

Statistics = dict[str, float | int]
BoundaryOffsets = Mapping[str, float]  # kind -> ms to add to our time


class Boundary(NamedTuple):
    """A boundary that both alignments have."""

    difference: float  # our time minus the reference's, in seconds
    kind: str  # classes of the reference's phones on both sides: "stop-vowel"
    time: float  # ours, in seconds


@dataclass(frozen=True)
class Boundaries:
    """The boundaries that two alignments have in common."""

    common: Sequence[Boundary]
    unmatched: int = 0  # labels of the reference that ours lacks, as with another pronunciation

    def statistics(self) -> Statistics:
        """Shares within each tolerance; mean and median of the absolute and of the signed differences, in ms."""
        of_all = _statistics([boundary.difference for boundary in self.common])
        return {"boundaries": of_all["boundaries"], "unmatched": self.unmatched} | of_all

    def by_kind(self) -> dict[str, Statistics]:
        """Statistics of each kind of boundary, the most frequent first."""
        differences: dict[str, list[float]] = {}
        for boundary in sorted(self.common, key=lambda boundary: boundary.kind):
            differences.setdefault(boundary.kind, []).append(boundary.difference)
        ordered = sorted(differences.items(), key=lambda item: -len(item[1]))
        return {kind: _statistics(of_kind) for kind, of_kind in ordered}


def _statistics(differences: Sequence[float]) -> Statistics:
    ms = 1000 * np.array(differences)
    if len(ms) == 0:
        return {"boundaries": 0}
    within = {f"within_{t}ms": float((np.abs(ms) <= t + 1000 * _ROUNDING).mean()) for t in TOLERANCES}
    return {
        "boundaries": len(ms),
        **within,
        "mean_abs_ms": float(np.abs(ms).mean()),
        "median_abs_ms": float(np.median(np.abs(ms))),
        "mean_ms": float(ms.mean()),
        "median_ms": float(np.median(ms)),
    }


def pooled(parts: Sequence[Boundaries]) -> Boundaries:
    """The boundaries of several utterances together."""
    return Boundaries([boundary for part in parts for boundary in part.common], sum(part.unmatched for part in parts))


def boundaries(ours: Sequence[Interval], reference: Sequence[Interval]) -> Boundaries:
    """Finds the boundaries that two alignments share: where equal labels begin, and where they end before silence.

    Labels are matched by edit distance. Case, stress marks, positions in words (AA1_B) and silence are ignored. Where
    one label ends and the next begins there is one boundary.
    """
    left, right = _spoken(ours), _spoken(reference)
    aligned = align_sequences([i.label for i in right], [i.label for i in left], _NOTHING)
    common: list[Boundary] = []
    i = j = unmatched = 0
    for theirs, mine in aligned:
        if theirs == mine:
            follows = i > 0 and right[i].start <= right[i - 1].end + _ROUNDING
            kind = boundary_kind(right[i - 1].label if follows else "", theirs)
            common.append(Boundary(left[j].start - right[i].start, kind, left[j].start))
            if i + 1 == len(right) or right[i + 1].start > right[i].end + _ROUNDING:
                common.append(Boundary(left[j].end - right[i].end, boundary_kind(theirs, ""), left[j].end))
        elif theirs != _NOTHING:
            unmatched += 1
        i += theirs != _NOTHING
        j += mine != _NOTHING
    return Boundaries(common, unmatched)


def _spoken(intervals: Sequence[Interval]) -> list[Interval]:
    plain = [Interval(i.start, i.end, POSITION.sub("", i.label.upper()).rstrip("012")) for i in intervals]
    return [interval for interval in plain if interval.label not in SILENT]


def boundaries_to_learn_from(ours: Times, reference: Times) -> list[Boundary]:
    """Returns boundaries of phones inside words, as "stop-vowel", and of words, as "stop#vowel" by our own phones."""
    of_phones = boundaries(ours.phones, reference.phones).common
    edges = _word_edges(ours)
    if not edges:
        return list(of_phones)
    labels = ["", *(phone.label for phone in ours.phones), ""]
    times = [*(phone.start for phone in ours.phones), *(phone.end for phone in ours.phones[-1:])]
    around = dict(zip(times, itertools.pairwise(labels)))
    of_words = [
        word._replace(kind=boundary_kind(*around.get(word.time, ("", "")), between_words=True))
        for word in boundaries(ours.words, reference.words).common
    ]
    return [phone for phone in of_phones if phone.time not in edges] + of_words


def _word_edges(times: Times) -> set[float]:
    """Returns the times in seconds at which words begin and end.

    The set is empty where the transcript is of phones, so that each phone is a word.
    """
    if [word.label for word in times.words] == [phone.label for phone in times.phones]:
        return set()
    return {edge for word in times.words for edge in (word.start, word.end)}


def learn_offsets(differences: Sequence[Boundary]) -> dict[str, float]:
    """Minus the median difference of each kind, shrunk towards that of all kinds inside words, or between words."""
    ms = 1000 * np.array([boundary.difference for boundary in differences])
    kinds = np.array([boundary.kind for boundary in differences])
    between = np.array([BETWEEN in kind for kind in kinds], bool)
    offsets = {}
    for group in (~between, between):
        for kind in np.unique(kinds[group]):
            of_kind = ms[kinds == kind]
            pull = float(np.median(ms[group])) * _PULL
            offsets[str(kind)] = round(-(float(np.median(of_kind)) * len(of_kind) + pull) / (len(of_kind) + _PULL), 2)
    return offsets


def apply_offsets(times: Times, offsets: BoundaryOffsets) -> Times:
    """Moves the boundaries between phones, and the words' with them; none passes another.

    Between words, where there is no offset for their phones, the offset of the same phones inside a word is used.
    """
    edges = _word_edges(times)
    moved: dict[float, float] = {}
    for left, right in itertools.pairwise(times.phones):
        most = _LARGEST_MOVE * min(left.end - left.start, right.end - right.start)
        offset = offsets.get(boundary_kind(left.label, right.label), 0.0)
        if right.start in edges:
            offset = offsets.get(boundary_kind(left.label, right.label, between_words=True), offset)
        moved[right.start] = right.start + min(max(offset / 1000, -most), most)

    def tier(intervals: Sequence[Interval]) -> list[Interval]:
        return [Interval(moved.get(i.start, i.start), moved.get(i.end, i.end), i.label) for i in intervals]

    return Times(times.utterance, times.duration, tier(times.words), tier(times.phones))


def apply_offsets_of_other_speakers(
    pairs: Sequence[tuple[Times, Times]], speakers: Mapping[str, str]
) -> list[tuple[Times, Times]]:
    """(ours, the reference) with ours moved by the offsets learnt from the other speakers.

    Cross-validation: speakers are left out one by one where there are at most 16, else in 16 parts.
    """
    order = sorted({speakers[ours.utterance] for ours, _ in pairs})
    part_of = {speaker: k % _MOST_PARTS for k, speaker in enumerate(order)}
    parts: dict[int, list[tuple[Times, Times]]] = {}
    for pair in pairs:
        parts.setdefault(part_of[speakers[pair[0].utterance]], []).append(pair)
    differences = {k: [b for pair in part for b in boundaries_to_learn_from(*pair)] for k, part in parts.items()}
    moved = []
    for k, part in sorted(parts.items()):
        offsets = learn_offsets([b for other, of_part in differences.items() if other != k for b in of_part])
        moved += [(apply_offsets(ours, offsets), reference) for ours, reference in part]
    return moved


def write_offsets(path: Path, offsets: BoundaryOffsets) -> None:
    """YAML, one kind a line."""
    text = yaml.safe_dump(dict(offsets), sort_keys=True)
    path.write_text(
        f"# ms to add to our time of a boundary, by the kinds of phones around it\n{text}", encoding="utf-8"
    )


def read_offsets(path: Path) -> dict[str, float]:
    """What `write_offsets` wrote.

    Raises:
      UserError: the file cannot be read, or a line is not a kind of boundary with a number.
    """
    raw = load_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected lines like 'stop-vowel: -2.5', found {raw!r}.")
    for kind, value in raw.items():
        left, _, right = str(kind).partition(BETWEEN if BETWEEN in str(kind) else INSIDE)
        if left not in CLASSES or right not in CLASSES:
            raise UserError(f"{path}: {kind!r} is no kind of boundary; name two of {', '.join(CLASSES)} (stop-vowel).")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {kind}: {value!r} is not a number of milliseconds.")
    return {str(kind): float(value) for kind, value in raw.items()}

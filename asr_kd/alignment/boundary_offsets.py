"""Constant offsets between manual boundaries and an aligner's, one for each kind of boundary.

An aligner has no reason to agree with people on where a vowel turns into an R, and is always off by the same few
milliseconds. These constants can be learnt from some manual times; they are no part of the alignment itself, which
knows no manual time, and frames keep their labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from asr_kd.alignment.boundaries import Boundaries, boundaries, pooled
from asr_kd.alignment.times import Interval, Times
from asr_kd.errors import UserError
from asr_kd.io.yaml_files import load_yaml
from asr_kd.lang.phone_classes import BETWEEN, CLASSES, INSIDE, boundary_kind

OFFSETS_FILE = "boundary_offsets.yaml"
# Weight, in boundaries, of the median of all kinds in each kind's: the median of a few boundaries is not reliable.
_PULL = 10
_LARGEST_MOVE = 0.4  # of the shorter neighbour: less than half, so that boundaries keep their order
_MOST_PARTS = 16  # that speakers are divided into

BoundaryOffsets = Mapping[str, float]  # kind -> ms to add to our time


def boundaries_to_learn_from(ours: Times, reference: Times) -> Boundaries:
    """Boundaries of phones inside words, as "stop-vowel", and of words, as "stop#vowel" by our own phones."""
    of_phones = boundaries(ours.phones, reference.phones)
    if not _words_are_apart(ours):
        return of_phones
    edges = _edges(ours)
    inside = [k for k, time in enumerate(of_phones.times) if time not in edges]
    of_phones = Boundaries(
        of_phones.differences[inside],
        of_phones.unmatched,
        tuple(of_phones.kinds[k] for k in inside),
        tuple(of_phones.times[k] for k in inside),
    )
    of_words = boundaries(ours.words, reference.words)
    around = {right.start: (left.label, right.label) for left, right in itertools.pairwise(ours.phones)}
    if ours.phones:
        around[ours.phones[0].start] = "", ours.phones[0].label
        around[ours.phones[-1].end] = ours.phones[-1].label, ""
    kinds = tuple(boundary_kind(*around.get(time, ("", "")), between_words=True) for time in of_words.times)
    return pooled([of_phones, replace(of_words, kinds=kinds)])


def _edges(times: Times) -> set[float]:
    return {edge for word in times.words for edge in (word.start, word.end)}


def _words_are_apart(times: Times) -> bool:
    """False where the transcript is of phones, so that each is a word."""
    return [word.label for word in times.words] != [phone.label for phone in times.phones]


def learn_offsets(differences: Boundaries) -> dict[str, float]:
    """Minus the median difference of each kind, shrunk towards that of all kinds inside words, or between words.

    Args:
      differences: at least one boundary.
    """
    ms, kinds = 1000 * differences.differences, np.array(differences.kinds)
    between = np.array([BETWEEN in kind for kind in differences.kinds])
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
    edges = _edges(times) if _words_are_apart(times) else set()
    starts = [phone.start for phone in times.phones]
    moved = dict(zip(starts, starts, strict=True))
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
    differences = {k: pooled([boundaries_to_learn_from(*pair) for pair in part]) for k, part in parts.items()}
    moved = []
    for k, part in sorted(parts.items()):
        others = pooled([of_part for other, of_part in sorted(differences.items()) if other != k])
        offsets = learn_offsets(others) if len(others.differences) else {}
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

"""Where hands put a boundary between two kinds of sounds, against where the aligner does: a constant for each kind.

An aligner has no reason to agree with people on where a vowel turns into an R, and is off by the same few milliseconds
all the time. Whoever has some hand-made times can learn these constants from them; they are no part of the alignment
itself, which knows of no hand-made time, and frames keep their labels.
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
from asr_kd.lang.phone_classes import BETWEEN, CLASSES, INSIDE, boundary_kind
from asr_kd.workspace.config import load_yaml

SHIFTS_FILE = "shifts.yaml"
_PULL = 10  # boundaries of any kind that count for each kind: few of a kind say little
_ROOM = 0.4  # of the shorter neighbour: less than half, so that boundaries keep their order
_MOST_PARTS = 16  # that speakers are divided into

Shifts = Mapping[str, float]  # kind -> ms to add to our time


def boundaries_to_learn_from(ours: Times, reference: Times) -> Boundaries:
    """Those of phones inside words, as "stop-vowel", and those of words, as "stop#vowel" by our own phones."""
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
    return {edge for one in times.words for edge in (one.start, one.end)}


def _words_are_apart(times: Times) -> bool:
    """Not where the transcript is of phones, each of which is a word."""
    return [one.label for one in times.words] != [one.label for one in times.phones]


def learn_shifts(found: Boundaries) -> dict[str, float]:
    """The median difference of each kind, with its sign turned, pulled towards that of all, inside words or between.

    Args:
      found: one boundary or more.
    """
    ms, kinds = 1000 * found.differences, np.array(found.kinds)
    between = np.array([BETWEEN in kind for kind in found.kinds])
    shifts = {}
    for group in (~between, between):
        for kind in np.unique(kinds[group]):
            of_kind = ms[kinds == kind]
            pulled = float(np.median(ms[group])) * _PULL
            shifts[str(kind)] = round(-(float(np.median(of_kind)) * len(of_kind) + pulled) / (len(of_kind) + _PULL), 2)
    return shifts


def shift_times(times: Times, shifts: Shifts) -> Times:
    """Moves the boundaries between phones, and those between words with them; none passes another.

    Where words meet and there is no constant for that, the one of the same phones inside a word holds.
    """
    edges = _edges(times) if _words_are_apart(times) else set()
    starts = [one.start for one in times.phones]
    moved = dict(zip(starts, starts, strict=True))
    for left, right in itertools.pairwise(times.phones):
        room = _ROOM * min(left.end - left.start, right.end - right.start)
        shift = shifts.get(boundary_kind(left.label, right.label), 0.0)
        if right.start in edges:
            shift = shifts.get(boundary_kind(left.label, right.label, between_words=True), shift)
        moved[right.start] = right.start + min(max(shift / 1000, -room), room)

    def tier(intervals: Sequence[Interval]) -> list[Interval]:
        return [Interval(moved.get(one.start, one.start), moved.get(one.end, one.end), one.label) for one in intervals]

    return Times(times.utterance, times.duration, tier(times.words), tier(times.phones))


def shifted_by_other_speakers(
    pairs: Sequence[tuple[Times, Times]], speakers: Mapping[str, str]
) -> list[tuple[Times, Times]]:
    """(ours, the reference) again, with ours moved by what was learnt from other speakers than the one it is of.

    Speakers are left out one by one where there are 16 or fewer, else in 16 parts.
    """
    order = sorted({speakers[ours.utterance] for ours, _ in pairs})
    part_of = {speaker: k % _MOST_PARTS for k, speaker in enumerate(order)}
    parts: dict[int, list[tuple[Times, Times]]] = {}
    for pair in pairs:
        parts.setdefault(part_of[speakers[pair[0].utterance]], []).append(pair)
    known = {k: pooled([boundaries_to_learn_from(*pair) for pair in part]) for k, part in parts.items()}
    found = []
    for k, part in sorted(parts.items()):
        others = pooled([one for other, one in sorted(known.items()) if other != k])
        shifts = learn_shifts(others) if len(others.differences) else {}
        found += [(shift_times(ours, shifts), theirs) for ours, theirs in part]
    return found


def write_shifts(path: Path, shifts: Shifts) -> None:
    """YAML, a line a kind."""
    text = yaml.safe_dump(dict(shifts), sort_keys=True)
    path.write_text(
        f"# ms to add to our time of a boundary, by the kinds of phones around it\n{text}", encoding="utf-8"
    )


def read_shifts(path: Path) -> dict[str, float]:
    """What `write_shifts` wrote.

    Raises:
      UserError: the file cannot be read, or has a line that is no kind of boundary with a number.
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

"""Where hands put a boundary between two kinds of sounds, against where the aligner does: a constant for each kind.

An aligner has no reason to agree with people on where a vowel turns into an R, and is off by the same few milliseconds
all the time. Whoever has some hand-made times can learn these constants from them; they are no part of the alignment
itself, which knows of no hand-made time, and frames keep their labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from asr_kd.alignment.boundaries import Boundaries, boundaries, pooled
from asr_kd.alignment.times import Interval, Times
from asr_kd.config import load_yaml
from asr_kd.errors import UserError
from asr_kd.lang.phone_classes import CLASSES, boundary_kind

SHIFTS_FILE = "shifts.yaml"
_PULL = 20  # boundaries of any kind that count for each kind: few of a kind say little
_ROOM = 0.4  # of the shorter neighbour: less than half, so that boundaries keep their order

Shifts = Mapping[str, float]  # kind -> ms to add to our time


def learn_shifts(found: Boundaries) -> dict[str, float]:
    """The median difference of each kind, with its sign turned, pulled towards that of all.

    Args:
      found: one boundary or more.
    """
    ms, kinds = 1000 * found.differences, np.array(found.kinds)
    every = float(np.median(ms))
    medians = {
        str(kind): (float(np.median(ms[kinds == kind])), int((kinds == kind).sum())) for kind in np.unique(kinds)
    }
    return {
        kind: round(-(median * count + every * _PULL) / (count + _PULL), 2) for kind, (median, count) in medians.items()
    }


def shift_times(times: Times, shifts: Shifts) -> Times:
    """Moves the boundaries between phones, and those between words with them; none passes another."""
    starts = [one.start for one in times.phones]
    moved = dict(zip(starts, starts, strict=True))
    for left, right in itertools.pairwise(times.phones):
        room = _ROOM * min(left.end - left.start, right.end - right.start)
        shift = shifts.get(boundary_kind(left.label, right.label), 0.0) / 1000
        moved[right.start] = right.start + min(max(shift, -room), room)

    def tier(intervals: Sequence[Interval]) -> list[Interval]:
        return [Interval(moved.get(one.start, one.start), moved.get(one.end, one.end), one.label) for one in intervals]

    return Times(times.utterance, times.duration, tier(times.words), tier(times.phones))


def shifted_by_other_speakers(
    pairs: Sequence[tuple[Times, Times]], speakers: Mapping[str, str]
) -> list[tuple[Times, Times]]:
    """(ours, the reference) again, with ours moved by what was learnt from the half of the speakers it is not of."""
    order = sorted({speakers[ours.utterance] for ours, _ in pairs})
    half = {speaker: k % 2 for k, speaker in enumerate(order)}
    sides: list[list[tuple[Times, Times]]] = [[], []]
    for pair in pairs:
        sides[half[speakers[pair[0].utterance]]].append(pair)
    found = []
    for side, other in (sides, sides[::-1]):
        known = pooled([boundaries(ours.phones, theirs.phones) for ours, theirs in other])
        shifts = learn_shifts(known) if len(known.differences) else {}
        found += [(shift_times(ours, shifts), theirs) for ours, theirs in side]
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
        left, _, right = str(kind).partition("-")
        if left not in CLASSES or right not in CLASSES:
            raise UserError(f"{path}: {kind!r} is no kind of boundary; name two of {', '.join(CLASSES)} (stop-vowel).")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {kind}: {value!r} is not a number of milliseconds.")
    return {str(kind): float(value) for kind, value in raw.items()}

"""Two alignments of the same speech: which boundaries both have, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from kaldialign import align as align_sequences

from asr_kd.alignment.times import Interval
from asr_kd.lang.phone_classes import boundary_kind

TOLERANCES = (10, 20, 30, 50)  # milliseconds
_SILENT = frozenset({"", "SIL", "SP", "SPN", "<EPS>", "<SIL>", "PAU", "EPI", "H#"})
_NOTHING = "\0"  # no label
_ROUNDING = 1e-6  # seconds: a difference of 0.02 is within 20 ms in spite of rounding


@dataclass(frozen=True)
class Boundaries:
    """Our time minus the reference's at each boundary that both have; seconds."""

    differences: np.ndarray  # (K,) float64
    unmatched: int = 0  # labels of the reference that ours lacks, as with another pronunciation
    kinds: tuple[str, ...] = ()  # (K,) classes of the reference's phones on both sides: "stop-vowel"
    times: tuple[float, ...] = ()  # (K,) ours, in seconds

    def statistics(self) -> dict[str, float | int]:
        """Shares within each tolerance; mean and median of the absolute and of the signed differences, in ms."""
        ms = 1000 * self.differences
        statistics: dict[str, float | int] = {"boundaries": len(ms), "unmatched": self.unmatched}
        if len(ms) == 0:
            return statistics
        for tolerance in TOLERANCES:
            statistics[f"within_{tolerance}ms"] = float((np.abs(ms) <= tolerance + 1000 * _ROUNDING).mean())
        return statistics | {
            "mean_abs_ms": float(np.abs(ms).mean()),
            "median_abs_ms": float(np.median(np.abs(ms))),
            "mean_ms": float(ms.mean()),
            "median_ms": float(np.median(ms)),
        }

    def by_kind(self) -> dict[str, dict[str, float | int]]:
        """Statistics of each kind of boundary, the most frequent first."""
        kinds = np.array(self.kinds)
        parts = {str(kind): Boundaries(self.differences[kinds == kind]) for kind in np.unique(kinds)}
        ordered = sorted(parts.items(), key=lambda item: -len(item[1].differences))
        return {kind: {k: v for k, v in part.statistics().items() if k != "unmatched"} for kind, part in ordered}


def pooled(parts: Sequence[Boundaries]) -> Boundaries:
    """The boundaries of several utterances together."""
    differences = [part.differences for part in parts]
    return Boundaries(
        np.concatenate([np.zeros(0), *differences]),
        sum(part.unmatched for part in parts),
        tuple(kind for part in parts for kind in part.kinds),
        tuple(time for part in parts for time in part.times),
    )


def boundaries(ours: Sequence[Interval], reference: Sequence[Interval]) -> Boundaries:
    """Where equal labels begin, and where they end before silence; labels are matched by edit distance.

    Case, stress marks and silence are ignored. Where one label ends and the next begins there is one boundary.
    """
    left, right = _spoken(ours), _spoken(reference)
    aligned = align_sequences([i.label for i in right], [i.label for i in left], _NOTHING)
    differences: list[float] = []
    kinds: list[str] = []
    times: list[float] = []
    i = j = unmatched = 0
    for theirs, mine in aligned:
        if theirs == mine:
            follows = i > 0 and right[i].start <= right[i - 1].end + _ROUNDING
            differences.append(left[j].start - right[i].start)
            times.append(left[j].start)
            kinds.append(boundary_kind(right[i - 1].label if follows else "", theirs))
            if i + 1 == len(right) or right[i + 1].start > right[i].end + _ROUNDING:
                differences.append(left[j].end - right[i].end)
                times.append(left[j].end)
                kinds.append(boundary_kind(theirs, ""))
        elif theirs != _NOTHING:
            unmatched += 1
        i += theirs != _NOTHING
        j += mine != _NOTHING
    return Boundaries(np.array(differences), unmatched, tuple(kinds), tuple(times))


def _spoken(intervals: Sequence[Interval]) -> list[Interval]:
    plain = [Interval(i.start, i.end, i.label.upper().rstrip("012")) for i in intervals]
    return [interval for interval in plain if interval.label not in _SILENT]

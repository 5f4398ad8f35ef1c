"""How far our word and phone boundaries are from a second opinion: another aligner's, or a phonetician's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kaldialign import align as align_sequences

from asr_kd.alignment.references import find_references
from asr_kd.alignment.times import SETS, Interval, Times, read_times
from asr_kd.artifacts import Stamp, Work, digest_of, file_digest, replacing_folder, require
from asr_kd.config import Config
from asr_kd.errors import UserError

TOLERANCES = (10, 20, 30, 50)  # milliseconds
_SILENT = frozenset({"", "SIL", "SP", "SPN", "<EPS>", "<SIL>", "PAU", "EPI", "H#"})
_NOTHING = "\0"  # no label
_WORST = 10
_ROUNDING = 1e-6  # seconds: 0.02 apart is within 20 ms whatever the floating point says


@dataclass(frozen=True)
class Boundaries:
    """Our time minus the other's at each boundary that both have; seconds."""

    differences: np.ndarray  # (K,) float64
    unmatched: int = 0  # labels of the reference that ours lacks: another pronunciation, say

    def statistics(self) -> dict[str, float | int]:
        """Shares within each tolerance; mean and median of the absolute and of the signed differences, in ms."""
        ms = 1000 * self.differences
        found: dict[str, float | int] = {"boundaries": len(ms), "unmatched": self.unmatched}
        if len(ms) == 0:
            return found
        for tolerance in TOLERANCES:
            found[f"within_{tolerance}ms"] = float((np.abs(ms) <= tolerance + 1000 * _ROUNDING).mean())
        return found | {
            "mean_abs_ms": float(np.abs(ms).mean()),
            "median_abs_ms": float(np.median(np.abs(ms))),
            "mean_ms": float(ms.mean()),
            "median_ms": float(np.median(ms)),
        }


@dataclass(frozen=True)
class Comparison:
    """Of all utterances that both have."""

    utterances: int
    missing: int  # references of utterances that are not in the recipe, or failed to align
    words: dict[str, float | int]
    phones: dict[str, float | int]
    worst: list[dict[str, Any]]  # {"utterance", "mean_abs_ms"} by words, the worst first

    def __str__(self) -> str:
        lines = [f"{self.utterances} utterances compared, {self.missing} references have no alignment here"]
        for name, one in (("words", self.words), ("phones", self.phones)):
            if "mean_abs_ms" not in one:
                lines.append(f"{name}: no boundary in common")
                continue
            within = ", ".join(f"{100 * one[f'within_{t}ms']:.1f} % within {t} ms" for t in TOLERANCES)
            lines.append(
                f"{name}: {one['boundaries']} boundaries: {within}; off by {one['mean_abs_ms']:.1f} ms in the mean, "
                f"median {one['median_ms']:+.1f} ms; {one['unmatched']} without a partner"
            )
        worst = ", ".join(f"{row['utterance']} ({row['mean_abs_ms']:.0f} ms)" for row in self.worst[:5])
        return "\n".join([*lines, f"worst: {worst}"])


def compare(config: Config, work: Work, form: str, directory: Path) -> Comparison:
    """Holds the finished alignment against the files below a folder, one per utterance, named after it.

    The result is kept in exp/align_compare, where the report finds it.

    Args:
      form: of `references.FORMS`.

    Raises:
      UserError: nothing is aligned yet, or the folder has no file of that form, or none of an aligned utterance.
    """
    aligned = require(work.exp("align"), work, "align")
    files = find_references(config, work, form, directory)
    ours = {times.utterance: times for name in SETS for times in read_times(work, name)}
    pairs = [(ours[name], reference.read()) for name, reference in files.items() if name in ours]
    if not pairs:
        raise UserError(
            f"{directory}: none of its {len(files)} files has the name of an aligned utterance "
            f"({min(files)} and so on, but here {min(ours)} and so on)."
        )
    result = compare_times(pairs, missing=len(files) - len(pairs))
    references = digest_of([file_digest(path) for reference in files.values() for path in reference.paths])
    inputs = {"align": aligned["digest"], "references": references}
    with replacing_folder(work.exp("align_compare"), Stamp("align compare", {"form": form}, inputs)) as temporary:
        (temporary / "compare.json").write_text(json.dumps(vars(result), indent=1) + "\n", encoding="utf-8")
    return result


def compare_times(pairs: Iterable[tuple[Times, Times]], missing: int = 0) -> Comparison:
    """(ours, the reference) of each utterance."""
    words, phones = [], []
    worst: list[dict[str, Any]] = []
    for ours, reference in pairs:
        words.append(boundaries(ours.words, reference.words))
        phones.append(boundaries(ours.phones, reference.phones))
        if len(words[-1].differences):
            off = 1000 * float(np.abs(words[-1].differences).mean())
            worst.append({"utterance": ours.utterance, "mean_abs_ms": round(off, 1)})
    worst.sort(key=lambda row: -row["mean_abs_ms"])
    return Comparison(len(words), missing, _pooled(words).statistics(), _pooled(phones).statistics(), worst[:_WORST])


def _pooled(parts: Sequence[Boundaries]) -> Boundaries:
    differences = [part.differences for part in parts]
    return Boundaries(np.concatenate([np.zeros(0), *differences]), sum(part.unmatched for part in parts))


def boundaries(ours: Sequence[Interval], reference: Sequence[Interval]) -> Boundaries:
    """Where equal labels begin, and where they end before silence; labels are brought together by edit distance.

    Case, stress marks and silence do not count: where one label ends and the next begins is one boundary.
    """
    left, right = _spoken(ours), _spoken(reference)
    aligned = align_sequences([one.label for one in right], [one.label for one in left], _NOTHING)
    differences: list[float] = []
    i = j = unmatched = 0
    for theirs, mine in aligned:
        if theirs == mine:
            differences.append(left[j].start - right[i].start)
            if i + 1 == len(right) or right[i + 1].start > right[i].end + _ROUNDING:
                differences.append(left[j].end - right[i].end)
        elif theirs != _NOTHING:
            unmatched += 1
        i += theirs != _NOTHING
        j += mine != _NOTHING
    return Boundaries(np.array(differences), unmatched)


def _spoken(intervals: Sequence[Interval]) -> list[Interval]:
    named = [Interval(one.start, one.end, one.label.upper().rstrip("012")) for one in intervals]
    return [one for one in named if one.label not in _SILENT]

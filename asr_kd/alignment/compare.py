"""How far our word and phone boundaries are from a second opinion: another aligner's, or a phonetician's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kaldialign import align as align_sequences

from asr_kd.alignment.figure import boundary_figure
from asr_kd.alignment.references import find_references
from asr_kd.alignment.times import SETS, Interval, Times, read_times
from asr_kd.artifacts import Stamp, Work, digest_of, file_digest, replacing_folder, require
from asr_kd.config import Config
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.lang.phone_classes import SILENCE, phone_class

TOLERANCES = (10, 20, 30, 50)  # milliseconds
_SILENT = frozenset({"", "SIL", "SP", "SPN", "<EPS>", "<SIL>", "PAU", "EPI", "H#"})
_NOTHING = "\0"  # no label
_WORST = 10
_KINDS_SHOWN = 12  # the most frequent; compare.json has all
_ROUNDING = 1e-6  # seconds: 0.02 apart is within 20 ms whatever the floating point says


@dataclass(frozen=True)
class Boundaries:
    """Our time minus the other's at each boundary that both have; seconds."""

    differences: np.ndarray  # (K,) float64
    unmatched: int = 0  # labels of the reference that ours lacks: another pronunciation, say
    kinds: tuple[str, ...] = ()  # (K,) the reference's classes of phones on both sides: "stop-vowel"

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

    def by_kind(self) -> dict[str, dict[str, float | int]]:
        """Statistics of each kind of boundary, the most frequent first."""
        kinds = np.array(self.kinds)
        parts = {str(kind): Boundaries(self.differences[kinds == kind]) for kind in np.unique(kinds)}
        ordered = sorted(parts.items(), key=lambda item: -len(item[1].differences))
        return {kind: {k: v for k, v in part.statistics().items() if k != "unmatched"} for kind, part in ordered}


@dataclass(frozen=True)
class Comparison:
    """Of all utterances that both have."""

    utterances: int
    missing: int  # references of utterances that are not in the recipe, or failed to align
    words: dict[str, float | int]
    phones: dict[str, float | int]
    phones_by_kind: dict[str, dict[str, float | int]]  # "stop-vowel": where a vowel follows a stop
    worst: list[dict[str, Any]]  # {"utterance", "mean_abs_ms"} by phones, or by words without them, the worst first
    typical: str  # the utterance in the middle

    def results(self) -> dict[str, Any]:
        """As in a report's results.json."""
        of_phones = {"boundaries": self.phones, "boundaries_by_kind": self.phones_by_kind}
        return {"alignment": {"compared": self.utterances, **of_phones, "words": self.words, "worst": self.worst}}

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
        lines += [
            f"  {kind:20s} {one['boundaries']:6d}: {100 * one['within_20ms']:5.1f} % within 20 ms, "
            f"median {one['median_ms']:+.1f} ms"
            for kind, one in list(self.phones_by_kind.items())[:_KINDS_SHOWN]
        ]
        worst = ", ".join(f"{row['utterance']} ({row['mean_abs_ms']:.0f} ms)" for row in self.worst[:5])
        return "\n".join([*lines, f"worst: {worst}"])


def compare(config: Config, work: Work, form: str, directory: Path) -> Comparison:
    """Holds the finished alignment against the files below a folder, one per utterance, named after it.

    The result is kept in exp/align_compare, where the report finds it: compare.json, the same as results.json, and
    a figure of the utterance in the middle.

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
        for name, content in (("compare", vars(result)), ("results", result.results())):
            (temporary / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        shown = next((pair for pair in pairs if pair[0].utterance == result.typical), None)
        if shown is not None:
            (temporary / "example.png").write_bytes(boundary_figure(_features(work, result.typical), *shown))
    return result


def _features(work: Work, utterance: str) -> np.ndarray:
    """(T, D) log-mel of an utterance of any set."""
    stores = [FrameStore.open(work.frames(name)) for name in SETS]
    store = next(store for store in stores if utterance in store.ids)
    features: np.ndarray = store.features[store.span(store.index(utterance))]
    return features


def compare_times(pairs: Iterable[tuple[Times, Times]], missing: int = 0) -> Comparison:
    """(ours, the reference) of each utterance."""
    words, phones = [], []
    worst: list[dict[str, Any]] = []
    for ours, reference in pairs:
        words.append(boundaries(ours.words, reference.words))
        phones.append(boundaries(ours.phones, reference.phones))
        differences = next((one[-1].differences for one in (phones, words) if len(one[-1].differences)), None)
        if differences is not None:
            off = 1000 * float(np.abs(differences).mean())
            worst.append({"utterance": ours.utterance, "mean_abs_ms": round(off, 1)})
    worst.sort(key=lambda row: -row["mean_abs_ms"])
    of_phones = _pooled(phones)
    return Comparison(
        len(words),
        missing,
        words=_pooled(words).statistics(),
        phones=of_phones.statistics(),
        phones_by_kind=of_phones.by_kind(),
        worst=worst[:_WORST],
        typical=worst[len(worst) // 2]["utterance"] if worst else "",
    )


def _pooled(parts: Sequence[Boundaries]) -> Boundaries:
    differences = [part.differences for part in parts]
    return Boundaries(
        np.concatenate([np.zeros(0), *differences]),
        sum(part.unmatched for part in parts),
        tuple(kind for part in parts for kind in part.kinds),
    )


def boundaries(ours: Sequence[Interval], reference: Sequence[Interval]) -> Boundaries:
    """Where equal labels begin, and where they end before silence; labels are brought together by edit distance.

    Case, stress marks and silence do not count: where one label ends and the next begins is one boundary.
    """
    left, right = _spoken(ours), _spoken(reference)
    aligned = align_sequences([one.label for one in right], [one.label for one in left], _NOTHING)
    differences: list[float] = []
    kinds: list[str] = []
    i = j = unmatched = 0
    for theirs, mine in aligned:
        if theirs == mine:
            here = phone_class(theirs)
            follows = i > 0 and right[i].start <= right[i - 1].end + _ROUNDING
            differences.append(left[j].start - right[i].start)
            kinds.append(f"{phone_class(right[i - 1].label) if follows else SILENCE}-{here}")
            if i + 1 == len(right) or right[i + 1].start > right[i].end + _ROUNDING:
                differences.append(left[j].end - right[i].end)
                kinds.append(f"{here}-{SILENCE}")
        elif theirs != _NOTHING:
            unmatched += 1
        i += theirs != _NOTHING
        j += mine != _NOTHING
    return Boundaries(np.array(differences), unmatched, tuple(kinds))


def _spoken(intervals: Sequence[Interval]) -> list[Interval]:
    named = [Interval(one.start, one.end, one.label.upper().rstrip("012")) for one in intervals]
    return [one for one in named if one.label not in _SILENT]

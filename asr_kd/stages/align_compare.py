"""How far our word and phone boundaries are from a second opinion: another aligner's, or a phonetician's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.alignment.boundaries import TOLERANCES, boundaries, pooled
from asr_kd.alignment.boundary_offsets import (
    SHIFTS_FILE,
    boundaries_to_learn_from,
    learn_shifts,
    shifted_by_other_speakers,
    write_shifts,
)
from asr_kd.alignment.times import Times
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import digest_of, file_digest
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.report.boundary_figure import boundary_figure
from asr_kd.stages.finished_alignment import SETS, read_times
from asr_kd.stages.reference_alignments import find_references
from asr_kd.workspace.config import Config
from asr_kd.workspace.work import Workspace, require

_WORST = 10
_KINDS_SHOWN = 12  # the most frequent; compare.json has all


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
    shifts: dict[str, float]  # kind -> ms by which moving our boundaries would help; none where that is done already
    # phones and words, were they moved so, by what other speakers say of each
    shifted: dict[str, dict[str, float | int]]

    def results(self) -> dict[str, Any]:
        """As in a report's results.json."""
        of_phones = {"boundaries": self.phones, "boundaries_by_kind": self.phones_by_kind}
        return {
            "alignment": {
                "compared": self.utterances,
                **of_phones,
                "words": self.words,
                "worst": self.worst,
                "shifted": self.shifted,
            }
        }

    def __str__(self) -> str:
        lines = [f"{self.utterances} utterances compared, {self.missing} references have no alignment here"]
        moved = [(f"{name}, each kind moved as the other speakers want it", one) for name, one in self.shifted.items()]
        for name, one in (("words", self.words), ("phones", self.phones), *moved):
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


def compare(config: Config, work: Workspace, form: str, directory: Path) -> Comparison:
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
    pairs, other = [], ""
    for ours in (times for name in SETS for times in read_times(work, name)):
        if ours.utterance in files:
            pairs.append((ours, files[ours.utterance].read()))
        else:
            other = min(other or ours.utterance, ours.utterance)
    if not pairs:
        raise UserError(
            f"{directory}: none of its {len(files)} files has the name of an aligned utterance "
            f"({min(files)} and so on, but here {other} and so on)."
        )
    result = compare_times(
        pairs, missing=len(files) - len(pairs), speakers=None if config.alignment.shifts else _speakers(work)
    )
    references = digest_of([file_digest(path) for reference in files.values() for path in reference.paths])
    inputs = {"align": aligned["digest"], "references": references}
    with replacing_folder(work.exp("align_compare"), Stamp("align compare", {"form": form}, inputs)) as temporary:
        for name, content in (("compare", vars(result)), ("results", result.results())):
            (temporary / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if result.shifts:
            write_shifts(temporary / SHIFTS_FILE, result.shifts)
        shown = next((pair for pair in pairs if pair[0].utterance == result.typical), None)
        if shown is not None:
            (temporary / "example.png").write_bytes(boundary_figure(_features(work, result.typical), *shown))
    return result


def _speakers(work: Workspace) -> dict[str, str]:
    """Utterance -> who speaks, as far as normalisation knows."""
    stores = {name: FrameStore.open(work.frames(name)) for name in SETS}
    return {
        utterance: f"{name} {group}"
        for name, store in stores.items()
        for utterance, group in zip(store.ids, store.groups.tolist(), strict=True)
    }


def _features(work: Workspace, utterance: str) -> np.ndarray:
    """(T, D) log-mel of an utterance of any set."""
    stores = [FrameStore.open(work.frames(name)) for name in SETS]
    store = next(store for store in stores if utterance in store.ids)
    features: np.ndarray = store.features[store.span(store.index(utterance))]
    return features


def compare_times(
    pairs: Sequence[tuple[Times, Times]], missing: int = 0, speakers: Mapping[str, str] | None = None
) -> Comparison:
    """(ours, the reference) of each utterance.

    Args:
      speakers: of the utterances, to tell what constant shifts would give; None: that is not asked.
    """
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
    of_phones = pooled(phones)
    shifts: dict[str, float] = {}
    shifted: dict[str, dict[str, float | int]] = {}
    if speakers is not None and len(of_phones.differences):
        shifts = learn_shifts(pooled([boundaries_to_learn_from(*pair) for pair in pairs]))
        moved = shifted_by_other_speakers(pairs, speakers)
        shifted = {
            "phones": pooled([boundaries(ours.phones, theirs.phones) for ours, theirs in moved]).statistics(),
            "words": pooled([boundaries(ours.words, theirs.words) for ours, theirs in moved]).statistics(),
        }
    return Comparison(
        len(words),
        missing,
        words=pooled(words).statistics(),
        phones=of_phones.statistics(),
        phones_by_kind=of_phones.by_kind(),
        worst=worst[:_WORST],
        shifts=shifts,
        shifted=shifted,
        typical=worst[len(worst) // 2]["utterance"] if worst else "",
    )

"""How far our word and phone boundaries are from reference times: another aligner's, or a phonetician's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.alignment.boundaries import TOLERANCES, boundaries, pooled
from asr_kd.alignment.boundary_offsets import (
    OFFSETS_FILE,
    apply_offsets_of_other_speakers,
    boundaries_to_learn_from,
    learn_offsets,
    write_offsets,
)
from asr_kd.alignment.times import Times
from asr_kd.errors import UserError
from asr_kd.io.files import digest_of, file_digest
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.report.boundary_figure import boundary_figure
from asr_kd.stages.finished_alignment import read_times
from asr_kd.stages.reference_alignments import find_references
from asr_kd.workspace.config import Config
from asr_kd.workspace.frames import open_frames
from asr_kd.workspace.sets import all_sets
from asr_kd.workspace.work import Workspace, require

_WORST = 10
_KINDS_SHOWN = 12  # the most frequent; compare.json has all


@dataclass(frozen=True)
class Comparison:
    """Our times and the reference's, over all utterances that have both."""

    utterances: int
    missing: int  # references of utterances that are not in the recipe, or failed to align
    words: dict[str, float | int]
    phones: dict[str, float | int]
    phones_by_kind: dict[str, dict[str, float | int]]  # "stop-vowel": where a vowel follows a stop
    worst: list[dict[str, Any]]  # {"utterance", "mean_abs_ms"} by phones, or by words without them, the worst first
    typical: str  # the utterance whose error is the median
    # kind -> ms by which to move our boundaries; empty where the config already has such offsets
    boundary_offsets: dict[str, float]
    # statistics of phones and words once they are moved by offsets that were learnt from the other speakers
    with_offsets: dict[str, dict[str, float | int]]

    def results(self) -> dict[str, Any]:
        """As in a report's results.json."""
        of_phones = {"boundaries": self.phones, "boundaries_by_kind": self.phones_by_kind}
        return {
            "alignment": {
                "compared": self.utterances,
                **of_phones,
                "words": self.words,
                "worst": self.worst,
                "with_offsets": self.with_offsets,
            }
        }

    def __str__(self) -> str:
        lines = [f"{self.utterances} utterances compared, {self.missing} references have no alignment here"]
        moved = [(f"{name}, with offsets learnt from the other speakers", of) for name, of in self.with_offsets.items()]
        for name, statistics in (("words", self.words), ("phones", self.phones), *moved):
            if "mean_abs_ms" not in statistics:
                lines.append(f"{name}: no boundary in common")
                continue
            within = ", ".join(f"{100 * statistics[f'within_{t}ms']:.1f} % within {t} ms" for t in TOLERANCES)
            lines.append(
                f"{name}: {statistics['boundaries']} boundaries: {within}; off by {statistics['mean_abs_ms']:.1f} ms "
                f"on average, median {statistics['median_ms']:+.1f} ms; {statistics['unmatched']} without a partner"
            )
        lines += [
            f"  {kind:20s} {of_kind['boundaries']:6d}: {100 * of_kind['within_20ms']:5.1f} % within 20 ms, "
            f"median {of_kind['median_ms']:+.1f} ms"
            for kind, of_kind in list(self.phones_by_kind.items())[:_KINDS_SHOWN]
        ]
        worst = ", ".join(f"{row['utterance']} ({row['mean_abs_ms']:.0f} ms)" for row in self.worst[:5])
        return "\n".join([*lines, f"worst: {worst}"])


def compare(config: Config, work: Workspace, form: str, directory: Path) -> Comparison:
    """Compares the finished alignment with the files below a folder, one per utterance, named after it.

    The result is kept in exp/align_compare, where the report reads it: compare.json, the same as results.json, and
    a figure of the utterance whose error is the median.

    Args:
      form: of `reference_alignments.FORMS`.

    Raises:
      UserError: nothing is aligned yet, or the folder has no file of that form, or none of an aligned utterance.
    """
    aligned = require(work.exp("align"), work, "align")
    files = find_references(config, work, form, directory)
    sets = list(all_sets(config, work))
    pairs, other = [], ""
    for ours in (times for name in sets for times in read_times(work, name)):
        if ours.utterance in files:
            pairs.append((ours, files[ours.utterance].read()))
        else:
            other = min(other or ours.utterance, ours.utterance)
    if not pairs:
        raise UserError(
            f"{directory}: none of its {len(files)} files has the name of an aligned utterance "
            f"({min(files)} and so on, but the aligned ones are {other} and so on)."
        )
    speakers = None if config.alignment.boundary_offsets else _speakers(work, sets)
    result = compare_times(pairs, missing=len(files) - len(pairs), speakers=speakers)
    digests = digest_of([file_digest(path) for reference in files.values() for path in reference.paths])
    stamp = Stamp("align compare", {"form": form}, {"align": aligned["digest"], "references": digests})
    with replacing_folder(work.exp("align_compare"), stamp) as temporary:
        for name, content in (("compare", vars(result)), ("results", result.results())):
            (temporary / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if result.boundary_offsets:
            write_offsets(temporary / OFFSETS_FILE, result.boundary_offsets)
        shown = next((pair for pair in pairs if pair[0].utterance == result.typical), None)
        if shown is not None:
            (temporary / "example.png").write_bytes(boundary_figure(_features(work, sets, result.typical), *shown))
    return result


def _speakers(work: Workspace, sets: Sequence[str]) -> dict[str, str]:
    """Utterance -> speaker, as far as normalisation knows."""
    stores = {name: open_frames(work, name) for name in sets}
    return {
        utterance: f"{name} {group}"
        for name, store in stores.items()
        for utterance, group in zip(store.ids, store.groups.tolist(), strict=True)
    }


def _features(work: Workspace, sets: Sequence[str], utterance: str) -> np.ndarray:
    """(T, D) log-mel energies of an utterance of any set."""
    store = next(store for store in (open_frames(work, name) for name in sets) if utterance in store.ids)
    features: np.ndarray = store.features[store.span(store.index(utterance))]
    return features


def compare_times(
    pairs: Sequence[tuple[Times, Times]], missing: int = 0, speakers: Mapping[str, str] | None = None
) -> Comparison:
    """Compares (ours, the reference) of each utterance.

    Args:
      missing: references without an alignment.
      speakers: of the utterances, to learn boundary offsets; None: none are learnt.
    """
    words, phones = [], []
    worst: list[dict[str, Any]] = []
    for ours, reference in pairs:
        words.append(boundaries(ours.words, reference.words))
        phones.append(boundaries(ours.phones, reference.phones))
        differences = next((tier[-1].differences for tier in (phones, words) if len(tier[-1].differences)), None)
        if differences is not None:
            mean_abs = 1000 * float(np.abs(differences).mean())
            worst.append({"utterance": ours.utterance, "mean_abs_ms": round(mean_abs, 1)})
    worst.sort(key=lambda row: -row["mean_abs_ms"])
    of_phones = pooled(phones)
    offsets: dict[str, float] = {}
    with_offsets: dict[str, dict[str, float | int]] = {}
    if speakers is not None and len(of_phones.differences):
        offsets = learn_offsets(pooled([boundaries_to_learn_from(*pair) for pair in pairs]))
        moved = apply_offsets_of_other_speakers(pairs, speakers)
        with_offsets = {
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
        boundary_offsets=offsets,
        with_offsets=with_offsets,
        typical=worst[len(worst) // 2]["utterance"] if worst else "",
    )

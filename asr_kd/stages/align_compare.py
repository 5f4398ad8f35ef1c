"""How far our word and phone boundaries are from reference times: any aligner's TextGrids, or TIMIT's manual ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.alignment.boundaries import (
    OFFSETS_FILE,
    TOLERANCES,
    Statistics,
    apply_offsets_of_other_speakers,
    boundaries,
    boundaries_to_learn_from,
    learn_offsets,
    pooled,
    write_offsets,
)
from asr_kd.alignment.times import Interval, Times, find_textgrids, read_textgrid
from asr_kd.corpora.settings import TimitConfig
from asr_kd.corpora.timit_times import Span, mapped, read_phone_map, read_phones, read_words
from asr_kd.errors import UserError
from asr_kd.frames.features import frame_seconds
from asr_kd.io.files import digest_of, file_digest
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.lang.lexicon import SILENCE
from asr_kd.report.boundary_figure import boundary_figure
from asr_kd.report.style import as_image
from asr_kd.stages.finished_alignment import read_times
from asr_kd.workspace.config import Config
from asr_kd.workspace.sets import all_sets, open_frames
from asr_kd.workspace.work import Workspace, require

_WORST = 10
_KINDS_SHOWN = 12  # the most frequent; compare.json has all


@dataclass(frozen=True)
class Comparison:
    """Our times and the reference's, over all utterances that have both."""

    utterances: int
    missing: int  # references of utterances that are not in the recipe, or failed to align
    words: Statistics
    phones: Statistics
    phones_by_kind: dict[str, Statistics]  # "stop-vowel": where a vowel follows a stop
    worst: list[dict[str, Any]]  # {"utterance", "mean_abs_ms"} by phones, or by words without them, the worst first
    typical: str  # the utterance whose error is the median
    # kind -> ms by which to move our boundaries; empty where the config already has such offsets
    boundary_offsets: dict[str, float]
    # statistics of phones and words once they are moved by offsets that were learnt from the other speakers
    with_offsets: dict[str, Statistics]

    def results(self) -> dict[str, Any]:
        """Returns the comparison in the form of a report's results.json."""
        return {
            "alignment": {
                "compared": self.utterances,
                "boundaries": self.phones,
                "boundaries_by_kind": self.phones_by_kind,
                "words": self.words,
                "worst": self.worst,
                "with_offsets": self.with_offsets,
            }
        }

    def __str__(self) -> str:
        lines = [f"{self.utterances} utterances compared, {self.missing} references have no alignment here"]
        tiers = {"words": self.words, "phones": self.phones}
        moved = {f"{name}, with offsets learnt from the other speakers": of for name, of in self.with_offsets.items()}
        for name, statistics in (tiers | moved).items():
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
      form: "textgrid" or "timit".

    Raises:
      UserError: nothing is aligned yet, or the folder has no file of that form, or none of an aligned utterance, or a
        file is malformed.
    """
    aligned = require(work.exp("align"), work, "align")
    stores = {name: open_frames(work, name) for name in all_sets(config, work)}
    references = _references(config, work, form, directory, [i for store in stores.values() for i in store.ids])
    pairs, other = [], ""
    for ours in (times for name in stores for times in read_times(config, work, name)):
        if ours.utterance in references:
            pairs.append((ours, references[ours.utterance].read()))
        else:
            other = min(other or ours.utterance, ours.utterance)
    if not pairs:
        raise UserError(
            f"{directory}: none of its {len(references)} files has the name of an aligned utterance "
            f"({min(references)} and so on, but the aligned ones are {other} and so on)."
        )
    # as far as normalisation knows them
    speakers = {
        utterance: f"{name} {group}"
        for name, store in stores.items()
        for utterance, group in zip(store.ids, store.groups.tolist(), strict=True)
    }
    learns = not config.alignment.boundary_offsets
    result = compare_times(pairs, missing=len(references) - len(pairs), speakers=speakers if learns else None)
    digests = digest_of([file_digest(path) for _, reference in sorted(references.items()) for path in reference.paths])
    stamp = Stamp("align compare", {"form": form}, {"align": aligned["digest"], "references": digests})
    with replacing_folder(work.exp("align_compare"), stamp) as temporary:
        for name, content in (("compare", vars(result)), ("results", result.results())):
            (temporary / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if result.boundary_offsets:
            write_offsets(temporary / OFFSETS_FILE, result.boundary_offsets)
        if result.typical:
            store = next(store for store in stores.values() if result.typical in store.ids)
            features = store.features[store.span(store.index(result.typical))]
            shown = next(pair for pair in pairs if pair[0].utterance == result.typical)
            figure = boundary_figure(features, *shown, frame_seconds=frame_seconds(config.corpus.sampling_rate))
            (temporary / "example.svg").write_text(as_image(figure), encoding="utf-8")
    return result


@dataclass(frozen=True)
class _Reference:
    """The reference times of one utterance, not read yet."""

    paths: tuple[Path, ...]
    read: Callable[[], Times]


def _references(
    config: Config, work: Workspace, form: str, directory: Path, utterances: Sequence[str]
) -> dict[str, _Reference]:
    """Utterance -> its reference, for all files of that form below a folder."""
    if form == "timit":
        references, suffix = _timit_times(config, work, directory), ".PHN"
    else:
        files, suffix = find_textgrids(directory, set(utterances)), ".TextGrid"
        references = {name: _Reference((path,), partial(read_textgrid, path)) for name, path in files.items()}
    if not references:
        raise UserError(f"{directory}: there is no {suffix} file in it; name the folder that holds them.")
    return references


def _timit_times(config: Config, work: Workspace, directory: Path) -> dict[str, _Reference]:
    corpus = config.corpus
    if not isinstance(corpus, TimitConfig):
        raise UserError(f"{work.config_path}: --compare timit needs corpus.name: timit, not {corpus.name}.")
    table = read_phone_map(work.config_path.parent, corpus.phone_set)
    # where the aligned transcripts are of phones, these are the words of our alignment, too
    by_phones = corpus.transcripts == "phones" and config.alignment.labels != "words"

    def read(utterance: str, phones: Path, words: Path | None = None) -> Times:
        of_phones = _intervals(mapped(read_phones(phones, table, None), table), corpus.sampling_rate)
        of_words = _intervals(read_words(words, None), corpus.sampling_rate) if words is not None else []
        return Times(utterance, of_phones[-1].end, of_phones if by_phones else of_words, of_phones)

    references = {}
    for phones in directory.rglob("*"):
        if phones.suffix.upper() == ".PHN":
            words = [path for path in phones.parent.glob(f"{phones.stem}.*") if path.suffix.upper() == ".WRD"]
            name = f"{phones.parent.name}-{phones.stem}".upper()
            paths = (phones, *words[:1])
            references[name] = _Reference(paths, partial(read, name, *paths))
    return references


def _intervals(spans: list[Span], rate: int) -> list[Interval]:
    return [
        Interval(span.first / rate, span.end / rate, "" if span.label == SILENCE else span.label.upper())
        for span in spans
    ]


def compare_times(
    pairs: Sequence[tuple[Times, Times]], missing: int = 0, speakers: Mapping[str, str] | None = None
) -> Comparison:
    """Compares (ours, the reference) of each utterance.

    Args:
      missing: references without an alignment.
      speakers: of the utterances, to learn boundary offsets; None: none are learnt.
    """
    words = [boundaries(ours.words, reference.words) for ours, reference in pairs]
    phones = [boundaries(ours.phones, reference.phones) for ours, reference in pairs]
    worst: list[dict[str, Any]] = []
    for (ours, _), of_words, of_phones in zip(pairs, words, phones, strict=True):
        common = of_phones.common or of_words.common
        if common:
            mean_abs = 1000 * float(np.mean([abs(boundary.difference) for boundary in common]))
            worst.append({"utterance": ours.utterance, "mean_abs_ms": round(mean_abs, 1)})
    worst.sort(key=lambda row: -row["mean_abs_ms"])
    all_phones = pooled(phones)
    offsets: dict[str, float] = {}
    with_offsets: dict[str, Statistics] = {}
    if speakers is not None and all_phones.common:
        offsets = learn_offsets([boundary for pair in pairs for boundary in boundaries_to_learn_from(*pair)])
        moved = apply_offsets_of_other_speakers(pairs, speakers)
        with_offsets = {
            "phones": pooled([boundaries(ours.phones, theirs.phones) for ours, theirs in moved]).statistics(),
            "words": pooled([boundaries(ours.words, theirs.words) for ours, theirs in moved]).statistics(),
        }
    return Comparison(
        len(pairs),
        missing,
        words=pooled(words).statistics(),
        phones=all_phones.statistics(),
        phones_by_kind=all_phones.by_kind(),
        worst=worst[:_WORST],
        boundary_offsets=offsets,
        with_offsets=with_offsets,
        typical=worst[len(worst) // 2]["utterance"] if worst else "",
    )

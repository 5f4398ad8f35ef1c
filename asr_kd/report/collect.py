"""Everything that a run left in exp/ -> the results, and what the figures show.

Nothing is read that can be counted: word errors come from the hypotheses, frame metrics from the models. So a number
is the same wherever the report shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from asr_kd.acoustic.training import read_log
from asr_kd.alignment.tree import read_tree
from asr_kd.corpora.settings import TimitConfig
from asr_kd.distillation.soft_target_worker import TeacherFolder
from asr_kd.errors import UserError
from asr_kd.evaluation.bootstrap import ratio_interval
from asr_kd.evaluation.frames import Diversity, ExampleFrame, between_parts, example_frame
from asr_kd.evaluation.wer import confusions
from asr_kd.frames.features import frame_seconds
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import read_json
from asr_kd.io.stamp import read_stamp
from asr_kd.report.comparisons import compare_systems, error_rate, frame_accuracy, phone_error_rate
from asr_kd.report.hypotheses import Difference, Hypotheses, differences, read_hypotheses
from asr_kd.report.made_with import made_with
from asr_kd.report.provenance import inputs, rescored
from asr_kd.report.resampling import Resampling, read_resampling
from asr_kd.report.results import (
    AlignmentResults,
    Confusions,
    CurvePoint,
    DataResults,
    Disagreement,
    EnsemblePart,
    LeftOut,
    PhoneSets,
    RescoredRow,
    Results,
    SetSize,
    StoredTargetsResults,
    SystemRow,
)
from asr_kd.report.systems import Measured, curve, main_set, measure, rates, row_of
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.sets import name_of_speech, open_frames, open_labels, prepared, scored_sets
from asr_kd.workspace.work import Workspace, require

T = TypeVar("T", StoredTargetsResults, SetSize, LeftOut)

FLAT_TEMPERATURE = 20.0  # of the figure: nearly uniform, as in the paper's MNIST experiments


@dataclass(frozen=True)
class Evidence:
    """What the report is written from."""

    results: Results
    logs: dict[str, list[dict[str, Any]]]  # system -> one row per epoch
    differences: list[Difference]  # utterances on which direct and distilled (first seeds) disagree, main test set
    example: ExampleFrame | None
    senone_names: list[str]  # of the example's senones, then of its label


def collect(config: Config, work: Workspace) -> Evidence:
    """Counts and measures everything; takes as long as running each model over every scored set once.

    Models that are members of an ensemble of systems run once more, with the others.

    Raises:
      UserError: as `asr_kd.report.provenance.inputs`.
    """
    inputs(config, work)
    sets = scored_sets(config, work)
    systems = _ordered(config)
    keys, again = [(s, n) for s in systems for n in sets], work.command("decode")
    hypotheses = {(s, n): read_hypotheses(work.decoded(s, n), again) for s, n in keys}
    with_phones = keys if config.decodes_phones else []
    phones = {(s, n): read_hypotheses(work.decoded_phones(s, n), again) for s, n in with_phones}
    stores = {name: open_frames(work, name) for name in sets}
    measured: dict[str, Measured] = {}
    for system in config.in_training_order():  # so that an ensemble comes before the systems that reuse its members
        measured[system] = measure(config, work, system, stores, measured)
    resampling = {name: read_resampling(config, work, name) for name in sets}
    rows = [
        row_of(config, work, name, measured[name], _of_system(hypotheses, name), _of_system(phones, name), resampling)
        for name in systems
    ]
    left_out = _left_out(config, work, hypotheses, phones)
    unit = hypotheses[systems[0], main_set(sets)].summary.unit if systems else "word"
    counted = [frame_accuracy(work, measured), error_rate(unit, hypotheses)]
    counted += [phone_error_rate(phones)] if phones else []
    compared = [compare_systems(config, work, c, rows, counted, resampling) for c in config.compare]
    results = Results(
        corpus=name_of_speech(config, work),
        unit=unit,
        sets=list(sets),
        metrics=[of_metric.metric for of_metric in counted],
        resampled={name: resampling[name].drawn(stores[name].ids) for name in sets},
        systems=rows,
        alignment=_alignment(config, work, left_out),
        data=_data(prepared(config, work)),
        left_out=left_out,
        seed=config.seed,
        language=config.lang.language,
        distillation=compared[0] if compared else None,
        comparisons=compared[1:],
        seconds=_noted(work, "seconds.json"),
        memory=_noted(work, "memory.json"),
        made_with=made_with(),
        soft_targets=_stored_targets(config, work),
        rescored=_rescored_rows(config, work, resampling),
        per_left_out={n: h.summary.unaligned for (_, n), h in phones.items() if h.summary.unaligned},
    )
    results = _with_ensemble(config, results, measured)
    if results.unit == "phone":
        results = _with_phones(config, work, results, resampling)
    example, names = _example(config, work, results, stores[DEV])
    first = results.distillation
    return Evidence(
        results,
        {name: read_log(work.exp(name)) for name in systems},
        differences(*(hypotheses[name, results.main_set] for name in (first.direct, first.distilled))) if first else [],
        example,
        names,
    )


def _of_system(hypotheses: Mapping[tuple[str, str], Hypotheses], system: str) -> dict[str, Hypotheses]:
    """Returns the hypotheses of one system, by set."""
    return {name: of_set for (other, name), of_set in hypotheses.items() if other == system}


def _ordered(config: Config) -> list[str]:
    """The systems as the table has them: those of each comparison, then the others."""
    compared = [name for c in config.compare for name in (c.direct, c.teacher, c.distilled)]
    return list(dict.fromkeys([*compared, *config.systems]))


def _with_ensemble(config: Config, results: Results, measured: Mapping[str, Measured]) -> Results:
    """Returns the results with the curves of one ensemble: the first teacher that is one, or else the first ensemble.

    An ensemble of several systems comes before all others.
    """
    teachers = [comparison.teacher for comparison in results.all_comparisons]
    ensembles = [name for name in (*teachers, *measured) if config.systems[name].is_ensemble]
    ensembles = [name for name in ensembles if measured[name].diversity]
    if not ensembles:
        return results
    name = next((name for name in ensembles if config.systems[name].parts), ensembles[0])
    diversity, parts = measured[name].diversity, config.systems[name].parts
    sizes = [measured[part].models for part in parts]
    return replace(
        results,
        ensemble=name,
        members_curve=_curves(measured[name]),
        disagreement={set_name: entry.disagreement.tolist() for set_name, entry in diversity.items()},
        parts=[
            EnsemblePart(part, config.systems[part].model.kind, size, _curves(measured[part]))
            for part, size in zip(parts, sizes, strict=True)
        ],
        parts_disagreement={set_name: _disagreement(entry, sizes) for set_name, entry in diversity.items() if parts},
    )


def _curves(measured: Measured) -> dict[str, list[CurvePoint]]:
    return {set_name: curve(entry) for set_name, entry in measured.diversity.items()}


def _disagreement(members: Diversity, sizes: Sequence[int]) -> Disagreement:
    part = np.repeat(np.arange(len(sizes)), sizes)
    same = np.equal.outer(part, part)
    pairs = between_parts(members.disagreement, sizes)
    return Disagreement(
        within=_mean(members.disagreement[same & ~np.eye(len(part), dtype=bool)]),
        across=_mean(members.disagreement[~same]),
        pairs=[[None if np.isnan(value) else float(value) for value in row] for row in pairs],
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _with_phones(config: Config, work: Workspace, results: Results, resampling: Mapping[str, Resampling]) -> Results:
    """Returns the results with the error rates where silence counts, and with the confusions of phones."""
    corpus = config.corpus
    chosen = results.distillation.distilled if results.distillation else results.systems[0].name
    rows: list[SystemRow] = []
    confused = []
    for row in results.systems:
        of_sets = {
            name: read_hypotheses(work.decoded(row.name, name), work.command("decode"), with_silence=True)
            for name in results.sets
        }
        rows.append(replace(row, with_silence=rates(of_sets, resampling)))
        if row.name == chosen:
            confused = confusions(of_sets[results.main_set].alignments)
    return replace(
        results,
        systems=rows,
        phones=PhoneSets(trained=corpus.phone_set, scored=corpus.scored_phones)
        if isinstance(corpus, TimitConfig)
        else None,
        confusions=Confusions(system=chosen, set=results.main_set, with_silence=True, counts=confused),
    )


def _example(
    config: Config, work: Workspace, results: Results, store: FrameStore
) -> tuple[ExampleFrame | None, list[str]]:
    """A frame of dev with the soft targets of the first comparison's teacher, and the names of its senones."""
    if results.distillation is None:
        return None, []
    teacher = results.distillation.teacher
    kind = config.system(teacher).tree
    tree = read_tree(work.tree(kind))
    silence = frozenset(np.unique(tree.tables[0]).tolist())  # SIL is the first phone
    example = example_frame(
        TeacherFolder(work.exp(teacher), sum(config.answering(teacher).values())).load("cpu"),
        store,
        np.asarray(open_labels(work, store, kind)),
        frame_seconds=frame_seconds(config.corpus.sampling_rate),
        temperatures=sorted({1.0, results.distillation.temperature, FLAT_TEMPERATURE}),
        mean=results.distillation.mean,
        silence=silence,
    )
    return example, [tree.name(senone) for senone in ([*example.senones, example.label] if example else [])]


def _stored_targets(config: Config, work: Workspace) -> StoredTargetsResults | None:
    targets = config.system(config.compare[0].distilled).stored_targets if config.compare else None
    stamp = read_stamp(work.targets(targets.name)) if targets is not None else None
    if targets is None or stamp is None:
        return None
    return _typed(StoredTargetsResults, stamp["metadata"] | {"name": targets.name})


def _typed(cls: type[T], entries: Mapping[str, Any]) -> T:
    """Returns the entries that are fields of a class of results."""
    return cls(**{field.name: entries[field.name] for field in fields(cls) if field.name in entries})


def _data(metadata: Mapping[str, Any]) -> DataResults:
    return DataResults(
        sets={name: _typed(SetSize, size) for name, size in metadata["sets"].items()},
        not_speech=list(metadata["not_speech"]),
        shared_speakers=list(metadata["shared_speakers"]),
        guessed_pronunciations=len(metadata["guessed_pronunciations"]),
        lm_sentences_left_out=metadata["lm"]["sentences_left_out"],
        notes=list(metadata.get("notes", ())),
    )


def _alignment(config: Config, work: Workspace, left_out: Sequence[LeftOut]) -> AlignmentResults:
    alignment = require(work.exp("align"), work, "align")
    result = AlignmentResults(
        utterances=alignment["metadata"]["utterances"],
        failed=[bad.utterance for bad in left_out if bad.stage == "align"],
        labels=config.alignment.labels,
    )
    folder = work.exp("align_compare")  # of asr-kd align --compare
    stamp = read_stamp(folder)
    if stamp is None or stamp["inputs"].get("align") != alignment["digest"]:
        return result
    times = read_json(folder / "compare.json", dict, f"delete {folder} and run the report again.")
    return replace(result, boundaries=times["phones"], words=times["words"], compared=times["utterances"])


def _left_out(
    config: Config,
    work: Workspace,
    hypotheses: Mapping[tuple[str, str], Hypotheses],
    phones: Mapping[tuple[str, str], Hypotheses],
) -> list[LeftOut]:
    """Every utterance that some stage could not use, and why."""
    failed = require(work.exp("align"), work, "align")["metadata"]["failed"]
    rows = [_typed(LeftOut, bad | {"stage": "prepare"}) for bad in prepared(config, work)["left_out"]]
    rows += [_typed(LeftOut, bad | {"stage": "align"}) for bad in failed]
    for what, of_all in (("path", hypotheses), ("path of phones", phones)):
        for (system, _), of_set in of_all.items():
            reason = f"{system}: no {what} found, counted as deletions"
            rows += [LeftOut(stage="decode", utterance=name, reason=reason) for name in of_set.summary.failed]
    return list(dict.fromkeys(rows))


def _rescored_rows(config: Config, work: Workspace, resampling: Mapping[str, Resampling]) -> list[RescoredRow]:
    """The first pass's error rate, the new one with its interval, and the lists' best, on the test sets.

    Raises:
      UserError: a file is missing or damaged.
    """
    rows = []
    for system, name, folder, _ in rescored(config, work):
        hypotheses = read_hypotheses(folder, work.command("decode --rescore-lm FILE"))
        summary = hypotheses.summary
        interval = ratio_interval(hypotheses.errors, hypotheses.words, **resampling[name].of(hypotheses.ids))
        rows.append(
            RescoredRow(
                name=system,
                set=name,
                lm=summary.lm,
                first_pass_wer=summary.first_pass_wer,
                wer=hypotheses.total.wer,
                wer_ci95=(interval.low, interval.high),
                oracle=summary.oracle,
                hypotheses=summary.hypotheses,
                cer=None if summary.characters is None else hypotheses.in_characters().total.wer,
            )
        )
    return rows


def _noted(work: Workspace, name: str) -> dict[str, float]:
    """What the commands noted of each stage; a stage that was run by other means is not in it."""
    path = work.exp(name)
    if not path.exists():
        return {}
    try:
        return {stage: float(number) for stage, number in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path} is damaged; delete it and run the report again.") from None

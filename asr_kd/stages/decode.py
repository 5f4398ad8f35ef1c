"""Stage 7, decode: scales chosen on dev over all seeds of a system, then frozen; words and phones of every set.

Each system (and each of its seeds) is decoded by itself; an ensemble's members answer together. Phones are decoded as
words are, with a graph, references and scales of their own: a language model of words masks what the net hears.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.decoding.decoder import Hypothesis, load_backend
from asr_kd.decoding.scales import Scales, choose_scales
from asr_kd.evaluation.scoring import rate_name
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import discard_partial, partial_folder, replacing_folder
from asr_kd.io.formatting import text_table
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.decode_context import (
    DecodeContext,
    DecodeTask,
    chosen_sets,
    chosen_systems,
    decode_context,
    phone_context,
    phone_task,
    task_of,
)
from asr_kd.stages.decode_results import Recognised, Reference, write_results
from asr_kd.stages.decode_worker import DecodeShard, Loaded, SearchSettings, TrainedModel, decode_shard, score_grid
from asr_kd.workspace.cached_map import Codec, cached_groups, json_codec
from asr_kd.workspace.config import DEV, Config
from asr_kd.workspace.same_files import OnSameFiles, artefacts_of
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

_VERSION = 3  # of the results; raise it when scales are chosen or words are found in another way
_DISK_PER_ROW = 1.6e3  # bytes of an utterance's words by one model, and of what a killed run would resume from
CHUNK_FRAMES = 12_000  # of a shard; a constant, so that neither words nor batches depend on how many run at once


@dataclass(frozen=True)
class Decoded:
    """summary.json of one system on one set, and whether this run wrote it."""

    ran: bool
    summary: dict[str, Any]


@dataclass(frozen=True)
class DecodeResult:
    """What `asr-kd decode` did, in words and in phones."""

    decoded: list[Decoded]
    phones: list[Decoded] = field(default_factory=list)

    @property
    def ran(self) -> bool:
        return any(entry.ran for entry in (*self.decoded, *self.phones))

    def __str__(self) -> str:
        return "\n\n".join(_table(entries) for entries in (self.decoded, self.phones) if entries)


def _table(entries: Sequence[Decoded]) -> str:
    first = entries[0].summary
    rate, beside = rate_name(first["unit"]), ["CER"] if "characters" in first else []
    head = ["system", "set", rate, "ins", "del", "sub", *beside, "scale", "penalty", "RTF"]
    lines = text_table([head, *(_table_row(entry.summary) for entry in entries)]).splitlines()
    notes = ["", "", *(_notes(entry) for entry in entries)]
    return "\n".join("  ".join([line, note]).rstrip() for line, note in zip(lines, notes, strict=True))


def _table_row(row: dict[str, Any]) -> list[str]:
    errors = row["errors"]
    return [
        row["system"], row["set"], f"{row['wer']:.2%}", *(str(errors[kind]) for kind in ("ins", "del", "sub")),
        *([f"{row['characters']['wer']:.2%}"] if "characters" in row else []),
        str(row["acoustic_scale"]), str(row["word_penalty"]), f"{row['rtf']:.4f}",
    ]  # fmt: skip


def _notes(entry: Decoded) -> str:
    row = entry.summary
    notes = [f"{row['with_silence']['wer']:.2%} with silence"] if "with_silence" in row else []
    notes += [f"{row['retried']} retried with a wider beam"] if row["retried"] else []
    notes += [f"{len(row['failed'])} failed"] if row["failed"] else []
    notes += [f"{len(row['unaligned'])} without alignment"] if "unaligned" in row else []
    return ", ".join(notes + ([] if entry.ran else ["up to date"]))


@dataclass(frozen=True)
class _Job:
    """One system on one set whose result is stale; what a killed run left is in `partial`."""

    task: DecodeTask
    name: str
    stamp: Stamp
    partial: Path


def decode(
    config: Config,
    work: Workspace,
    systems: Sequence[str] = (),
    sets: Sequence[str] = (),
    backend: str | None = None,
    nj: int = 1,
) -> DecodeResult:
    """Writes exp/decode/<system>/<set>/, and of phones exp/phone_decode/<system>/<set>/, wherever its stamp is stale.

    Scales always come from dev: it is decoded too where its result is missing.

    Args:
      systems: empty: all that are trained.
      sets: empty: all that are scored.
      backend: of BACKENDS; None: the first installed one.
      nj: shards that are decoded at once; what is recognised does not depend on it.

    Raises:
      UserError: no such system or set, a missing input, parts that do not fit together, or no such back end.
    """
    sets = chosen_sets(config, work, sets)
    names = tuple(dict.fromkeys((DEV, *sets)))
    chosen = chosen_systems(config, work, systems)
    context = decode_context(config, work, names, backend, nj)
    of_phones = phone_context(context) if config.decodes_phones else None
    tasks = [task_of(config, work, name) for name in chosen]
    runs: list[_Run] = [_Run(context, tasks, list(_stale(context, tasks, names)))]
    if of_phones is not None:
        phone_tasks = [phone_task(of_phones, task) for task in tasks]
        runs.append(_Run(of_phones, phone_tasks, list(_stale(of_phones, phone_tasks, names))))
    if any(run.jobs for run in runs):
        load_backend(context.backend)  # fails before any process is started
    for run in runs:
        _decode(run)
    return DecodeResult(*(run.results(sets) for run in runs))


@dataclass(frozen=True)
class _Run:
    """What is decoded, in words or in phones, and the part of it that is stale."""

    context: DecodeContext
    tasks: list[DecodeTask]
    jobs: list[_Job]

    def results(self, sets: Sequence[str]) -> list[Decoded]:
        new = {(job.task.system, job.name) for job in self.jobs}
        return [
            Decoded((task.system, name) in new, self.context.read_summary(task.system, name))
            for task in self.tasks
            for name in sets
        ]


def _decode(run: _Run) -> None:
    context = run.context
    for job in run.jobs:
        rows = len(job.task.models) * len(context.stores[job.name].ids)
        check_disk(context.folder(job.task.system, job.name), _DISK_PER_ROW * rows)
    scales = _frozen_scales(context, run.tasks, [job for job in run.jobs if job.name == DEV])
    vocabulary = context.vocabulary if run.jobs else set()
    for job, recognised in _recognise(context, run.jobs, scales):
        folder = context.folder(job.task.system, job.name)
        with replacing_folder(folder, job.stamp) as temporary:
            write_results(temporary, recognised, context.decoding, context.scoring, vocabulary)
        discard_partial(folder)


def _stale(context: DecodeContext, tasks: Sequence[DecodeTask], names: Sequence[str]) -> Iterator[_Job]:
    """What must be decoded: set by set, so that a shard's model and graph are loaded seldom."""
    for name in names:
        for task in tasks:
            folder, stamp = context.folder(task.system, name), decode_stamp(context, task, name)
            reason = stale_reason(folder, stamp)
            if reason is None:
                discard_partial(folder)
                continue
            log.info("decoding %ss of %s by %s: %s", context.scoring.unit, name, task.system, reason)
            yield _Job(task, name, stamp, partial_folder(folder, stamp))


def decode_stamp(context: DecodeContext, task: DecodeTask, name: str) -> Stamp:
    """What a system's words (or phones) of a set depend on."""
    settings = {"decoding": context.decoding, "decoder": context.backend, "system": task.system}
    if task.together:  # the same models may also answer one by one
        settings["together"] = True
    inputs = task.inputs | context.scoring.inputs
    for each in dict.fromkeys((DEV, name)):
        inputs |= {f"{each} frames": context.stores[each].digest, **context.reference_inputs(each)}
    return Stamp("decode", settings, inputs, version=_VERSION)


def shards_of(
    store: FrameStore, models: Sequence[TrainedModel], search: SearchSettings, references: Sequence[Reference] = ()
) -> list[DecodeShard]:
    """All utterances of a set, model by model, in runs of about CHUNK_FRAMES frames.

    Args:
      references: of all utterances, where shards are to be scored.
    """
    groups = groupby(range(len(store.ids)), key=lambda utterance: int(store.offsets[utterance]) // CHUNK_FRAMES)
    runs = [list(utterances) for _, utterances in groups]
    spans = [(run[0], run[-1] + 1) for run in runs]
    return [
        DecodeShard(model, store.folder, first, end, search, references[first:end])
        for model in models
        for first, end in spans
    ]


_GRID: Codec[np.ndarray] = json_codec(np.ndarray.tolist, lambda data: np.array(data, np.int64))
_WORDS: Codec[tuple[list[Hypothesis], float]] = json_codec(
    lambda result: [[astuple(hypothesis) for hypothesis in result[0]], result[1]],
    lambda data: ([Hypothesis(tuple(words), score, retried) for words, score, retried in data[0]], data[1]),
)


def _frozen_scales(context: DecodeContext, tasks: Sequence[DecodeTask], jobs: Sequence[_Job]) -> dict[str, Scales]:
    """System -> scales: those of its result on dev, or chosen now by the errors of all its seeds where that is stale.

    Args:
      jobs: of dev.
    """
    scales = {}
    for task in tasks:
        if task.system not in {job.task.system for job in jobs}:
            summary = context.read_summary(task.system, DEV)
            scales[task.system] = Scales(summary["acoustic_scale"], summary["word_penalty"], 0, 0)
    dev, settings, scoring = context.stores[DEV], context.decoding, context.scoring
    references = context.references(DEV) if jobs else []
    search = context.search(sorted(settings.acoustic_scales)[len(settings.acoustic_scales) // 2])
    groups = [(job.partial, shards_of(dev, job.task.models, search, references)) for job in jobs]
    score = OnSameFiles(partial(score_grid, Loaded(), scoring), artefacts_of(groups))
    grids = cached_groups(score, groups, "grid", _GRID, nj=context.nj, progress="scales on dev")
    words = sum(len(scoring.scored(reference)) for reference in references if reference is not None)
    for job, of_job in zip(jobs, grids, strict=True):
        errors = np.sum(list(of_job), axis=0)
        chosen = choose_scales(errors, settings.acoustic_scales, settings.word_penalties, words * len(job.task.models))
        log.info(
            "%s: acoustic scale %g, %s penalty %g chosen on dev (%d errors in %d %ss)", job.task.system,
            chosen.acoustic_scale, scoring.unit, chosen.word_penalty, chosen.errors, chosen.words, scoring.unit,
        )  # fmt: skip
        scales[job.task.system] = chosen
    return scales


def _recognise(
    context: DecodeContext, jobs: Sequence[_Job], scales: dict[str, Scales]
) -> Iterator[tuple[_Job, Recognised]]:
    """What each stale system recognises in a set, as soon as all of it is there."""
    groups = []
    for job in jobs:
        frozen = scales[job.task.system]
        search = context.search(frozen.acoustic_scale, frozen.word_penalty)
        groups.append((job.partial, shards_of(context.stores[job.name], job.task.models, search)))
    decode_one = OnSameFiles(partial(decode_shard, Loaded()), artefacts_of(groups))
    recognised = cached_groups(decode_one, groups, "words", _WORDS, nj=context.nj, progress="decoding")
    for job, (_, shards), of_job in zip(jobs, groups, recognised, strict=True):
        each = len(shards) // len(job.task.models)
        of_models = [list(islice(of_job, each)) for _ in job.task.models]
        seeds = [[hypothesis for hypotheses, _ in of_model for hypothesis in hypotheses] for of_model in of_models]
        seconds = [sum(spent for _, spent in of_model) for of_model in of_models]
        store, system = context.stores[job.name], job.task.system
        references = context.references(job.name)
        yield job, Recognised(system, job.name, store, references, scales[system], seeds, seconds)

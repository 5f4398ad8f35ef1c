"""Stage 7, decode: scales chosen on dev over all seeds of a system, then frozen; the words of every set.

Each system (and each of its seeds) is decoded by itself; an ensemble's members answer together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.corpora.timit_times import scoring_of
from asr_kd.decoding.decoder import Hypothesis, load_backend
from asr_kd.decoding.scales import Scales, choose_scales
from asr_kd.decoding.settings import chosen_backend
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring, rate_name
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import discard_partial, partial_folder, replacing_folder
from asr_kd.io.formatting import text_table
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.stages.decode_results import Recognised, read_summary, write_results
from asr_kd.stages.decode_worker import DecodeShard, Loaded, SearchSettings, TrainedModel, decode_shard, score_grid
from asr_kd.stages.decoding_graph import graph_stamp, make_graph, open_graph
from asr_kd.workspace.cached_map import Codec, cached_groups, json_codec
from asr_kd.workspace.config import DEV, TRAIN, Config
from asr_kd.workspace.sets import all_sets, open_frames, scored_sets
from asr_kd.workspace.work import Workspace, labels_of, require

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
    """What `asr-kd decode` did."""

    decoded: list[Decoded]

    @property
    def ran(self) -> bool:
        return any(entry.ran for entry in self.decoded)

    def __str__(self) -> str:
        first = self.decoded[0].summary if self.decoded else {"unit": "word"}
        rate, beside = rate_name(first["unit"]), ["CER"] if "characters" in first else []
        head = ["system", "set", rate, "ins", "del", "sub", *beside, "scale", "penalty", "RTF"]
        table = text_table([head, *(_table_row(entry.summary) for entry in self.decoded)])
        lines = table.splitlines()
        notes = ["", "", *(_notes(entry) for entry in self.decoded)]
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
    return ", ".join(notes + ([] if entry.ran else ["up to date"]))


@dataclass(frozen=True)
class DecodeTask:
    """A system with all that decoding it needs.

    Attributes:
      models: one per seed; an ensemble is one.
      inputs: digests for a stamp.
    """

    system: str
    models: list[TrainedModel]
    inputs: dict[str, str]

    @property
    def together(self) -> bool:
        """Whether all models of the system answer together."""
        return self.models[0].member is None


@dataclass(frozen=True)
class DecodeContext:
    """What decoding each system on each set has in common."""

    config: Config
    work: Workspace
    stores: dict[str, FrameStore]  # dev, and the sets that are decoded
    scoring: Scoring
    backend: str
    nj: int

    def search(self, scale: float, penalty: float = 0.0) -> SearchSettings:
        return SearchSettings(self.config.decoding, self.backend, scale, penalty)


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
    """Writes exp/decode/<system>/<set>/ wherever its stamp is stale.

    Scales always come from dev: it is decoded too where its result is missing.

    Args:
      systems: empty: all that are trained.
      sets: empty: all that are scored.
      backend: of BACKENDS; None: the first installed one.
      nj: shards that are decoded at once; the words do not depend on it.

    Raises:
      UserError: no such system or set, a missing input, parts that do not fit together, or no such back end.
    """
    sets = chosen_sets(config, work, sets)
    names = tuple(dict.fromkeys((DEV, *sets)))
    chosen = chosen_systems(config, work, systems)
    context = decode_context(config, work, names, backend, nj)
    tasks = [task_of(config, work, name) for name in chosen]
    jobs = list(_stale(context, tasks, names))
    if jobs:
        load_backend(context.backend)  # fails before any process is started
    for job in jobs:
        rows = len(job.task.models) * len(context.stores[job.name].ids)
        check_disk(work.decoded(job.task.system, job.name), _DISK_PER_ROW * rows)
    scales = _frozen_scales(context, tasks, [job for job in jobs if job.name == DEV])
    vocabulary = set(read_lang(work.lang).words)
    for job, recognised in _recognise(context, jobs, scales):
        folder = work.decoded(job.task.system, job.name)
        with replacing_folder(folder, job.stamp) as temporary:
            write_results(temporary, recognised, config.decoding, context.scoring, vocabulary)
        discard_partial(folder)
    new = {(job.task.system, job.name) for job in jobs}
    return DecodeResult(
        [Decoded((task.system, name) in new, read_summary(work, task.system, name)) for task in tasks for name in sets]
    )


def chosen_sets(config: Config, work: Workspace, names: Sequence[str]) -> tuple[str, ...]:
    """Those named, or all that are scored; raises UserError where there is no such set."""
    known = all_sets(config, work)
    for name in names:
        if name not in known or name == TRAIN:
            raise UserError(f"there is no set {name!r} to score; there are: {', '.join(scored_sets(config, work))}.")
    return tuple(dict.fromkeys(names)) or scored_sets(config, work)


def chosen_systems(config: Config, work: Workspace, names: Sequence[str]) -> list[str]:
    """Those named, or all that are trained; raises UserError where there is no such system."""
    for name in names:
        config.system(name)
    chosen = list(dict.fromkeys(names)) or [name for name in config.systems if read_stamp(work.exp(name)) is not None]
    if not chosen:
        raise UserError(f"no system of {work.config_path} is trained yet; train them first: {work.command('train')}")
    return chosen


def decode_context(
    config: Config, work: Workspace, names: Sequence[str], backend: str | None, nj: int
) -> DecodeContext:
    """Opens dev and the sets; raises as `decode` for what can be checked before a graph is compiled."""
    backend = chosen_backend(backend)
    if not config.decoding.acoustic_scales or not config.decoding.word_penalties:
        raise UserError("decoding.acoustic_scales and decoding.word_penalties need at least one entry each.")
    stores = {name: open_frames(work, name) for name in names}
    return DecodeContext(config, work, stores, scoring_of(config.corpus, config.lang, work.config_path), backend, nj)


def task_of(config: Config, work: Workspace, system: str, *, may_compile: bool = True) -> DecodeTask:
    """Compiles the graph where needed, and checks that the system belongs to it.

    Args:
      may_compile: False: nothing is written; a graph that is missing or stale is an error.

    Raises:
      UserError: the system is not trained, or was trained on labels of another tree.
    """
    settings, folder = config.system(system), work.exp(system)
    train = work.command(f"train {system}")
    stamp = require(folder, work, f"train {system}")
    expected = graph_stamp(config, work, settings.tree)
    _check_labels(work, system, settings.tree, stamp, expected.inputs["tree"])
    graph_folder = make_graph(config, work, settings.tree) if may_compile else work.graph(settings.tree)
    graph = open_graph(graph_folder, expected, work)
    files = sorted(folder.glob("member_*.safetensors"))
    if not files and not settings.parts:
        raise UserError(f"{folder} holds no member_<k>.safetensors; delete it, then: {train}")
    members: list[int | None] = [None] if settings.is_ensemble else list(range(len(files)))
    models = [TrainedModel(folder, work.tree(settings.tree), graph_folder, member) for member in members]
    log.info("%s: %d models, graph of %d states, %d arcs", system, len(models), graph.num_states, graph.num_arcs)
    return DecodeTask(system, models, {"model": stamp["digest"], "graph": expected.digest})


def _check_labels(work: Workspace, system: str, tree: str, stamp: dict[str, Any], tree_digest: str) -> None:
    """The system must have been trained on labels of the present tree."""
    trained_on = stamp["inputs"].get("train senones")
    labels = read_stamp(work.frames(TRAIN) / f"{labels_of(tree)}.stamp.json")
    if trained_on is None or labels is None:
        return  # the training set may be deleted before decoding; the number of senones is checked later
    labelled_by = labels["inputs"].get("tree", tree_digest)
    if labels["digest"] != trained_on or labelled_by != tree_digest:
        raise UserError(
            f"{work.exp(system)} was trained on the labels {trained_on}, but the present ones are {labels['digest']} "
            f"of tree {labelled_by} ({work.tree(tree)} is {tree_digest}); train it again: "
            f"{work.command(f'train {system}')}"
        )


def _stale(context: DecodeContext, tasks: Sequence[DecodeTask], names: Sequence[str]) -> Iterator[_Job]:
    """What must be decoded: set by set, so that a shard's model and graph are loaded seldom."""
    for name in names:
        for task in tasks:
            folder, stamp = context.work.decoded(task.system, name), _stamp(context, task, name)
            reason = stale_reason(folder, stamp)
            if reason is None:
                discard_partial(folder)
                continue
            log.info("decoding %s on %s: %s", task.system, name, reason)
            yield _Job(task, name, stamp, partial_folder(folder, stamp))


def _stamp(context: DecodeContext, task: DecodeTask, name: str) -> Stamp:
    settings = {"decoding": context.config.decoding, "decoder": context.backend, "system": task.system}
    if task.together:  # the same models may also answer one by one
        settings["together"] = True
    frames = {f"{each} frames": context.stores[each].digest for each in dict.fromkeys((DEV, name))}
    return Stamp("decode", settings, {**task.inputs, **frames, **context.scoring.inputs}, version=_VERSION)


def shards_of(store: FrameStore, models: Sequence[TrainedModel], search: SearchSettings) -> list[DecodeShard]:
    """All utterances of a set, model by model, in runs of about CHUNK_FRAMES frames."""
    groups = groupby(range(len(store.ids)), key=lambda utterance: int(store.offsets[utterance]) // CHUNK_FRAMES)
    runs = [list(utterances) for _, utterances in groups]
    return [DecodeShard(model, store.folder, run[0], run[-1] + 1, search) for model in models for run in runs]


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
            summary = read_summary(context.work, task.system, DEV)
            scales[task.system] = Scales(summary["acoustic_scale"], summary["word_penalty"], 0, 0)
    dev, settings, scoring = context.stores[DEV], context.config.decoding, context.scoring
    middle = sorted(settings.acoustic_scales)[len(settings.acoustic_scales) // 2]
    groups = [(job.partial, shards_of(dev, job.task.models, context.search(middle))) for job in jobs]
    score = partial(score_grid, Loaded(), scoring)
    grids = cached_groups(score, groups, "grid", _GRID, nj=context.nj, progress="scales on dev")
    words = sum(len(scoring.scored(text.split())) for text in dev.references)
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
    """What each stale system and set gives, as soon as all of it is there."""
    groups = []
    for job in jobs:
        frozen = scales[job.task.system]
        search = context.search(frozen.acoustic_scale, frozen.word_penalty)
        groups.append((job.partial, shards_of(context.stores[job.name], job.task.models, search)))
    recognised = cached_groups(
        partial(decode_shard, Loaded()), groups, "words", _WORDS, nj=context.nj, progress="decoding"
    )
    for job, (_, shards), of_job in zip(jobs, groups, recognised, strict=True):
        each = len(shards) // len(job.task.models)
        of_models = [list(islice(of_job, each)) for _ in job.task.models]
        seeds = [[hypothesis for hypotheses, _ in of_model for hypothesis in hypotheses] for of_model in of_models]
        seconds = [sum(spent for _, spent in of_model) for of_model in of_models]
        store, system = context.stores[job.name], job.task.system
        yield job, Recognised(system, job.name, store, scales[system], seeds, seconds)

"""Stage 7, decode: scales chosen on dev over all seeds of a system, then frozen; words of dev and test.

Each system (and each of its seeds) is decoded by itself; an ensemble's members answer together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.decoding.decoder import BACKENDS, Hypothesis
from asr_kd.decoding.graph import graph_stamp, make_graph, open_graph
from asr_kd.decoding.scales import Scales, choose_scales
from asr_kd.errors import UserError
from asr_kd.evaluation.scoring import Scoring, scoring_of
from asr_kd.frames.store import FrameStore
from asr_kd.io.folders import discard_partial, partial_folder, replacing_folder
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.stages.decode_cache import GRIDS, WORDS, cached_parallel_map
from asr_kd.stages.decode_results import decoded_folder, rate_name, read_summary, write_results
from asr_kd.stages.decode_worker import Net, Piece, clear_caches
from asr_kd.workspace.config import Config, to_mapping
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

_FORM = 2  # of the results; raise it when scales are chosen or words are found in another way
_DISK_PER_ROW = 1.6e3  # bytes of an utterance's words by one net, and of what a killed run would go on from
CHUNK_FRAMES = 12_000  # of a piece; a constant, so that neither words nor batches depend on how many run at once


@dataclass(frozen=True)
class System:
    """What is decoded: a model's folder, its members answering each alone (seeds) or all together."""

    name: str
    folder: str
    averaged: bool = False
    command: str = "train"  # that makes it


SYSTEMS = (
    System("direct", "baseline"),
    System("ensemble", "teacher", averaged=True, command="train --ensemble"),
    System("distilled", "student", command="distill"),
    System("direct-small", "baseline_small", command="train --pair small"),
    System("distilled-small", "student_small", command="distill --pair small"),
    System("monophone", "monophone", command="train --pair monophone"),
)


@dataclass(frozen=True)
class Decoded:
    """summary.json of one system on one set, and whether it was made now."""

    made: bool
    summary: dict[str, Any]


@dataclass(frozen=True)
class DecodeResult:
    """What `asr-kd decode` did."""

    decoded: list[Decoded]

    @property
    def made(self) -> bool:
        return any(one.made for one in self.decoded)

    def __str__(self) -> str:
        rate = rate_name(self.decoded[0].summary) if self.decoded else "WER"
        lines = [f"{'system':<16} {'set':<5} {rate:>7} {'ins':>5} {'del':>5} {'sub':>5}  scale penalty    RTF"]
        for one in self.decoded:
            row, errors = one.summary, one.summary["errors"]
            line = (
                f"{row['system']:<16} {row['set']:<5} {row['wer']:>7.2%} {errors['ins']:>5} {errors['del']:>5} "
                f"{errors['sub']:>5}  {row['acoustic_scale']:<5} {row['word_penalty']:<7} {row['rtf']:>6.4f}"
            )
            again = f"  {row['retried']} retried with a wider beam" if row["retried"] else ""
            lost = f"  {len(row['failed'])} failed" if row["failed"] else ""
            silent = f"  {row['with_silence']['wer']:.2%} with silence" if "with_silence" in row else ""
            lines.append(f"{line}{silent}{again}{lost}{'' if one.made else '  (up to date)'}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Task:
    """A system with all that decoding it needs."""

    system: System
    nets: list[Net]  # one per seed
    inputs: dict[str, str]


def decode(
    config: Config,
    work: Workspace,
    systems: Sequence[str] | None = None,
    sets: Sequence[str] = ("dev", "test"),
    backend: str = "k2",
    nj: int = 1,
) -> DecodeResult:
    """Writes exp/decode_<system>_<set>/ wherever its stamp does not fit any more.

    Scales always come from dev: it is decoded too where its result is missing.

    Args:
      systems: names of SYSTEMS; None: all whose model is there.
      nj: pieces that are decoded at once; the words do not depend on it.

    Raises:
      UserError: no model, a missing input, parts that do not fit together, or no such back end.
    """
    names = tuple(dict.fromkeys(("dev", *sets)))
    chosen, stores = _inputs(config, work, systems, names, backend)
    scoring = scoring_of(config, work)
    tasks = [task_of(config, work, system) for system in chosen]
    stamps = {
        (task.system.name, name): _stamp(config, task, stores, name, backend, scoring)
        for task in tasks
        for name in names
    }
    reasons = {key: stale_reason(decoded_folder(work, *key), stamp) for key, stamp in stamps.items()}
    for (who, name), why in reasons.items():
        if why is None:
            discard_partial(decoded_folder(work, who, name))
        else:
            log.info("decoding %s on %s: %s", who, name, why)
    clear_caches()

    todo = [(task, name) for name in names for task in tasks if reasons[task.system.name, name] is not None]
    if todo and backend == "k2":
        from asr_kd.decoding.k2_decoder import import_k2

        import_k2()  # before any process is started
    for task, name in todo:
        rows = len(task.nets) * len(stores[name].ids)
        check_disk(decoded_folder(work, task.system.name, name), _DISK_PER_ROW * rows)
    kept = {key: partial_folder(decoded_folder(work, *key), stamps[key]) for key, why in reasons.items() if why}
    scales = _frozen_scales(config, work, tasks, stores["dev"], backend, nj, kept, scoring)
    vocabulary = set(read_lang(work.lang).words)
    for task, name, seeds, seconds in _hypotheses(config, todo, stores, scales, backend, nj, kept):
        who = task.system.name
        folder = decoded_folder(work, who, name)
        with replacing_folder(folder, stamps[who, name]) as temporary:
            write_results(temporary, config, who, name, stores[name], scales[who], seeds, seconds, vocabulary, scoring)
        discard_partial(folder)
    return DecodeResult(
        [
            Decoded(reasons[task.system.name, name] is not None, read_summary(work, task.system.name, name))
            for task in tasks
            for name in sets
        ]
    )


def _inputs(
    config: Config, work: Workspace, systems: Sequence[str] | None, names: Sequence[str], backend: str
) -> tuple[list[System], dict[str, FrameStore]]:
    """What is decoded; raises as `decode` does for what can be seen before a graph is made."""
    chosen = existing_systems(work) if systems is None else [system_named(name) for name in systems]
    if not chosen:
        raise UserError(f"{work.root / 'exp'} holds no model to decode; train one first: {work.command('train')}")
    if backend not in BACKENDS:
        raise UserError(f"there is no decoder {backend!r}; --decoder takes {' or '.join(BACKENDS)}.")
    if not config.decoding.acoustic_scales or not config.decoding.word_penalties:
        raise UserError("decoding.acoustic_scales and decoding.word_penalties need one entry or more each.")
    for name in names:
        require(work.frames(name), work, "features")
    return chosen, {name: FrameStore.open(work.frames(name)) for name in names}


def _frozen_scales(
    config: Config,
    work: Workspace,
    tasks: list[Task],
    dev: FrameStore,
    backend: str,
    nj: int,
    kept: dict[tuple[str, str], Path],
    scoring: Scoring,
) -> dict[str, Scales]:
    """System name -> scales: those of its result on dev, or chosen now where that is made anew."""
    searched = [task for task in tasks if (task.system.name, "dev") in kept]
    folders = {task.system.name: kept[task.system.name, "dev"] for task in searched}
    scales = dict(_choose(config, searched, dev, backend, nj, folders, scoring))
    for task in tasks:
        if task not in searched:
            summary = read_summary(work, task.system.name, "dev")
            scales[task.system.name] = Scales(summary["acoustic_scale"], summary["word_penalty"], 0, 0)
    return scales


def system_named(name: str) -> System:
    for system in SYSTEMS:
        if system.name == name:
            return system
    raise UserError(f"there is no system {name!r}; known: {', '.join(system.name for system in SYSTEMS)}.")


def existing_systems(work: Workspace) -> list[System]:
    return [system for system in SYSTEMS if read_stamp(work.exp(system.folder)) is not None]


def task_of(config: Config, work: Workspace, system: System) -> Task:
    """Makes the graph where needed, and checks that the model fits to it."""
    folder = work.exp(system.folder)
    stamp = require(folder, work, system.command)
    tree = str(stamp["metadata"]["tree"])
    expected = graph_stamp(config, work, tree)
    _check_labels(work, folder, stamp, expected.inputs["tree"])
    graph_at = make_graph(config, work, tree)
    graph = open_graph(graph_at, expected, work)
    members = sorted(folder.glob("member_*.safetensors"))
    if not members:
        raise UserError(f"{folder} holds no member_<k>.safetensors; train it again: {work.command(system.command)}")
    numbers: list[int | None] = [None] if system.averaged else list(range(len(members)))
    nets = [Net(folder, work.exp(tree), graph_at, number) for number in numbers]
    log.info("%s: %d nets, graph of %d states, %d arcs", system.name, len(nets), graph.num_states, graph.num_arcs)
    return Task(system, nets, {"model": stamp["digest"], "graph": expected.digest})


def _check_labels(work: Workspace, folder: Path, stamp: dict[str, Any], tree: str) -> None:
    """The model must have been trained on labels of the tree that is there now."""
    trained_on = stamp["inputs"].get("train states")
    labels = read_stamp(work.frames("train") / f"{stamp['metadata']['states']}.stamp.json")
    if trained_on is None or labels is None:
        return  # the training set may be gone where only decoding is wanted; the number of states is checked later
    if labels["digest"] != trained_on or labels["inputs"].get("tree", tree) != tree:
        raise UserError(
            f"{folder} was trained on state labels {trained_on}, but those there now are {labels['digest']} of tree "
            f"{labels['inputs'].get('tree', tree)} (exp/{stamp['metadata']['tree']} is {tree}); train it again: "
            f"{work.command('train')}"
        )


def _stamp(
    config: Config, task: Task, stores: dict[str, FrameStore], name: str, backend: str, scoring: Scoring
) -> Stamp:
    settings = {**to_mapping(config.decoding), "decoder": backend, "system": task.system.name, "form": _FORM}
    frames = {f"{one} frames": stores[one].digest for one in dict.fromkeys(("dev", name))}
    return Stamp("decode", settings, {**task.inputs, **frames, **scoring.inputs})


def chunks_of(store: FrameStore) -> Iterator[tuple[int, int]]:
    """Runs of whole utterances of about CHUNK_FRAMES frames."""
    groups = groupby(range(len(store.ids)), key=lambda u: int(store.offsets[u]) // CHUNK_FRAMES)
    for _, members in groups:
        run = list(members)
        yield run[0], run[-1] + 1


def _choose(
    config: Config,
    tasks: list[Task],
    dev: FrameStore,
    backend: str,
    nj: int,
    folders: dict[str, Path],
    scoring: Scoring,
) -> Iterator[tuple[str, Scales]]:
    """System name -> scales, by the errors of all its seeds on dev."""
    settings = config.decoding
    middle = sorted(settings.acoustic_scales)[len(settings.acoustic_scales) // 2]
    pieces = [
        Piece(net, dev.folder, first, end, settings, backend, middle, scoring=scoring)
        for task in tasks
        for net in task.nets
        for first, end in chunks_of(dev)
    ]
    per_net = sum(1 for _ in chunks_of(dev))
    files = [
        folders[task.system.name] / f"grid-{number}.json"
        for task in tasks
        for number in range(per_net * len(task.nets))
    ]
    results = cached_parallel_map(GRIDS, pieces, files, nj=nj, progress="scales on dev")
    words = sum(len(scoring.scored(text.split())) for text in dev.references)
    for task in tasks:
        errors = np.sum([next(results) for _ in range(per_net * len(task.nets))], axis=0)
        scales = choose_scales(errors, settings.acoustic_scales, settings.word_penalties, words * len(task.nets))
        log.info(
            "%s: acoustic scale %g, %s penalty %g chosen on dev (%d errors in %d %ss)", task.system.name,
            scales.acoustic_scale, scoring.unit, scales.word_penalty, scales.errors, scales.words, scoring.unit,
        )  # fmt: skip
        yield task.system.name, scales
    for _ in results:  # lets the progress bar and the processes end
        pass


def _hypotheses(
    config: Config,
    todo: list[tuple[Task, str]],
    stores: dict[str, FrameStore],
    scales: dict[str, Scales],
    backend: str,
    nj: int,
    folders: dict[tuple[str, str], Path],
) -> Iterator[tuple[Task, str, list[list[Hypothesis]], list[float]]]:
    """For each system and set: the hypotheses [seed][utterance], and the seconds that each seed took."""
    pieces, files = [], []
    for task, name in todo:
        frozen = scales[task.system.name]
        of_task = [
            Piece(net, stores[name].folder, first, end, config.decoding, backend, frozen.acoustic_scale,
                  frozen.word_penalty)
            for net in task.nets
            for first, end in chunks_of(stores[name])
        ]  # fmt: skip
        pieces += of_task
        files += [folders[task.system.name, name] / f"words-{number}.json" for number in range(len(of_task))]
    results = cached_parallel_map(WORDS, pieces, files, nj=nj, progress="decoding")
    for task, name in todo:
        chunks = sum(1 for _ in chunks_of(stores[name]))
        seeds, seconds = [], []
        for _ in task.nets:
            of_seed = [next(results) for _ in range(chunks)]
            seeds.append([hypothesis for hypotheses, _ in of_seed for hypothesis in hypotheses])
            seconds.append(sum(spent for _, spent in of_seed))
        yield task, name, seeds, seconds
    for _ in results:
        pass

"""Stage 3, align: FrameStores and lexicon -> the tree, and the tied state of every frame of every set."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.boundary_offsets import SHIFTS_FILE, read_shifts, write_shifts
from asr_kd.alignment.flat_start import MakeClassifier, MonophoneAligner, choose_subset, flat_start
from asr_kd.alignment.manual import Starts, read_starts
from asr_kd.alignment.segments import Alignment, left_on_disk, segments_on_disk, starts_file
from asr_kd.alignment.set_alignment import AlignedSet, align_set, compile_graphs, named, put_in_place
from asr_kd.alignment.subframe import finer_starts
from asr_kd.alignment.topology import NUM_HMM_STATES, SIL, Graph
from asr_kd.alignment.tree import Tree, monophone_tree, with_counts, write_tree
from asr_kd.alignment.tree_growing import NUM_CEPSTRA, Statistics, cepstra, grow_tree
from asr_kd.errors import UserError
from asr_kd.frames.concat import ConcatFrames
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import digest_of
from asr_kd.io.folders import discard_partial, partial_folder, replacing_folder
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import Lang, read_lang
from asr_kd.workspace.config import Config, to_mapping
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

SETS = ("train", "dev", "test")
FRAMES_AT_ONCE = 1 << 22
_GRAPHS_KEPT = 1000  # utterances; of more, each pass over them compiles its graphs anew: they take memory
_FORM = 2  # of what is left on disk; raise it when that changes


@dataclass(frozen=True)
class AlignResult:
    """What was aligned, and what was not."""

    made: bool
    utterances: int  # of all sets, altered copies included
    failed: list[dict[str, str]] = field(default_factory=list)  # {"utterance", "set", "reason"}
    tied_states: int = 0
    seconds_per_hour: float = 0.0  # of speech, flat start included

    def __str__(self) -> str:
        lines = [
            f"{'aligned' if self.made else 'already aligned'}: {self.utterances:,} utterances, "
            f"{self.tied_states} tied states, {len(self.failed)} utterances failed"
        ]
        lines += [f"  failed: {one['utterance']} ({one['set']}): {one['reason']}" for one in self.failed]
        return "\n".join(lines)


def align(config: Config, work: Workspace, make_classifier: MakeClassifier, nj: int = 1) -> AlignResult:
    """Makes exp/tree, exp/align and the array `states` of each set; with `monophone` also those of the control.

    Raises:
      UserError: a stage before has not run, settings contradict each other, or more utterances than allowed fail to
        align (all are named).
    """
    stores, shifts, stamp = _inputs(config, work)
    folder = work.exp("align")
    reason = stale_reason(folder, stamp) or _out_of_date(work, stores, stamp)
    if reason is None:
        discard_partial(folder)
        return AlignResult(False, **require(folder, work, "align")["metadata"])
    log.info("aligning: %s", reason)
    frames = sum(store.num_frames for store in stores.values())
    # the segments are there twice while those of the blocks are brought together
    check_disk(folder, left_on_disk(frames, monophone=config.monophone) + segments_on_disk(frames))
    started = time.perf_counter()
    lang = read_lang(work.lang)
    found = _align_sets(config, work, stores, lang, make_classifier, partial_folder(folder, stamp), nj)
    alignments = {name: one.read() for name, one in found.sets.items()}
    trees = {"": _grow(config, stores["train"], alignments["train"], lang)}
    if config.monophone:
        trees["_monophone"] = monophone_tree(lang.phones)
    for suffix, tree in trees.items():
        _write(work, stores, alignments, tree, suffix, stamp)
    hours = sum(float(store.durations.sum()) for store in stores.values()) / 3600
    metadata = {
        "utterances": sum(len(store.ids) for store in stores.values()),
        "failed": found.failed,
        "tied_states": trees[""].num_senones,
        "seconds_per_hour": round((time.perf_counter() - started) / max(hours, 1e-9), 1),
    }
    with replacing_folder(folder, stamp, metadata) as temporary:
        for one in found.sets.values():
            put_in_place(one, temporary)
        for name, starts in found.finer.items():
            np.save(starts_file(temporary, name), starts, allow_pickle=False)
        if shifts:
            write_shifts(temporary / SHIFTS_FILE, shifts)
        (temporary / "failed.json").write_text(json.dumps(found.failed, indent=1) + "\n", encoding="utf-8")
    discard_partial(folder)
    return AlignResult(True, **metadata)  # type: ignore[arg-type]


def _inputs(config: Config, work: Workspace) -> tuple[dict[str, FrameStore], dict[str, float], Stamp]:
    """The frames of each set, the phones' shifts, and the stamp of an alignment that is made from them."""
    if config.alignment.learn_from == "all" and config.alignment.labels == "manual":
        raise UserError(
            f"{work.config_path}: alignment.learn_from: all is for an aligner without hand-made times; with labels: "
            "manual leave it out."
        )
    lang_stamp = require(work.lang, work, "prepare")
    for name in SETS:
        _check_current(work, require(work.frames(name), work, "features"), name)
    check_inputs_unmodified(work, SETS)
    stores = {name: FrameStore.open(work.frames(name)) for name in SETS}
    shifts = _shifts(config, work)
    stamp = Stamp(
        "align",
        _settings(config) | {"monophone": config.monophone, "form": _FORM},
        {"lang": lang_stamp["digest"]}
        | {f"{name} frames": store.digest for name, store in stores.items()}
        | ({"shifts": digest_of(shifts)} if shifts else {}),
        config.seed,
    )
    return stores, shifts, stamp


@dataclass(frozen=True)
class _Found:
    """The sets' segments, before there is a tree."""

    sets: dict[str, AlignedSet]
    failed: list[dict[str, str]]
    finer: dict[str, NDArray[np.float64]]  # the starts of the segments in seconds, where there are phases


def _align_sets(
    config: Config,
    work: Workspace,
    stores: dict[str, FrameStore],
    lang: Lang,
    make_classifier: MakeClassifier,
    partial: Path,
    nj: int,
) -> _Found:
    """The graphs are held while this runs, where they are few."""
    few = sum(len(store.ids) for store in stores.values()) <= _GRAPHS_KEPT
    compiled: dict[str, Graph] | None = {} if few else None
    aligner = _flat_start(config, work, stores, lang, make_classifier, partial, compiled, nj)
    aligned = {
        name: align_set(
            partial,
            name,
            store,
            lang,
            aligner,
            optional_silence=config.alignment.optional_silence,
            starts=_starts(config, work, name, store),
            compiled=compiled,
            nj=nj,
        )
        for name, store in stores.items()
    }
    failed = named({name: one.failed for name, one in aligned.items()}, stores)
    _check_failures(config, work, stores, failed)
    finer: dict[str, NDArray[np.float64]] = {}
    if config.alignment.phases > 1 and config.alignment.labels != "manual":
        finer = {
            name: finer_starts(aligned[name], store, lang, aligner, config.alignment, compiled=compiled, nj=nj)
            for name, store in stores.items()
        }
    return _Found(aligned, failed, finer)


def _check_current(work: Workspace, frames: dict[str, Any], name: str) -> None:
    prepared = read_stamp(work.data)
    made_from = frames["inputs"].get("corpus")
    if prepared is not None and made_from not in (None, prepared["digest"]):
        raise UserError(
            f"{work.frames(name)} was made from corpus {made_from}, but {work.data} has {prepared['digest']} now; make "
            f"the features again: {work.command('features')}"
        )


def _settings(config: Config) -> dict[str, Any]:
    """What the alignment depends on; how many utterances may fail is not part of it."""
    settings = {key: value for key, value in to_mapping(config.alignment).items() if key != "max_bad_fraction"}
    # alignments that were made before there were these settings stay as they are
    off = {"linear_rounds": 0, "phases": 1, "shifts": "", "learn_from": "train", "batch_size": 256}
    return {key: value for key, value in settings.items() if off.get(key) != value}


def _shifts(config: Config, work: Workspace) -> dict[str, float]:
    name = config.alignment.shifts
    return read_shifts(work.config_path.parent / name) if name else {}


def _starts(config: Config, work: Workspace, name: str, store: FrameStore) -> Starts | None:
    return read_starts(work.cuts(name), store) if config.alignment.labels == "manual" else None


def _flat_start(
    config: Config,
    work: Workspace,
    stores: dict[str, FrameStore],
    lang: Lang,
    make_classifier: MakeClassifier,
    partial: Path,
    compiled: dict[str, Graph] | None,
    nj: int,
) -> MonophoneAligner:
    """An aligner from the flat start's utterances, whose graphs are in memory while it runs."""
    own = stores["train"]
    store = ConcatFrames([own, stores["dev"], stores["test"]]) if config.alignment.learn_from == "all" else own
    subset = choose_subset(store, config.alignment.subset_hours, config.seed)
    silence, starts = config.alignment.optional_silence, _starts(config, work, "train", own)
    graphs, _ = compile_graphs(store, subset, lang, optional_silence=silence, starts=starts, compiled=compiled)
    if not graphs:
        raise UserError(f"{store.folder}: no utterance of the training set can be aligned.")
    return flat_start(
        store,
        list(graphs),
        list(graphs.values()),
        NUM_HMM_STATES * len(lang.phones),
        config.alignment,
        make_classifier,
        seed=config.seed,
        nj=nj,
        checkpoint=partial / "flat_start.npz",
    )


def _out_of_date(work: Workspace, stores: dict[str, FrameStore], made_by: Stamp) -> str | None:
    """A killed run with other settings may have left its trees; stores that were made anew have lost their labels."""
    for suffix in ("", "_monophone") if made_by.settings["monophone"] else ("",):
        tree = _tree_stamp(suffix, made_by)
        if (reason := stale_reason(work.exp(f"tree{suffix}"), tree)) is not None:
            return f"exp/tree{suffix}: {reason}"
        for name, store in stores.items():
            labels = store.array_stamp(f"states{suffix}")
            if labels is None or labels["inputs"].get("tree") != tree.digest:
                return f"the states of {name} are not there, or those of another tree"
    return None


def _tree_stamp(suffix: str, made_by: Stamp) -> Stamp:
    return Stamp(f"tree{suffix}", dict(made_by.settings), dict(made_by.inputs), made_by.seed)


def _check_failures(
    config: Config, work: Workspace, stores: dict[str, FrameStore], failed: list[dict[str, str]]
) -> None:
    total = sum(len(store.ids) for store in stores.values())
    if len(failed) > config.alignment.max_bad_fraction * total:
        names = "; ".join(f"{one['utterance']}: {one['reason']}" for one in failed[:5])
        raise UserError(
            f"{work.frames('train')}: {len(failed)} of {total} utterances cannot be aligned ({names}); mend their "
            "transcripts or leave them out, or raise alignment.max_bad_fraction."
        )


def _grow(config: Config, store: FrameStore, alignment: Alignment, lang: Lang) -> Tree:
    """The tree, from as many hours of training utterances as the flat start has; silence's context is ignored."""
    subset = choose_subset(store, config.alignment.subset_hours, config.seed)
    used = [u for u in subset if alignment.contexts[store.offsets[u]] >= 0]
    keys = np.unique(np.concatenate([_without_silence_context(alignment.contexts[store.span(u)], lang) for u in used]))
    statistics = Statistics.empty(lang.phones, keys, 3 * NUM_CEPSTRA)
    for utterance in used:
        contexts = _without_silence_context(alignment.contexts[store.span(utterance)], lang)
        statistics.add(contexts, cepstra(store.normalised(utterance)))
    tree = grow_tree(statistics, leaves=config.alignment.leaves, min_count=config.alignment.min_count)
    log.info("the tree has %d tied states for %d contexts", tree.num_senones, len(keys))
    if tree.num_senones > config.alignment.leaves:
        log.warning(
            "alignment.leaves is %d, but no tree has fewer than one tied state for each state of each phone: %d",
            config.alignment.leaves, tree.num_senones,
        )  # fmt: skip
    return tree


def _without_silence_context(keys: NDArray[np.int32], lang: Lang) -> NDArray[np.int32]:
    """Silence sounds alike between all phones: its left and right phone become silence."""
    size = len(lang.phones)
    base = keys // (size * size)
    return np.where(base // NUM_HMM_STATES == SIL, base * size * size + SIL * size + SIL, keys).astype(np.int32)


def _write(
    work: Workspace,
    stores: dict[str, FrameStore],
    alignments: dict[str, Alignment],
    tree: Tree,
    suffix: str,
    made_by: Stamp,
) -> None:
    counts = np.zeros(tree.num_senones, np.int64)
    for block in _states(alignments["train"], tree):
        counts += np.bincount(block[block >= 0], minlength=tree.num_senones)
    tree = with_counts(tree, counts)
    stamp = _tree_stamp(suffix, made_by)
    with replacing_folder(work.exp(f"tree{suffix}"), stamp, {"num_senones": tree.num_senones}) as temporary:
        write_tree(tree, temporary)
    for name, store in stores.items():
        of_set = Stamp(f"states{suffix}", {"set": name}, {"tree": stamp.digest})
        store.attach_blocks(f"states{suffix}", _states(alignments[name], tree), np.int32, of_set)


def _states(alignment: Alignment, tree: Tree) -> Iterator[NDArray[np.int32]]:
    """The tied states of all frames in order, -1 where there is none."""
    for first in range(0, len(alignment.contexts), FRAMES_AT_ONCE):
        contexts = np.asarray(alignment.contexts[first : first + FRAMES_AT_ONCE])
        yield np.where(contexts >= 0, tree.senones_of(np.maximum(contexts, 0)), -1).astype(np.int32)

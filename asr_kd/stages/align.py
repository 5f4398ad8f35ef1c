"""Stage 3, align: FrameStores and lexicon -> an aligner, alignments, trees, and the senone of every frame.

exp/align/model is the aligner, exp/align/<set> the alignment of a set, exp/align/stamp.json has the totals. Each of
them has its own stamp (see `align_stamps`), so that a set that is added later is aligned by the same aligner.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_kd.alignment.boundary_offsets import OFFSETS_FILE, read_offsets, write_offsets
from asr_kd.alignment.manual import read_starts
from asr_kd.alignment.segments import CONTEXTS, SEGMENTS, STARTS, alignment_bytes, read_array, segments_bytes
from asr_kd.alignment.set_alignment import AlignedBlock, align_block, read_failures, write_blocks
from asr_kd.alignment.subframe import SubframeShiftedFrames, mean_starts
from asr_kd.alignment.topology import CannotAlignError
from asr_kd.alignment.transcripts import Failures, GraphCompiler, TranscribedFrames
from asr_kd.alignment.tree import Tree, monophone_tree, read_tree, write_tree
from asr_kd.alignment.tree_growing import grow_tree_of_set
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import replacing_file
from asr_kd.io.folders import discard_partial, replacing_folder, resuming_folder
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import STAMP, Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import read_lang
from asr_kd.stages.align_stamps import AlignmentStamps
from asr_kd.stages.finished_alignment import times_folder
from asr_kd.workspace.cached_map import ARRAYS, Codec, cached_map
from asr_kd.workspace.config import ALIGNER, TRAIN, Config
from asr_kd.workspace.frames import open_frames
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.sets import all_sets
from asr_kd.workspace.work import Workspace, labels_of, require

if TYPE_CHECKING:
    from asr_kd.alignment.aligner import Aligner

log = logging.getLogger(__name__)

BLOCK = 256  # utterances of a block, whose alignment is in one file while the set is not finished
_BLOCKS = Codec(lambda block: ARRAYS.pack(block.arrays()), lambda data: AlignedBlock.of_arrays(ARRAYS.unpack(data)))
_CACHED_GRAPHS = 1000  # utterances; with more, each pass over them compiles their graphs again, to save memory


@dataclass(frozen=True)
class AlignResult:
    """The alignments of all sets, and the utterances that have none."""

    ran: bool
    utterances: int  # of all sets, altered copies included
    failed: list[dict[str, str]] = field(default_factory=list)  # {"utterance", "set", "reason"}
    num_senones: int = 0
    seconds_per_hour: float = 0.0  # of speech, flat start included

    def __str__(self) -> str:
        lines = [
            f"{'aligned' if self.ran else 'already aligned'}: {self.utterances:,} utterances, "
            f"{self.num_senones} senones, {len(self.failed)} utterances failed"
        ]
        lines += [f"  failed: {failed['utterance']} ({failed['set']}): {failed['reason']}" for failed in self.failed]
        return "\n".join(lines)


def align(config: Config, work: Workspace, nj: int = 1) -> AlignResult:
    """Makes exp/align, the trees, and the labels of each set's frames: whatever is missing or out of date.

    Raises:
      UserError: a stage before has not run, settings contradict each other, or more utterances than allowed fail to
        align (all are named).
    """
    run = _open(config, work, nj)
    run.check_disk()
    run.align_sets()
    run.check_failures()
    run.grow_trees()
    run.attach_labels()
    run.time_segments()
    metadata = run.write_totals()
    return AlignResult(run.ran, **metadata)


def _open(config: Config, work: Workspace, nj: int) -> _Run:
    if config.alignment.learn_from == "all" and config.alignment.labels == "manual":
        raise UserError(
            f"{work.config_path}: alignment.learn_from: all is for an aligner without manual times; with labels: "
            "manual leave it out."
        )
    sets = list(all_sets(config, work))
    lang = require(work.lang, work, "prepare")["digest"]
    for name in sets:
        _check_current(work, name)
    check_inputs_unmodified(work, sets)
    stores = {name: open_frames(work, name) for name in sets}
    return _Run(config, work, AlignmentStamps(config, work, lang, stores), stores, _offsets(config, work), nj)


def _check_current(work: Workspace, name: str) -> None:
    frames = require(work.frames(name), work, "features")
    cuts = read_stamp(work.cuts_stamp(name))
    if cuts is not None and frames["inputs"].get("cuts") not in (None, cuts["digest"]):
        raise UserError(
            f"{work.frames(name)} was made from cuts {frames['inputs']['cuts']}, but {work.cuts(name)} has "
            f"{cuts['digest']} now; make the features again: {work.command('features')}"
        )


def _offsets(config: Config, work: Workspace) -> dict[str, float]:
    name = config.alignment.boundary_offsets
    return read_offsets(work.config_path.parent / name) if name else {}


@dataclass
class _Run:
    """One run of the stage over all sets."""

    config: Config
    work: Workspace
    stamps: AlignmentStamps
    stores: dict[str, FrameStore]
    boundary_offsets: dict[str, float]
    nj: int
    ran: bool = False  # whether anything was missing or out of date

    @cached_property
    def compilers(self) -> dict[str, GraphCompiler]:
        """Of each set: test sets have lexicons of their own beside that of training."""
        cached = sum(len(store.ids) for store in self.stores.values()) <= _CACHED_GRAPHS
        silence = self.config.alignment.optional_silence
        return {
            name: GraphCompiler(read_lang(self.work.lang, self.work.lexicon(name)), silence, {} if cached else None)
            for name in self.stores
        }

    @cached_property
    def data(self) -> dict[str, TranscribedFrames]:
        manual = self.config.alignment.labels == "manual"
        return {
            name: TranscribedFrames.of_store(store, read_starts(self.work.cuts(name), store) if manual else None)
            for name, store in self.stores.items()
        }

    def folder(self, name: str) -> Path:
        return self.work.exp("align") / name

    def check_disk(self) -> None:
        frames = sum(
            self.stores[name].num_frames
            for name in self.stores
            if stale_reason(self.folder(name), self.stamps.alignment(name)) is not None
        )
        # contexts and segments are on disk twice while the blocks are joined
        needed = alignment_bytes(frames, num_trees=1 + len(self.config.trees)) + segments_bytes(frames)
        check_disk(self.work.exp("align"), needed)

    def is_stale(self, path: Path, stamp: Stamp) -> bool:
        """Whether an artefact is missing or out of date; if so, logs the reason."""
        reason = stale_reason(path, stamp)
        if reason is None:
            discard_partial(path)
            return False
        log.info("%s: %s", path, reason)
        self.ran = True
        return True

    @cached_property
    def aligner(self) -> Aligner:
        """Trained, or as an earlier run trained it."""
        from asr_kd.alignment.align import train_aligner  # loads torch, which a finished stage does not need
        from asr_kd.alignment.aligner import load_aligner

        settings, folder = self.config.alignment, self.folder(ALIGNER)
        if not self.is_stale(folder, self.stamps.aligner()):
            return load_aligner(folder, beam=settings.beam)
        data, compiler, started = self.data[TRAIN], self.compilers[TRAIN], time.perf_counter()
        if settings.learn_from == "all":
            data = TranscribedFrames.concatenated(list(self.data.values()))
            lexicons = [self.work.lexicon(name) for name in self.stores]
            compiler = replace(compiler, lang=read_lang(self.work.lang, *lexicons), cache=None)
        metadata: dict[str, Any] = {}
        with resuming_folder(folder, self.stamps.aligner(), metadata) as partial:
            checkpoint = partial / "flat_start.npz"
            try:
                aligner = train_aligner(
                    data, compiler, settings, seed=self.config.seed, nj=self.nj, checkpoint=checkpoint
                )
            except CannotAlignError as error:
                raise UserError(f"{self.work.frames(TRAIN)}: {error}.") from None
            aligner.save(partial)
            metadata["seconds"] = round(time.perf_counter() - started, 1)
        (folder / checkpoint.name).unlink(missing_ok=True)  # not earlier: a run that is killed here resumes from it
        return aligner

    def align_sets(self) -> None:
        for name, store in self.stores.items():
            stamp = self.stamps.alignment(name)
            if not self.is_stale(self.folder(name), stamp):
                continue
            _, started = self.aligner, time.perf_counter()
            metadata: dict[str, Any] = {}
            with resuming_folder(self.folder(name), stamp, metadata) as partial:
                failures = self._align_set(partial, self.data[name], self.compilers[name], f"align {name}")
                metadata |= {
                    "utterances": len(store.ids),
                    "failed": sorted(
                        ({"utterance": store.ids[u], "set": name, "reason": why} for u, why in failures.items()),
                        key=lambda failed: failed["utterance"],
                    ),
                    "hours": float(store.durations.sum()) / 3600,
                    "seconds": round(time.perf_counter() - started, 1),
                }

    def _align_set(self, folder: Path, data: TranscribedFrames, compiler: GraphCompiler, label: str) -> Failures:
        """Writes the alignment of a set into a folder in which a killed run may have left blocks of it."""
        blocks = folder / "blocks"
        if not (folder / SEGMENTS).exists():
            blocks.mkdir(parents=True, exist_ok=True)
            size = len(data.texts)
            shards = [range(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]
            aligned = cached_map(
                lambda utterances: align_block(data, utterances, self.aligner, compiler, nj=self.nj),
                shards,
                [blocks / f"{shard.start}.npz" for shard in shards],
                _BLOCKS,
                progress=label,
            )
            write_blocks(folder, aligned)
        shutil.rmtree(blocks, ignore_errors=True)
        return read_failures(folder)

    @cached_property
    def set_metadata(self) -> dict[str, Mapping[str, Any]]:
        """Of the finished alignment of each set."""
        return {name: require(self.folder(name), self.work, "align")["metadata"] for name in self.stores}

    @property
    def failed(self) -> list[dict[str, str]]:
        """By set and utterance."""
        return [failed for name in sorted(self.set_metadata) for failed in self.set_metadata[name]["failed"]]

    def check_failures(self) -> None:
        own = {name: store for name, store in self.stores.items() if name in self.config.sets}
        # an added set is only scored: what cannot be aligned in it stops nobody
        total = sum(len(store.ids) for store in own.values())
        failed = [bad for bad in self.failed if bad["set"] in own]
        if len(failed) > self.config.alignment.max_bad_fraction * total:
            names = "; ".join(f"{bad['utterance']}: {bad['reason']}" for bad in failed[:5])
            raise UserError(
                f"{self.work.frames(TRAIN).parent}: {len(failed)} of {total} utterances cannot be aligned ({names}); "
                "correct their transcripts, leave them out, or raise alignment.max_bad_fraction."
            )

    def grow_trees(self) -> None:
        for kind in self.config.trees:
            folder, stamp = self.work.tree(kind), self.stamps.tree(kind)
            if self.is_stale(folder, stamp):
                tree = self._grow(kind)
                with replacing_folder(folder, stamp, {"num_senones": tree.num_senones}) as temporary:
                    write_tree(tree, temporary)

    def _grow(self, kind: str) -> Tree:
        contexts, phones = self._contexts(TRAIN), self.compilers[TRAIN].lang.phones
        if kind == "monophone":
            return monophone_tree(phones).with_counts_of(contexts)
        return grow_tree_of_set(self.data[TRAIN], contexts, phones, self.config.alignment, seed=self.config.seed)

    def _contexts(self, name: str) -> np.ndarray:
        return read_array(self.folder(name) / CONTEXTS)

    def attach_labels(self) -> None:
        for kind in self.config.trees:
            tree: Tree | None = None
            for name, store in self.stores.items():
                stamp = self.stamps.labels(name, kind)
                labels = store.array_stamp(labels_of(kind))
                if labels is not None and labels["digest"] == stamp.digest:
                    continue
                self.ran = True
                tree = tree or read_tree(self.work.tree(kind))
                store.attach_blocks(labels_of(kind), tree.senone_blocks(self._contexts(name)), np.int32, stamp)

    def time_segments(self) -> None:
        """Times that are finer than a frame, where the config asks for phases."""
        settings = self.config.alignment
        for name, data in self.data.items() if settings.labels != "manual" else ():
            folder = times_folder(self.work, name)
            if settings.phases == 1:
                self.ran |= folder.exists()
                shutil.rmtree(folder, ignore_errors=True)
            elif self.is_stale(folder, self.stamps.times(name)):
                with resuming_folder(folder, self.stamps.times(name)) as partial:
                    self._time_set(partial, name, data)

    def _time_set(self, folder: Path, name: str, data: TranscribedFrames) -> None:
        phases = self.config.alignment.phases
        phase_folders = [folder / f"phase{phase}" for phase in range(1, phases)]
        if not (folder / STARTS).exists():
            segments = [read_array(self.folder(name) / SEGMENTS)]
            for phase, phase_folder in enumerate(phase_folders, 1):
                shifted = replace(data, frames=SubframeShiftedFrames(data.frames, phase / phases))
                label = f"align {name}, phase {phase + 1} of {phases}"
                self._align_set(phase_folder, shifted, self.compilers[name], label)
                segments.append(read_array(phase_folder / SEGMENTS))
            with replacing_file(folder / STARTS) as temporary:
                np.save(temporary, mean_starts(segments), allow_pickle=False)
        for phase_folder in phase_folders:
            shutil.rmtree(phase_folder, ignore_errors=True)

    def write_totals(self) -> dict[str, Any]:
        """exp/align/stamp.json, failed.json and the boundary offsets; returns the metadata."""
        folder, offsets = self.work.exp("align"), self.boundary_offsets
        stamp = self.stamps.totals(offsets)
        if not (self.is_stale(folder, stamp) or self.ran):
            metadata: dict[str, Any] = require(folder, self.work, "align")["metadata"]
            return metadata
        metadata = self._totals()
        (folder / STAMP).unlink(missing_ok=True)
        if offsets:
            write_offsets(folder / OFFSETS_FILE, offsets)
        else:
            (folder / OFFSETS_FILE).unlink(missing_ok=True)
        (folder / "failed.json").write_text(json.dumps(metadata["failed"], indent=1) + "\n", encoding="utf-8")
        with replacing_file(folder / STAMP) as temporary:
            stamp.write(temporary, metadata)
        return metadata

    def _totals(self) -> dict[str, Any]:
        of_model = read_stamp(self.folder(ALIGNER))
        seconds = of_model["metadata"]["seconds"] if of_model is not None else 0.0
        seconds += sum(of_set["seconds"] for of_set in self.set_metadata.values())
        hours = sum(of_set["hours"] for of_set in self.set_metadata.values())
        return {
            "utterances": sum(of_set["utterances"] for of_set in self.set_metadata.values()),
            "failed": self.failed,
            "num_senones": require(self.work.tree("tied"), self.work, "align")["metadata"]["num_senones"],
            "seconds_per_hour": round(seconds / max(hours, 1e-9), 1),
        }

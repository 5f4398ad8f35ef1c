"""Stage 3, align: FrameStores and lexicon -> an aligner, alignments, trees, and the senone of every frame.

exp/align/model is the flat start's aligner, exp/realign/<n> that of the n-th round of realignment, exp/align/<set> the
alignment of a set by the last of them, exp/align/stamp.json has the totals. Each of these has its own stamp (see
`align_stamps`), so that a set that is added later is aligned by the same aligner.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_kd.alignment.boundaries import OFFSETS_FILE, read_offsets, write_offsets
from asr_kd.alignment.given_labels import label_files
from asr_kd.alignment.manual import read_starts
from asr_kd.alignment.set_alignment import (
    CONTEXTS,
    SEGMENTS,
    STARTS,
    align_block,
    alignment_bytes,
    read_array,
    read_failures,
    segments_bytes,
    write_blocks,
)
from asr_kd.alignment.subframe import SubframeShiftedFrames, mean_starts
from asr_kd.alignment.transcripts import Failures, TranscribedFrames
from asr_kd.alignment.tree import Tree, monophone_tree, read_tree, write_tree
from asr_kd.alignment.tree_growing import grow_tree_of_set
from asr_kd.errors import UserError
from asr_kd.frames.features import FRAME_SHIFT, frame_seconds
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import digest_of, file_digest, read_lines, replacing_file
from asr_kd.io.folders import discard_partial, replacing_folder, resuming_folder
from asr_kd.io.formatting import plural
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import STAMP, Stamp, read_stamp, stale_reason
from asr_kd.lang.lexicon import Lang, read_lang
from asr_kd.stages.align_stamps import AlignmentStamps
from asr_kd.stages.current import check_cuts
from asr_kd.stages.finished_alignment import times_folder
from asr_kd.stages.set_cuts import has_lexicon
from asr_kd.workspace.cached_map import ARRAYS, cached_map
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.executor import on_cluster
from asr_kd.workspace.freshness import check_inputs_unmodified
from asr_kd.workspace.sets import all_sets, open_frames
from asr_kd.workspace.work import Workspace, labels_of, require

if TYPE_CHECKING:
    from asr_kd.alignment.aligner import Aligner

log = logging.getLogger(__name__)

BLOCK = 256  # utterances of a block, whose alignment is in one file while the set is not finished


@dataclass(frozen=True)
class AlignResult:
    """The alignments of all sets, and the utterances that have none."""

    ran: bool
    utterances: int  # of all sets, altered copies included
    failed: list[dict[str, str]] = field(default_factory=list)  # {"utterance", "set", "reason"}
    num_senones: int = 0
    seconds_per_hour: float = 0.0  # of speech, flat start included
    notes: list[str] = field(default_factory=list)  # on the labels that the flat start began with

    def __str__(self) -> str:
        lines = [
            f"{'aligned' if self.ran else 'already aligned'}: {plural(self.utterances, 'utterance')}, "
            f"{self.num_senones} senones, {plural(len(self.failed), 'utterance')} failed"
        ]
        lines += self.notes
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


def opened_aligner(config: Config, work: Workspace, name: str) -> tuple[Aligner, TranscribedFrames]:
    """The aligner of a finished alignment, and the frames of a set.

    Raises:
      UserError: an input is missing, or the aligner is missing or out of date.
    """
    run = _open(config, work, 1)
    rounds = config.alignment.realign_rounds
    if (reason := stale_reason(work.aligner(rounds), run.stamps.aligner(rounds))) is not None:
        raise UserError(f"{work.aligner(rounds)}: {reason}; align first: {work.command('align')}")
    return run.aligner, run.data[name]


def _open(config: Config, work: Workspace, nj: int) -> _Run:
    if config.alignment.learn_from == "all" and config.alignment.labels == "manual":
        raise UserError(
            f"{work.config_path}: alignment.learn_from: all is for an aligner without manual times; with labels: "
            "manual leave it out."
        )
    sets = list(all_sets(config, work))
    vocabulary = require(work.lang, work, "prepare")
    for name in sets:
        check_cuts(work, name)
    check_inputs_unmodified(work)
    stores = {name: open_frames(work, name) for name in sets}
    file = config.alignment.boundary_offsets
    offsets = read_offsets(work.config_path.parent / file) if file else {}
    labels = ""
    if config.alignment.labels == "from":
        labels = digest_of([[path.name, file_digest(path)] for path in label_files(_label_folder(config, work))])
    lang = read_lang(work.lang)
    spoken = _spoken_digest(config, work, stores, lang, vocabulary["digest"])
    respelt = {name: _respelt(work.lexicon(name), lang) for name in sets}
    stamps = AlignmentStamps(config, work, spoken, stores, labels, respelt)
    return _Run(config, work, stamps, stores, offsets, nj)


def _spoken_digest(config: Config, work: Workspace, stores: Mapping[str, FrameStore], lang: Lang, whole: str) -> str:
    """Returns the digest of the phones and of the pronunciations of words in sets without a lexicon of their own.

    A vocabulary that grew by `lang.lm_text` changes no alignment, and so no net.

    Args:
      whole: digest of data/lang.
    """
    stamp = read_stamp(work.aligner(0))
    if stamp is not None and stamp["inputs"].get("lang") == whole:
        return whole  # by a version that took the vocabulary as a whole
    texts = {text for name, store in stores.items() if not has_lexicon(config, name) for text in store.texts}
    words = sorted({word for text in texts for word in text.split()})
    spoken = [lang.phones, [[word, lang.pronunciations.get(word)] for word in words]]
    # stops that some word closes: of all words, for they have releases of their own then
    return digest_of([*spoken, *([sorted(lang.closed_stops)] if lang.closed_stops else [])])[:16]


def _respelt(lexicon: Path, lang: Lang) -> str:
    """Digest of the words of a set's lexicon that data/lang says otherwise by now, as it is taken; "": none."""
    own: dict[str, set[tuple[str, ...]]] = {}
    for _, line in read_lines(lexicon, "prepare the set again") if lexicon.exists() else ():
        word, *phones = line.split()
        own.setdefault(word, set()).add(tuple(phones))
    known = {word: lang.spell(word) for word in sorted(own.keys() & lang.pronunciations.keys())}
    changed = [[word, variants] for word, variants in known.items() if set(variants) != own[word]]
    return digest_of(changed)[:16] if changed else ""


def _label_folder(config: Config, work: Workspace) -> Path:
    return work.config_path.parent / config.alignment.dir


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
    def data(self) -> dict[str, TranscribedFrames]:
        """The transcribed frames of each set; test sets have lexicons of their own beside that of training."""
        settings, data = self.config.alignment, {}
        shift = frame_seconds(self.config.corpus.sampling_rate)
        for name, store in self.stores.items():
            lang = read_lang(self.work.lang, self.work.lexicon(name))
            starts = read_starts(self.work.cuts(name), store, shift) if settings.labels == "manual" else None
            data[name] = TranscribedFrames.of_store(store, lang, settings.optional_silence, starts)
        return data

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
        settings = self.config.alignment
        if stale_reason(self.work.aligner(0), self.stamps.aligner(0)) is not None:
            # a round leaves the state of every frame that the flat start learns from, and then deletes the last one's
            sets = self.stores if settings.learn_from == "all" else [TRAIN]
            learnt = min(settings.subset_hours * 3600 / FRAME_SHIFT, sum(self.stores[s].num_frames for s in sets))
            needed = max(needed, 2 * 4 * learnt)
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
        """The last one: of the flat start, or of a round of realignment; trained now, or by an earlier run."""
        from asr_kd.stages.aligners import Aligners  # loads torch, which a finished stage does not need

        return Aligners(self.config, self.work, self.stamps, self.data, self.is_stale, self.nj).last()

    def align_sets(self) -> None:
        for name, store in self.stores.items():
            stamp = self.stamps.alignment(name)
            if not self.is_stale(self.folder(name), stamp):
                continue
            _, started = self.aligner, time.perf_counter()
            metadata: dict[str, Any] = {}
            with resuming_folder(self.folder(name), stamp, metadata) as unfinished:
                failures = self._align_set(unfinished, self.data[name], f"align {name}")
                metadata |= {
                    "utterances": len(store.ids),
                    "failed": sorted(
                        ({"utterance": store.ids[u], "set": name, "reason": why} for u, why in failures.items()),
                        key=lambda failed: failed["utterance"],
                    ),
                    "hours": float(store.durations.sum()) / 3600,
                    "seconds": round(time.perf_counter() - started, 1),
                }

    def _align_set(self, folder: Path, data: TranscribedFrames, label: str) -> Failures:
        """Writes the alignment of a set into a folder in which a killed run may have left blocks of it."""
        blocks = folder / "blocks"
        if not (folder / SEGMENTS).exists():
            size = len(data.texts)
            shards = [range(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]
            # a block uses all cores of this machine, of a cluster one
            processes, threads = (self.nj, 1) if on_cluster() else (1, self.nj)
            aligned = cached_map(
                partial(align_block, data, aligner=self.aligner, nj=threads),
                shards,
                [blocks / f"{shard.start}.npz" for shard in shards],
                ARRAYS,
                nj=processes,
                progress=label,
            )
            write_blocks(folder, aligned)
        shutil.rmtree(blocks, ignore_errors=True)
        return read_failures(folder)

    @cached_property
    def set_metadata(self) -> dict[str, Mapping[str, Any]]:
        """The metadata of the finished alignment of each set."""
        return {name: require(self.folder(name), self.work, "align")["metadata"] for name in self.stores}

    @property
    def failed(self) -> list[dict[str, str]]:
        """The utterances that failed to align, sorted by set and utterance."""
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
        data, contexts = self.data[TRAIN], self._contexts(TRAIN)
        if kind == "monophone":
            return monophone_tree(data.lang.phones).with_counts_of(contexts)
        return grow_tree_of_set(data, contexts, self.config.alignment, seed=self.config.seed)

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
                store.attach(labels_of(kind), tree.senone_blocks(self._contexts(name)), np.int32, stamp)

    def time_segments(self) -> None:
        """Times that are finer than a frame, where the config asks for phases."""
        settings = self.config.alignment
        for name in self.stores if settings.labels != "manual" else ():
            folder = times_folder(self.work, name)
            if settings.phases == 1:
                self.ran |= folder.exists()
                shutil.rmtree(folder, ignore_errors=True)
            elif self.is_stale(folder, self.stamps.times(name)):
                with resuming_folder(folder, self.stamps.times(name)) as unfinished:
                    self._time_set(unfinished, name)

    def _time_set(self, folder: Path, name: str) -> None:
        data, phases = self.data[name], self.config.alignment.phases
        phase_folders = [folder / f"phase{phase}" for phase in range(1, phases)]
        if not (folder / STARTS).exists():
            segments = [read_array(self.folder(name) / SEGMENTS)]
            for phase, phase_folder in enumerate(phase_folders, 1):
                shifted = replace(data, frames=SubframeShiftedFrames(data.frames, phase / phases))
                self._align_set(phase_folder, shifted, f"align {name}, phase {phase + 1} of {phases}")
                segments.append(read_array(phase_folder / SEGMENTS))
            starts = mean_starts(segments, frame_seconds(self.config.corpus.sampling_rate))
            with replacing_file(folder / STARTS) as temporary:
                np.save(temporary, starts, allow_pickle=False)
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
        rounds = range(self.config.alignment.realign_rounds + 1)
        aligners = [stamp["metadata"] for n in rounds if (stamp := read_stamp(self.work.aligner(n))) is not None]
        seconds = sum(metadata["seconds"] for metadata in aligners)
        seconds += sum(of_set["seconds"] for of_set in self.set_metadata.values())
        hours = sum(of_set["hours"] for of_set in self.set_metadata.values())
        return {
            "utterances": sum(of_set["utterances"] for of_set in self.set_metadata.values()),
            "failed": self.failed,
            "notes": [note for metadata in aligners for note in metadata.get("notes", [])],
            "num_senones": require(self.work.tree("tied"), self.work, "align")["metadata"]["num_senones"],
            "seconds_per_hour": round(seconds / max(hours, 1e-9), 1),
        }

"""Aligns a whole set with a trained aligner, block by block: only one block of utterances is ever in memory.

What is done stays on disk: a killed run goes on at the first block that is missing.

Shapes:  N frames of the set, U utterances, K phone segments of a block or the set.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asr_kd.alignment.flat_start import MonophoneAligner
from asr_kd.alignment.manual import Starts
from asr_kd.alignment.segments import COLUMNS, Alignment, contexts_file, read_alignment, segments_file
from asr_kd.alignment.topology import CannotAlignError, Graph, compile_graph, path_contexts, path_segments
from asr_kd.frames.store import FrameStore
from asr_kd.io.files import replacing_file
from asr_kd.lang.lexicon import Lang

BLOCK = 256  # utterances

Failures = dict[int, str]  # utterance -> why it has no alignment


@dataclass(frozen=True)
class AlignedSet:
    """What a set's alignment is: its arrays in `folder`, and the utterances that have none."""

    folder: Path
    name: str
    failed: Failures

    def read(self) -> Alignment:
        return read_alignment(self.folder, self.name)


def align_set(
    folder: Path,
    name: str,
    store: FrameStore,
    lang: Lang,
    aligner: MonophoneAligner,
    *,
    optional_silence: bool = True,
    starts: Starts | None = None,
    compiled: dict[str, Graph] | None = None,
    nj: int = 1,
) -> AlignedSet:
    """Writes <name>_contexts.npy and <name>_segments.npy into `folder`, with what is needed to go on.

    Args:
      folder: holds what an earlier run with the same settings and inputs has left, or is empty.
      optional_silence, starts, compiled: see `compile_graphs`.
    """
    blocks = [range(first, min(first + BLOCK, len(store.ids))) for first in range(0, len(store.ids), BLOCK)]
    contexts = _open_contexts(contexts_file(folder, name), store.num_frames)
    files = [folder / f"{name}.{number}.npz" for number in range(len(blocks))]
    with tqdm(total=len(store.ids), desc=f"align {name}", unit="utt", mininterval=1.0) as bar:
        for utterances, file in zip(blocks, files, strict=True):
            if not file.exists():
                graphs, failed = compile_graphs(
                    store, utterances, lang, optional_silence=optional_silence, starts=starts, compiled=compiled
                )
                segments = _align_block(store, graphs, failed, len(lang.phones), aligner, contexts, nj)
                contexts.flush()  # before the file that says that they are there
                with replacing_file(file) as temporary:
                    np.savez(temporary, segments=segments, failed=json.dumps(failed))
            bar.update(len(utterances))
    del contexts
    failures: Failures = {}
    total = 0
    for file in files:
        with np.load(file, allow_pickle=False) as block:
            failures |= {int(u): reason for u, reason in json.loads(str(block["failed"])).items()}
            total += len(block["segments"])
    if not segments_file(folder, name).exists():
        with replacing_file(segments_file(folder, name)) as temporary:
            _concatenate(temporary, files, total)
    return AlignedSet(folder, name, failures)


def put_in_place(aligned: AlignedSet, folder: Path) -> None:
    """The two arrays also in `folder`, without a copy where the file system can."""
    for of in (contexts_file, segments_file):
        here, there = of(aligned.folder, aligned.name), of(folder, aligned.name)
        try:
            os.link(here, there)
        except OSError:
            shutil.copyfile(here, there)


def _open_contexts(path: Path, num_frames: int) -> np.memmap:
    if not path.exists():
        with replacing_file(path) as temporary:
            new = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int32, shape=(num_frames,))
            for first in range(0, num_frames, 1 << 24):
                new[first : first + (1 << 24)] = -1
            new.flush()
    return np.lib.format.open_memmap(path, mode="r+")


def _align_block(
    store: FrameStore,
    graphs: Mapping[int, Graph],
    failed: Failures,
    num_phones: int,
    aligner: MonophoneAligner,
    contexts: np.memmap,
    nj: int,
) -> NDArray[np.int32]:
    """Fills in `contexts` of the graphs' utterances, and `failed` where there is no path; returns their segments."""
    rows = [np.zeros((0, COLUMNS), np.int32)]
    found = aligner.paths(store, list(graphs), list(graphs.values()), nj=nj, progress=None)
    for (utterance, graph), result in zip(graphs.items(), found, strict=True):
        if isinstance(result, CannotAlignError):
            failed[utterance] = str(result)
            continue
        contexts[store.span(utterance)] = path_contexts(graph, result[0], num_phones)
        segments = path_segments(graph, result[0])
        columns = [np.full(len(segments.phone), utterance), segments.phone, segments.word]
        rows.append(np.stack([*columns, segments.start[:-1], segments.start[1:]], axis=1).astype(np.int32))
    return np.concatenate(rows)


def compile_graphs(
    store: FrameStore,
    utterances: Iterable[int],
    lang: Lang,
    *,
    optional_silence: bool = True,
    starts: Starts | None = None,
    compiled: dict[str, Graph] | None = None,
) -> tuple[dict[int, Graph], Failures]:
    """A graph for each utterance that can have one, and why the others cannot; equal transcripts share theirs.

    Args:
      optional_silence: whether there may be silence that a transcript does not name.
      starts: where each phone of the transcripts begins, if that is known; then there is no optional silence.
      compiled: graphs by transcript from other calls with the same settings, to which this one's are added.
    """
    compiled = {} if compiled is None else compiled
    graphs: dict[int, Graph] = {}
    failed: Failures = {}
    optional_silence = optional_silence and starts is None
    for utterance in utterances:
        text = store.texts[utterance]
        try:
            if text not in compiled:
                compiled[text] = compile_graph(text.split(), lang, optional_silence=optional_silence)
            graphs[utterance] = compiled[text] if starts is None else _fixed(compiled[text], starts.get(utterance))
        except CannotAlignError as error:
            failed[utterance] = str(error)
    return graphs, failed


def _fixed(graph: Graph, starts: NDArray[np.int32] | None) -> Graph:
    if starts is None:
        raise CannotAlignError("it has fewer frames than phones")
    if len(starts) - 1 != len(graph.phone):
        raise CannotAlignError(
            f"its transcript has {len(graph.phone)} phones, but there are times of {len(starts) - 1}"
        )
    return replace(graph, starts=starts)


def _concatenate(path: Path, files: list[Path], total: int) -> None:
    # open_memmap cannot map an array without rows
    if total == 0:
        np.save(path, np.zeros((0, COLUMNS), np.int32))
        return
    segments = np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=(total, COLUMNS))
    first = 0
    for file in files:
        with np.load(file, allow_pickle=False) as block:
            here = block["segments"]
        segments[first : first + len(here)] = here
        first += len(here)
    segments.flush()


def named(failures: Mapping[str, Failures], stores: Mapping[str, FrameStore]) -> list[dict[str, str]]:
    """[{"utterance", "set", "reason"}] by set and utterance."""
    rows = [
        {"utterance": stores[name].ids[utterance], "set": name, "reason": reason}
        for name, of_set in failures.items()
        for utterance, reason in of_set.items()
    ]
    return sorted(rows, key=lambda one: (one["set"], one["utterance"]))

"""The alignment of a set on disk, made by a trained aligner: each frame's context, and the phones with their frames.

Both are plain int32 arrays that are read in place: 960 hours have 345 million frames and 43 million phones. The set is
aligned block by block: only one block of utterances is in memory.

contexts: (N,) of each frame, see `topology.context_key`; -1 in utterances that failed.
segments: (K, 5) utterance, phone, word of its transcript (-1: none), first frame, end; none of utterances that failed.

Shapes:  N frames of the set, n frames of a block, K phone segments of a block or the set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.topology import CannotAlignError, context_keys
from asr_kd.alignment.transcripts import Failures, TranscribedFrames
from asr_kd.errors import UserError
from asr_kd.io.append_log import reserve_header, write_header
from asr_kd.io.files import read_json, replacing_file

if TYPE_CHECKING:
    from asr_kd.alignment.aligner import Aligner

CONTEXTS, SEGMENTS, STARTS, FAILED = "contexts.npy", "segments.npy", "starts.npy", "failed.json"
_COLUMNS = 5  # of a segment
_FRAMES_PER_PHONE = 8.0  # about

# consecutive utterances: their contexts (n,) and segments (K, 5), and their failures as JSON
AlignedBlock = Mapping[str, np.ndarray]


def alignment_bytes(num_frames: float, *, num_trees: int) -> float:
    """Disk that the alignment of a set takes: contexts, the senones of each tree, and segments."""
    return num_frames * 4 * (1 + num_trees) + segments_bytes(num_frames)


def segments_bytes(num_frames: float) -> float:
    """Disk that the segments of a set take."""
    return num_frames * 4 * _COLUMNS / _FRAMES_PER_PHONE


def align_block(data: TranscribedFrames, utterances: range, aligner: Aligner, *, nj: int = 1) -> AlignedBlock:
    """Aligns consecutive utterances, at least one."""
    first = data.span(utterances[0]).start
    contexts = np.full(data.span(utterances[-1]).stop - first, -1, np.int32)
    rows = [np.zeros((0, _COLUMNS), np.int32)]
    failures: Failures = {}
    sources = list(utterances) if data.aligned_as is None else data.aligned_as[utterances].tolist()
    alignments = aligner.align(data, sorted(set(sources)), nj=nj)
    for utterance, source in zip(utterances, sources, strict=True):
        aligned = alignments[source]
        if isinstance(aligned, CannotAlignError):
            failures[utterance] = str(aligned)
            continue
        span, segments = data.span(utterance), aligned.segments
        contexts[span.start - first : span.stop - first] = context_keys(segments, aligned.states, len(data.lang.phones))
        columns = [np.full(len(segments.phone), utterance), segments.phone, segments.word]
        rows.append(np.stack([*columns, segments.start[:-1], segments.start[1:]], axis=1).astype(np.int32))
    return {"contexts": contexts, "segments": np.concatenate(rows), "failed": np.array(json.dumps(failures))}


def write_blocks(folder: Path, blocks: Iterable[AlignedBlock]) -> None:
    """Writes contexts.npy, failed.json and, last, segments.npy of a set into an existing folder."""
    failures: dict[str, str] = {}
    num_frames = num_segments = 0
    with replacing_file(folder / SEGMENTS) as temporary:
        with temporary.open("wb") as segments, (folder / CONTEXTS).open("wb") as contexts:
            reserve_header(segments)
            reserve_header(contexts)
            for block in blocks:
                contexts.write(np.ascontiguousarray(block["contexts"], "<i4").tobytes())
                segments.write(np.ascontiguousarray(block["segments"], "<i4").tobytes())
                failures |= json.loads(str(block["failed"]))
                num_frames += len(block["contexts"])
                num_segments += len(block["segments"])
            write_header(contexts, np.dtype("<i4"), (num_frames,))
            write_header(segments, np.dtype("<i4"), (num_segments, _COLUMNS))
        (folder / FAILED).write_text(json.dumps(failures, indent=1) + "\n", encoding="utf-8")


def read_failures(folder: Path) -> Failures:
    """The utterances of an aligned set that have no alignment, with the reasons."""
    failures = read_json(folder / FAILED, dict, f"delete {folder}, then align again.")
    return {int(utterance): reason for utterance, reason in failures.items()}


def read_array(path: Path) -> NDArray[Any]:
    """A memory map; raises UserError where the file is missing or damaged."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); delete {path.parent} and align again.") from None
    return array

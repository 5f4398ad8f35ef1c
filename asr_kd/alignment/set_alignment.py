"""Aligns a whole set with a trained aligner, block by block: only one block of utterances is in memory.

Shapes:  N frames of the set, n frames of a block, K phone segments of a block or the set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asr_kd.alignment.segments import COLUMNS, CONTEXTS, SEGMENTS
from asr_kd.alignment.topology import CannotAlignError, path_contexts, path_segments
from asr_kd.alignment.transcripts import Failures, GraphCompiler, TranscribedFrames
from asr_kd.io.append_log import reserve_header, write_header
from asr_kd.io.files import replacing_file

if TYPE_CHECKING:
    from asr_kd.alignment.aligner import Aligner

FAILED = "failed.json"


@dataclass(frozen=True)
class AlignedBlock:
    """Consecutive utterances; contexts and segments are as in `alignment.segments`."""

    contexts: NDArray[np.int32]  # (n,)
    segments: NDArray[np.int32]  # (K, 5)
    failures: Failures

    def arrays(self) -> dict[str, np.ndarray]:
        """The block as arrays, for a file."""
        return {"contexts": self.contexts, "segments": self.segments, "failed": np.array(json.dumps(self.failures))}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> AlignedBlock:
        """The block that `arrays` wrote."""
        failures = json.loads(str(arrays["failed"]))
        return cls(arrays["contexts"], arrays["segments"], {int(u): reason for u, reason in failures.items()})


def align_block(
    data: TranscribedFrames, utterances: range, aligner: Aligner, compiler: GraphCompiler, *, nj: int = 1
) -> AlignedBlock:
    """Aligns consecutive utterances, at least one."""
    graphs, failures = compiler.graphs(data, utterances)
    first = int(data.frames.offsets[utterances[0]])
    contexts = np.full(int(data.frames.offsets[utterances[-1] + 1]) - first, -1, np.int32)
    rows = [np.zeros((0, COLUMNS), np.int32)]
    paths = aligner.paths(data.frames, list(graphs.items()), nj=nj)
    for (utterance, graph), path in zip(graphs.items(), paths, strict=True):
        if isinstance(path, CannotAlignError):
            failures[utterance] = str(path)
            continue
        span = data.span(utterance)
        contexts[span.start - first : span.stop - first] = path_contexts(graph, path[0], len(compiler.lang.phones))
        segments = path_segments(graph, path[0])
        columns = [np.full(len(segments.phone), utterance), segments.phone, segments.word]
        rows.append(np.stack([*columns, segments.start[:-1], segments.start[1:]], axis=1).astype(np.int32))
    return AlignedBlock(contexts, np.concatenate(rows), failures)


def write_blocks(folder: Path, blocks: Iterable[AlignedBlock]) -> None:
    """Writes contexts.npy, failed.json and, last, segments.npy of a set into an existing folder."""
    failures: Failures = {}
    num_frames = num_segments = 0
    with replacing_file(folder / SEGMENTS) as temporary:
        with temporary.open("wb") as segments, (folder / CONTEXTS).open("wb") as contexts:
            reserve_header(segments)
            reserve_header(contexts)
            for block in blocks:
                contexts.write(np.ascontiguousarray(block.contexts, "<i4").tobytes())
                segments.write(np.ascontiguousarray(block.segments, "<i4").tobytes())
                failures |= block.failures
                num_frames, num_segments = num_frames + len(block.contexts), num_segments + len(block.segments)
            write_header(contexts, np.dtype("<i4"), (num_frames,))
            write_header(segments, np.dtype("<i4"), (num_segments, COLUMNS))
        (folder / FAILED).write_text(json.dumps(failures, indent=1) + "\n", encoding="utf-8")


def read_failures(folder: Path) -> Failures:
    """The utterances of an aligned set that have no alignment, with the reasons."""
    failures = json.loads((folder / FAILED).read_text(encoding="utf-8"))
    return {int(utterance): reason for utterance, reason in failures.items()}

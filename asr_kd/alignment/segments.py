"""The alignment of a set on disk: each frame's context, and the phones with their first frames.

Both are plain arrays that are read in place: 960 hours have 345 million frames and 43 million phones.

Shapes:  N frames of the set, K phone segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.errors import UserError

COLUMNS = 5  # of a segment
CONTEXTS, SEGMENTS, STARTS = "contexts.npy", "segments.npy", "starts.npy"
_FRAMES_PER_PHONE = 8.0  # about


@dataclass(frozen=True)
class Alignment:
    """Of one set; utterances that failed have contexts of -1 and no segments."""

    contexts: NDArray[np.int32]  # (N,) see `topology.context_key`
    segments: NDArray[np.int32]  # (K, 5): utterance, phone, word of its transcript (-1: none), first frame, end


def alignment_bytes(num_frames: float, *, num_trees: int) -> float:
    """Disk that the alignment of a set takes: contexts, the senones of each tree, and segments."""
    return num_frames * 4 * (1 + num_trees) + segments_bytes(num_frames)


def segments_bytes(num_frames: float) -> float:
    """Disk that the segments of a set take."""
    return num_frames * 4 * COLUMNS / _FRAMES_PER_PHONE


def write_alignment(alignment: Alignment, folder: Path) -> None:
    """For an alignment in memory; `set_alignment.write_blocks` writes one block by block."""
    np.save(folder / CONTEXTS, alignment.contexts, allow_pickle=False)
    np.save(folder / SEGMENTS, alignment.segments, allow_pickle=False)


def read_alignment(folder: Path) -> Alignment:
    """Maps the alignment of a set into memory; raises UserError where a file is missing or damaged."""
    return Alignment(read_array(folder / CONTEXTS), read_array(folder / SEGMENTS))


def read_array(path: Path) -> NDArray[Any]:
    """A memory map; raises UserError where the file is missing or damaged."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {path.parent} and align again.") from None
    return array

"""The alignment of a set on disk: each frame's context, and the phones with their first frames.

Both are plain int32 arrays that are read in place: 960 hours have 345 million frames and 43 million phones.

contexts: (N,) of each frame, see `topology.context_key`; -1 in utterances that failed.
segments: (K, 5) utterance, phone, word of its transcript (-1: none), first frame, end; none of utterances that failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_kd.errors import UserError

COLUMNS = 5  # of a segment
CONTEXTS, SEGMENTS, STARTS = "contexts.npy", "segments.npy", "starts.npy"
_FRAMES_PER_PHONE = 8.0  # about


def alignment_bytes(num_frames: float, *, num_trees: int) -> float:
    """Disk that the alignment of a set takes: contexts, the senones of each tree, and segments."""
    return num_frames * 4 * (1 + num_trees) + segments_bytes(num_frames)


def segments_bytes(num_frames: float) -> float:
    """Disk that the segments of a set take."""
    return num_frames * 4 * COLUMNS / _FRAMES_PER_PHONE


def read_array(path: Path) -> NDArray[Any]:
    """A memory map; raises UserError where the file is missing or damaged."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {path.parent} and align again.") from None
    return array

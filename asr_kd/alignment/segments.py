"""The alignment of a set on disk: each frame's context, and the phones with their times.

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
_FRAMES_OF_PHONE = 8.0  # or so


@dataclass(frozen=True)
class Alignment:
    """Of one set; utterances that failed have contexts of -1 and no segments."""

    contexts: NDArray[np.int32]  # (N,) as `topology.context_key` makes them
    segments: NDArray[np.int32]  # (K, 5): utterance, phone, word of its transcript (-1: none), first frame, end


def left_on_disk(num_frames: float, *, monophone: bool) -> float:
    """Bytes: contexts, the tied states of one tree or two, and segments."""
    return num_frames * (4 + 4 * (1 + monophone)) + segments_on_disk(num_frames)


def segments_on_disk(num_frames: float) -> float:
    return num_frames * 4 * COLUMNS / _FRAMES_OF_PHONE


def contexts_file(folder: Path, name: str) -> Path:
    return folder / f"{name}_contexts.npy"


def segments_file(folder: Path, name: str) -> Path:
    return folder / f"{name}_segments.npy"


def starts_file(folder: Path, name: str) -> Path:
    """(K,) float64, where each segment begins in seconds, if that is known better than to a frame."""
    return folder / f"{name}_starts.npy"


def write_alignment(alignment: Alignment, folder: Path, name: str) -> None:
    """For an alignment that is in memory; a set is written by `set_alignment.align_set`."""
    np.save(contexts_file(folder, name), alignment.contexts, allow_pickle=False)
    np.save(segments_file(folder, name), alignment.segments, allow_pickle=False)


def read_alignment(folder: Path, name: str) -> Alignment:
    """What exp/align has of a set, mapped into memory; raises UserError where it is missing or damaged."""
    return Alignment(_read(contexts_file(folder, name)), _read(segments_file(folder, name)))


def read_finer_starts(folder: Path, name: str) -> NDArray[np.float64] | None:
    """Of `starts_file`; None where times are known to a frame only; raises UserError where it is damaged."""
    path = starts_file(folder, name)
    return _read(path) if path.exists() else None


def _read(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is not there yet; make it with asr-kd align.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {path.parent} and align again.") from None
    return array

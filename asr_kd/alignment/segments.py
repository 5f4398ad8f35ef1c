"""The alignment of a set on disk: each frame's context, and the phones with their times.

Shapes:  N frames of the set, K phone segments.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_kd.errors import UserError


@dataclass(frozen=True)
class Alignment:
    """Of one set; utterances that failed have contexts of -1 and no segments."""

    contexts: NDArray[np.int32]  # (N,) as `topology.context_key` makes them
    segments: NDArray[np.int32]  # (K, 5): utterance, phone, word of its transcript (-1: silence), first frame, end


def write_alignment(alignment: Alignment, path: Path) -> None:
    np.savez_compressed(path, contexts=alignment.contexts, segments=alignment.segments)


def read_alignment(path: Path) -> Alignment:
    """Raises UserError where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Alignment(file["contexts"], file["segments"])
    except FileNotFoundError:
        raise UserError(f"{path} is not there yet; make it with asr-kd align.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete {path.parent} and align again.") from None

"""What models read: frames of utterances one after the other, and how many of them a model sees at once.

Shapes:  U utterances, D dimensions of a frame, T frames of some utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Context:
    """The frames that a model sees before and after the one that it labels.

    >>> Context(left=20, right=5).width
    26
    """

    left: int
    right: int

    def __post_init__(self) -> None:
        if self.left < 0 or self.right < 0:
            raise ValueError(f"a window cannot have {self.left} past and {self.right} future frames")

    @property
    def width(self) -> int:
        """Frames of a window, the labelled one among them."""
        return self.left + 1 + self.right

    @property
    def frames(self) -> int:
        """Frames of a window, the labelled one not counted."""
        return self.left + self.right


class FrameSource(Protocol):
    """The normalised frames of utterances; `asr_kd.frames.store.FrameStore` is one.

    Other sources wrap one (`ConcatFrames`, `SubframeShiftedFrames`).
    """

    @property
    def ids(self) -> Sequence[str]:
        """(U,) utterance ids in the order of the frames."""

    @property
    def offsets(self) -> np.ndarray:
        """(U + 1,) int64; utterance u owns the frames offsets[u]:offsets[u + 1], at least one."""

    @property
    def num_dims(self) -> int:
        """D."""

    @property
    def num_frames(self) -> int:
        """Of all utterances."""

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        """(T, D) float32 frames of utterance `first`, or of all from `first` up to `end` (exclusive)."""

"""Features in memory as a source of frames.

Shapes:  T frames of an utterance, D dimensions of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ArrayFrames:
    """Features of utterances, each with its own mean subtracted, and with variance 1 over all (a `FrameSource`).

    Args:
      features: (T, D) of each utterance.
      scale: (D,) 1 / standard deviation, of the set that a model was trained on; None: of these utterances.

    >>> frames = ArrayFrames([np.arange(6.0).reshape(3, 2), np.ones((1, 2))])
    >>> frames.num_frames, frames.normalised(0).mean(0).tolist()
    (4, [0.0, 0.0])
    """

    def __init__(self, features: Sequence[np.ndarray], scale: np.ndarray | None = None) -> None:
        if not features or any(frames.ndim != 2 or len(frames) == 0 for frames in features):
            raise ValueError("features must be (T, D) arrays of at least one frame, for at least one utterance")
        self.ids = [str(number) for number in range(len(features))]
        self.offsets = np.cumsum([0, *(len(frames) for frames in features)], dtype=np.int64)
        centred = np.concatenate([frames - frames.mean(0, dtype=np.float64) for frames in features])
        if scale is None:
            scale = 1 / np.sqrt(np.maximum(np.square(centred).mean(0), 1e-6))
        self.scale = np.asarray(scale, np.float32)
        self._frames = centred.astype(np.float32) * self.scale

    @property
    def num_dims(self) -> int:
        return int(self._frames.shape[1])

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        """See `FrameSource.normalised`."""
        end = first + 1 if end is None else end
        return self._frames[int(self.offsets[first]) : int(self.offsets[end])]

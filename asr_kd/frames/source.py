"""What models read: frames of utterances one after the other, and how many of them a model sees at once.

Sources are a set's store (`asr_kd.frames.store.FrameStore`), arrays in memory, several sources as one (one after the
other, or each spread evenly), and some utterances of a source.

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

    def frames_within(self, outer: Context) -> slice:
        """Which frames of an input with the context `outer` a model of this context sees.

        Raises:
          ValueError: `outer` has fewer frames on a side.

        >>> list(range(7))[Context(1, 0).frames_within(Context(2, 3))]
        [1, 2, 3]
        """
        before, after = outer.left - self.left, outer.right - self.right
        if min(before, after) < 0:
            raise ValueError(f"inputs of {outer} cannot be seen in {self}")
        return slice(before, -after or None)

    def __or__(self, other: Context) -> Context:
        """The smallest context that has the frames of both.

        >>> Context(20, 5) | Context(15, 15)
        Context(left=20, right=15)
        """
        return Context(max(self.left, other.left), max(self.right, other.right))


class FrameSource(Protocol):
    """The normalised frames of utterances."""

    @property
    def ids(self) -> Sequence[str]:
        """(U,) utterance ids in the order of the frames."""

    @property
    def offsets(self) -> np.ndarray:
        """(U + 1,) int64; utterance u owns the frames offsets[u]:offsets[u + 1], at least one."""

    @property
    def num_dims(self) -> int:
        """The number of dimensions of a frame, D."""

    @property
    def num_frames(self) -> int:
        """The number of frames of all utterances."""

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        """(T, D) float32 frames of utterance `first`, or of all from `first` up to `end` (exclusive)."""


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


class ConcatFrames:
    """The utterances of some sources one after the other, each normalised as in its own (a `FrameSource`).

    Args:
      sources: at least one, all of the same number of dimensions.
    """

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        self._sources = list(sources)
        if len({source.num_dims for source in sources}) != 1:
            raise ValueError(f"sources of frames have {[source.num_dims for source in sources]} dimensions")
        self.ids: list[str] = [utterance_id for source in sources for utterance_id in source.ids]
        self.offsets = np.append(0, np.cumsum(np.concatenate([np.diff(source.offsets) for source in sources])))
        self._firsts = np.cumsum([0] + [len(source.ids) for source in sources])  # of each source's utterances

    @property
    def num_dims(self) -> int:
        return self._sources[0].num_dims

    @property
    def num_frames(self) -> int:
        return int(self.offsets[-1])

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        """See `FrameSource.normalised`."""
        end = first + 1 if end is None else end
        parts = [
            source.normalised(max(first - begin, 0), min(end, finish) - begin)
            for source, begin, finish in zip(self._sources, self._firsts[:-1], self._firsts[1:], strict=True)
            if begin < end and first < finish
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.num_dims), np.float32)


class SelectedFrames:
    """Some utterances of a source, numbered anew in the order given (a `FrameSource`).

    >>> frames = ArrayFrames([np.zeros((3, 2)), np.ones((1, 2)), np.zeros((2, 2))])
    >>> selected = SelectedFrames(frames, [0, 2])
    >>> selected.ids, selected.offsets.tolist(), selected.normalised(0, 2).shape
    (['0', '2'], [0, 3, 5], (5, 2))
    """

    def __init__(self, source: FrameSource, utterances: Sequence[int]) -> None:
        self._source, self._utterances = source, [int(utterance) for utterance in utterances]
        self.ids = [source.ids[utterance] for utterance in self._utterances]
        self.offsets = np.append(0, np.cumsum(np.diff(source.offsets)[self._utterances]))

    @property
    def num_dims(self) -> int:
        return self._source.num_dims

    @property
    def num_frames(self) -> int:
        return int(self.offsets[-1])

    def normalised(self, first: int, end: int | None = None) -> np.ndarray:
        """See `FrameSource.normalised`."""
        chosen = self._utterances[first : first + 1 if end is None else end]
        parts = [self._source.normalised(utterance) for utterance in chosen]
        return np.concatenate(parts) if parts else np.empty((0, self.num_dims), np.float32)


class InterleavedFrames(SelectedFrames):
    """The utterances of some sources in one order in which each source is spread evenly (a `FrameSource`).

    Any stretch has frames of each source in about their share of the whole, up to an utterance at its ends. Sets that
    are read in blocks (`asr_kd.frames.sampler`) can so be learnt from together.

    Args:
      sources: at least one, all of the same number of dimensions.

    >>> long, short = (ArrayFrames([np.zeros((2, 1))] * count) for count in (4, 2))
    >>> frames = InterleavedFrames([long, short])
    >>> frames.ids
    ['0', '0', '1', '2', '1', '3']
    >>> frames.spread([np.arange(8), np.full(4, -1)]).tolist()
    [0, 1, -1, -1, 2, 3, 4, 5, -1, -1, 6, 7]
    """

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        middles = [(source.offsets[:-1] + source.offsets[1:]) / (2 * source.num_frames) for source in sources]
        order = np.argsort(np.concatenate(middles), kind="stable")
        joined = ConcatFrames(sources)
        super().__init__(joined, order.tolist())
        self._firsts = joined.offsets[:-1][order]  # of each utterance, where the sources lie one after the other

    def concatenated(self, frames: np.ndarray) -> np.ndarray:
        """(B,) int64: the numbers that these frames have where the sources lie one after the other."""
        utterances = np.searchsorted(self.offsets, frames, side="right") - 1
        return np.asarray(frames - self.offsets[utterances] + self._firsts[utterances])

    def spread(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """(..., N) of one array for each source, (..., frames of the source), all of one type."""
        result = np.empty((*arrays[0].shape[:-1], self.num_frames), arrays[0].dtype)
        begins = np.cumsum([0, *(array.shape[-1] for array in arrays)])
        source_of = np.searchsorted(begins, self._firsts, side="right") - 1
        inside = self._firsts - begins[source_of]
        for source, begin, first, end in zip(source_of, inside, self.offsets[:-1], self.offsets[1:], strict=True):
            result[..., first:end] = arrays[source][..., begin : begin + end - first]
        return result

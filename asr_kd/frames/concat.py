"""Several sources of frames as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_kd.frames.source import FrameSource


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

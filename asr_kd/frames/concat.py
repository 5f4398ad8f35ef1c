"""Several sets as one, in memory: for who learns from all of them at once, and for small ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_kd.frames.store import FrameStore


class ConcatFrames(FrameStore):
    """The utterances of some stores one after the other, each normalised as in its own; no per-frame arrays.

    Args:
      stores: folder and scale are the first one's.
    """

    def __init__(self, stores: Sequence[FrameStore]) -> None:
        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(store, name) for store in stores])

        first = stores[0]
        self.folder, self.scale, self.digest = first.folder, first.scale, ""
        self.features = joined("features")
        for name in ("ids", "texts", "references"):
            setattr(self, name, [entry for store in stores for entry in getattr(store, name)])
        self.speeds, self.durations, self.means = joined("speeds"), joined("durations"), joined("means")
        self.offsets = np.append(0, np.cumsum(np.concatenate([np.diff(store.offsets) for store in stores])))
        before = np.cumsum([0] + [len(store.means) for store in stores])
        self.groups = np.concatenate([store.groups + base for store, base in zip(stores, before, strict=False)])
        self._index = {utterance_id: u for u, utterance_id in enumerate(self.ids)}

"""Linear discriminant analysis: a Gaussian for each state with one covariance for all of them, found in one step.

It makes the flat start's first rounds: it forgets the equal alignment at once, where a net that is trained from one
round to the next drags it along. On TIMIT six rounds of it and four of the net find more boundaries than eight of the
net, in less time.

Shapes:  n frames, D mel bins, C context-independent states, T frames of an utterance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from asr_kd.frames.scatter import Scatter
from asr_kd.frames.store import FrameStore

PULL = 2.0  # frames at the mean of all that are added to each state: one that has no frame of its own is there
RIDGE = 1e-3  # of the mean variance, added to each: the covariance can be inverted
_BLOCK = 256  # utterances in memory at once
_KEPT_FRAMES = 1 << 20  # the features of a set of up to three hours (168 MB) are normalised once for all rounds


class LdaClassifier:
    """The flat start's `FrameClassifier` without neighbouring frames; each `fit` begins anew."""

    def __init__(self, store: FrameStore, num_classes: int) -> None:
        self._store, self._num_classes = store, num_classes

    def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int = 1) -> None:
        """Frames (n,) numbers of the store's frames, states (n,) their labels; `epochs` changes nothing."""
        store = self._store
        labels = np.full(store.num_frames, -1, np.int32)
        labels[frames] = states
        scatter = Scatter(self._num_classes, store.num_dims)
        for first in range(0, len(store.ids), _BLOCK):
            end = min(first + _BLOCK, len(store.ids))
            here = labels[int(store.offsets[first]) : int(store.offsets[end])]
            if not (here >= 0).any():
                continue
            scatter.add(self._normalised(store, first, end)[here >= 0], here[here >= 0])
        self._set(scatter)

    def _set(self, scatter: Scatter) -> None:
        means = (scatter.sums + PULL * scatter.mean) / (scatter.counts + PULL)[:, None]
        weights = np.linalg.solve(scatter.within(RIDGE), means.T)
        smoothed = scatter.counts + 1.0
        log_priors = np.log(smoothed / smoothed.sum())
        self._weights = weights.astype(np.float32)
        self._biases = (log_priors - 0.5 * (means.T * weights).sum(0)).astype(np.float32)

    def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
        """(T, C) float32 natural logarithms, for each utterance."""
        return [self._of_one(self._normalised(store, u, u + 1)) for u in utterances]

    def _normalised(self, store: FrameStore, first: int, end: int) -> np.ndarray:
        if store is not self._store or store.num_frames > _KEPT_FRAMES:
            return store.normalised(first, end)
        return self._kept[int(store.offsets[first]) : int(store.offsets[end])]

    @cached_property
    def _kept(self) -> np.ndarray:
        return self._store.normalised(0, len(self._store.ids))

    def _of_one(self, inputs: np.ndarray) -> np.ndarray:
        scores: np.ndarray = inputs @ self._weights + self._biases
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def state(self) -> dict[str, np.ndarray]:
        """All that makes it what it is."""
        return {"weights": self._weights, "biases": self._biases}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Goes back to what `state` gave."""
        self._weights, self._biases = state["weights"], state["biases"]

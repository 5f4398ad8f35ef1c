"""Linear discriminant analysis: a Gaussian for each state with one covariance for all of them, in closed form.

It serves the flat start's first rounds: each fit starts from scratch and so forgets the equal alignment, which a net
that is trained on from round to round remembers. On TIMIT six rounds of it and four of the net find more boundaries
than eight of the net, in less time.

Shapes:  n frames, D mel bins, C context-independent states, T frames of an utterance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from asr_kd.frames.scatter import Scatter
from asr_kd.frames.source import FrameSource

PULL = 2.0  # frames at the mean of all that are added to each state, so that a state without frames has a mean, too
RIDGE = 1e-3  # of the mean variance, added to each variance, so that the covariance can be inverted
_BLOCK = 256  # utterances in memory at once
_CACHED_FRAMES = 1 << 20  # up to three hours (168 MB) are normalised once for all rounds


class LdaClassifier:
    """A `flat_start.TrainableClassifier` without neighbouring frames; each `fit` starts from scratch."""

    def __init__(self, source: FrameSource, num_states: int) -> None:
        self._source, self._num_states = source, num_states

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
        """Frames (n,) numbers of the source's frames, states (n,) their labels."""
        source = self._source
        labels = np.full(source.num_frames, -1, np.int32)
        labels[frames] = states
        scatter = Scatter(self._num_states, source.num_dims)
        for first in range(0, len(source.ids), _BLOCK):
            end = min(first + _BLOCK, len(source.ids))
            block = labels[int(source.offsets[first]) : int(source.offsets[end])]
            labelled = block >= 0
            if labelled.any():
                scatter.add(self._normalised(source, first, end)[labelled], block[labelled])
        self._set(scatter)

    def _set(self, scatter: Scatter) -> None:
        means = (scatter.sums + PULL * scatter.mean) / (scatter.counts + PULL)[:, None]
        weights = np.linalg.solve(scatter.within(RIDGE), means.T)
        smoothed = scatter.counts + 1.0
        log_priors = np.log(smoothed / smoothed.sum())
        self._weights = weights.astype(np.float32)
        self._biases = (log_priors - 0.5 * (means.T * weights).sum(0)).astype(np.float32)

    def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
        """(T, C) float32 natural logarithms, for each utterance."""
        return [self._of_one(self._normalised(source, u, u + 1)) for u in utterances]

    def _normalised(self, source: FrameSource, first: int, end: int) -> np.ndarray:
        if source is not self._source or source.num_frames > _CACHED_FRAMES:
            return source.normalised(first, end)
        return self._cached[int(source.offsets[first]) : int(source.offsets[end])]

    @cached_property
    def _cached(self) -> np.ndarray:
        return self._source.normalised(0, len(self._source.ids))

    def _of_one(self, inputs: np.ndarray) -> np.ndarray:
        scores: np.ndarray = inputs @ self._weights + self._biases
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def state(self) -> dict[str, np.ndarray]:
        """All that `log_posteriors` depends on."""
        return {"weights": self._weights, "biases": self._biases}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restores what `state` returned."""
        self._weights, self._biases = state["weights"], state["biases"]

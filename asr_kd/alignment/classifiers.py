"""What alignment trains: linear discriminants for its first rounds, and nets on the one training loop.

Those of the flat start have `fit`, on frames (numbers of the source's frames) and their states, (n,) each. All have
`log_posteriors`, which gives (T, C) float32 natural logarithms for each utterance.

Shapes:  n frames, D mel bins, C context-independent states or senones, T frames of an utterance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.lda import Scatter
from asr_kd.acoustic.model import FrameModel, build_model, first_member_log_posteriors, pick_device
from asr_kd.acoustic.model_files import load_model, save_model
from asr_kd.acoustic.settings import TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.frames.source import FrameSource
from asr_kd.frames.windows import WindowedFrames

PULL = 2.0  # frames at the mean of all that are added to each state, so that a state without frames has a mean, too
RIDGE = 1e-3  # of the mean variance, added to each variance, so that the covariance can be inverted
_BLOCK = 256  # utterances in memory at once
_CACHED_FRAMES = 1 << 20  # up to three hours (168 MB) are normalised once for all rounds
_RATE = 1e-3 / 16  # times the square root of the batch size, which leaves the noise of Adam's steps as it is


class LdaClassifier:
    """A Gaussian for each state with one covariance for all of them, in closed form, without neighbouring frames.

    Each fit starts from scratch and so forgets the equal alignment, which a net that is trained on from round to round
    remembers. On TIMIT six rounds of it and four of the net find more boundaries than eight of the net, in less time.
    """

    def __init__(self, source: FrameSource, num_states: int) -> None:
        self._source, self._num_states = source, num_states

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
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
        means = (scatter.sums + PULL * scatter.mean) / (scatter.counts + PULL)[:, None]
        weights = np.linalg.solve(scatter.within(RIDGE), means.T)
        smoothed = scatter.counts + 1.0
        log_priors = np.log(smoothed / smoothed.sum())
        self._weights = weights.astype(np.float32)
        self._biases = (log_priors - 0.5 * (means.T * weights).sum(0)).astype(np.float32)

    def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
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


class NetClassifier:
    """The posteriors of a trained net of any kind."""

    def __init__(self, model: FrameModel) -> None:
        self._model = model

    def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
        return first_member_log_posteriors(self._model, [source.normalised(u) for u in utterances])

    def save(self, folder: Path) -> None:
        """Writes the model into an existing folder, with its precision."""
        save_model(self._model, folder)

    @classmethod
    def load(cls, folder: Path) -> NetClassifier:
        """What `save` wrote; raises UserError where a file is missing or damaged."""
        return NetClassifier(load_model(folder, pick_device()))


class MonophoneNet(NetClassifier):
    """The flat start's narrow-context model; `prepare` comes before `fit`."""

    def __init__(self, model: FrameModel) -> None:
        super().__init__(model)
        self._rounds = 0

    @classmethod
    def untrained(cls, num_dims: int, num_states: int, settings: AlignmentConfig, seed: int) -> MonophoneNet:
        """A net with first weights that depend on the seed alone."""
        model = build_model(settings.model, num_dims=num_dims, num_senones=num_states, seeds=[seed])
        model.precision = settings.precision
        return cls(model.to(pick_device()))

    def prepare(self, source: FrameSource, utterances: Sequence[int], settings: AlignmentConfig) -> None:
        """Loads the frames to train on.

        Args:
          utterances: those that it learns from. Of a source of up to BLOCK_FRAMES all frames are loaded, and drawn in
            its order; of a larger one only these utterances'.
        """
        self._training = TrainingConfig(
            schedule="constant",
            epochs=1,
            batch_size=settings.batch_size,
            learning_rate=_RATE * math.sqrt(settings.batch_size),
            precision=settings.precision,
        )
        loaded = None if source.num_frames <= BLOCK_FRAMES else np.sort(np.asarray(utterances, np.int64))
        self._windows = WindowedFrames(source, self._model.context, device=self._model.device, utterances=loaded)
        self._first = None if loaded is None else source.offsets[loaded]  # of each utterance, in the source's numbers

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
        """Trains one epoch on."""
        labels = np.full(self._windows.num_frames, -1, np.int64)
        labels[self._loaded_numbers(frames)] = states
        fit(
            self._model,
            TrainingData(self._windows, valid=labels >= 0),
            HardTargets(labels, self._model.device),
            self._training,
            RunControl(seed=self._model.seeds[0] + self._rounds),  # another order in each round
        )
        self._rounds += 1

    def _loaded_numbers(self, frames: np.ndarray) -> np.ndarray:
        """The source's frame numbers -> those of the loaded frames."""
        if self._first is None:
            return frames
        utterance = np.searchsorted(self._first, frames, side="right") - 1
        return np.asarray(frames - (self._first - self._windows.offsets[:-1])[utterance])

    def state(self) -> dict[str, np.ndarray]:
        """All that later rounds depend on."""
        weights = {name: value.detach().cpu().numpy() for name, value in self._model.state_dict().items()}
        return weights | {"rounds": np.array(self._rounds)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores what `state` returned; other entries are ignored."""
        self._rounds = int(state["rounds"])
        self._model.load_state_dict({name: torch.from_numpy(state[name]) for name in self._model.state_dict()})

"""The small net that the flat start trains and asks, on top of the one training loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.inference import first_members_log_posteriors
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.precision import pick_device
from asr_kd.acoustic.training import fit
from asr_kd.frames.sampler import CHUNK_FRAMES
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import WindowedFrames
from asr_kd.workspace.config import AlignmentConfig, ModelConfig, TrainingConfig

FLAT_START_TRAINING = TrainingConfig(schedule="constant", epochs=1)
_RATE_OF_ONE = 1e-3 / 16  # times the root of the batch size: the noise of Adam's steps then stays what it is


class MonophoneNet:
    """A narrow-context net over monophone states (the aligner's `FrameClassifier`).

    Args:
      utterances: those that it learns from. Of a set of up to CHUNK_FRAMES all frames are held, and drawn in the set's
        order; of a larger one only these utterances'.
    """

    def __init__(
        self, store: FrameStore, num_classes: int, settings: AlignmentConfig, seed: int, utterances: Sequence[int]
    ) -> None:
        self._seed, self._rounds = seed, 0
        size = settings.batch_size
        self._training = replace(FLAT_START_TRAINING, batch_size=size, learning_rate=_RATE_OF_ONE * math.sqrt(size))
        layers, width = len(settings.hidden), settings.hidden[0]
        model = ModelConfig(layers, width, left_context=settings.context, right_context=settings.context)
        held = None if store.num_frames <= CHUNK_FRAMES else np.sort(np.asarray(utterances, np.int64))
        context = settings.context
        self._windows = WindowedFrames(store, left=context, right=context, device=pick_device(), utterances=held)
        self._first = None if held is None else store.offsets[held]  # frame of each utterance, in the store's numbers
        self._shift = None if held is None else self._first - np.append(0, np.cumsum(np.diff(store.offsets)[held])[:-1])
        self._net = AcousticModel(model, self._windows.num_inputs, num_classes, [seed]).to(pick_device())

    def fit(self, frames: np.ndarray, states: np.ndarray, *, epochs: int) -> None:
        """Goes on training; frames (n,) numbers of the store's frames, states (n,) their labels."""
        labels = np.full(self._windows.num_frames, -1, np.int64)
        labels[self._numbers(frames)] = states
        fit(
            self._net,
            self._windows,
            HardTargets(labels, self._net.device),
            replace(self._training, epochs=epochs),
            seed=self._seed + self._rounds,  # another order in each round
            valid=labels >= 0,
        )
        self._rounds += 1

    def _numbers(self, frames: np.ndarray) -> np.ndarray:
        """The store's numbers -> those of the frames that are held."""
        if self._first is None or self._shift is None:
            return frames
        return np.asarray(frames - self._shift[np.searchsorted(self._first, frames, side="right") - 1])

    def state(self) -> dict[str, np.ndarray]:
        """All that makes it what it is after the rounds so far."""
        weights = {name: value.detach().cpu().numpy() for name, value in self._net.state_dict().items()}
        return weights | {"rounds": np.array(self._rounds)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Goes back to what `state` gave."""
        self._rounds = int(state["rounds"])
        self._net.load_state_dict({name: torch.from_numpy(state[name]) for name in self._net.state_dict()})

    def log_posteriors(self, store: FrameStore, utterances: Sequence[int]) -> list[np.ndarray]:
        """(T, C) float32 natural-log posteriors of each utterance."""
        return first_members_log_posteriors(self._net, store, utterances)

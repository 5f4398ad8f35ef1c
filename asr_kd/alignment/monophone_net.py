"""The small model that the flat start trains and runs, on top of the one training loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.inference import first_member_log_posteriors
from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.model_files import load_model, save_model
from asr_kd.acoustic.precision import pick_device
from asr_kd.acoustic.settings import TrainingConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.alignment.settings import AlignmentConfig
from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.frames.source import FrameSource
from asr_kd.frames.windows import WindowedFrames

FLAT_START_TRAINING = TrainingConfig(schedule="constant", epochs=1)
_RATE = 1e-3 / 16  # times the square root of the batch size, which leaves the noise of Adam's steps as it is


class MonophoneNet:
    """A narrow-context model over monophone states (a `flat_start.TrainableClassifier` and `aligner.Classifier`).

    `prepare` comes before `fit`; a loaded net only gives posteriors.
    """

    def __init__(self, model: FrameModel) -> None:
        self._model = model
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
        self._training = replace(
            FLAT_START_TRAINING,
            batch_size=settings.batch_size,
            learning_rate=_RATE * math.sqrt(settings.batch_size),
            precision=settings.precision,
        )
        loaded = None if source.num_frames <= BLOCK_FRAMES else np.sort(np.asarray(utterances, np.int64))
        self._windows = WindowedFrames(source, self._model.context, device=self._model.device, utterances=loaded)
        self._first = None if loaded is None else source.offsets[loaded]  # of each utterance, in the source's numbers

    def fit(self, frames: np.ndarray, states: np.ndarray) -> None:
        """Trains one epoch on; frames (n,) numbers of the source's frames, states (n,) their labels."""
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

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restores what `state` returned."""
        self._rounds = int(state["rounds"])
        self._model.load_state_dict({name: torch.from_numpy(state[name]) for name in self._model.state_dict()})

    def log_posteriors(self, source: FrameSource, utterances: Sequence[int]) -> list[np.ndarray]:
        """(T, C) float32 natural-log posteriors of each utterance."""
        return first_member_log_posteriors(self._model, [source.normalised(u) for u in utterances])

    def save(self, folder: Path) -> None:
        """Writes the model into an existing folder, with its precision."""
        save_model(self._model, folder)

    @classmethod
    def load(cls, folder: Path) -> MonophoneNet:
        """What `save` wrote; raises UserError where a file is missing or damaged."""
        return cls(load_model(folder, pick_device()))

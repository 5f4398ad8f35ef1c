"""Training on hard targets, and scoring on dev.

Shapes:  M members, B frames in a batch, D inputs, C tied states.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asr_kd import kernels
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.training import DevScores, Examples


class HardTargets:
    """Cross-entropy with the forced-alignment state of each frame.

    Args:
      states: (N,) int, one per frame of the set; negative states must not be drawn.
      trains_on: (M, N) bool, which member learns from which frame (out-of-fold teachers); None: every one from all.
    """

    def __init__(self, states: np.ndarray, device: torch.device, trains_on: np.ndarray | None = None) -> None:
        self._states = torch.from_numpy(np.asarray(states, np.int64)).to(device)
        self._trains_on = None if trains_on is None else torch.from_numpy(trains_on).to(device)

    def __call__(self, logits: Tensor, frames: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        states, learnt = self._states[frames], self._learnt(frames, len(logits))
        count = learnt.sum(1, keepdim=True).clamp_min(1.0)
        weights = learnt / count
        loss, correct = kernels.cross_entropy(logits, states, weights)
        return {"loss": loss, "train_accuracy": correct / count.squeeze(1)}

    def _learnt(self, frames: Tensor, members: int) -> Tensor:
        """(M, B) float32, 1 where a member learns from a frame, else 0."""
        if self._trains_on is None:
            return torch.ones(members, len(frames), device=frames.device)
        return self._trains_on[:, frames].float()


class DevScorer:
    """Frame accuracy and cross-entropy of every member on the aligned frames of a set."""

    def __init__(self, examples: Examples, states: np.ndarray, batch_size: int = 4096) -> None:
        self._examples = examples
        self._frames = torch.from_numpy(np.flatnonzero(np.asarray(states) >= 0))
        self._states = torch.from_numpy(np.asarray(states, np.int64))
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(self, model: AcousticModel) -> DevScores:
        correct = torch.zeros(model.members, dtype=torch.float64)
        entropy = torch.zeros(model.members, dtype=torch.float64)
        for frames in self._frames.split(self._batch_size):
            log_probabilities = model.log_probabilities(self._examples.inputs(frames.to(model.device))).cpu()
            states = self._states[frames]
            correct += (log_probabilities.argmax(-1) == states).sum(1)
            entropy -= log_probabilities[:, torch.arange(len(frames)), states].sum(1).double()
        count = max(1, len(self._frames))
        return DevScores(correct.div(count).tolist(), entropy.div(count).tolist())

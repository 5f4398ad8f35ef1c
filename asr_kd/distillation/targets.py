"""A student's objective for the training loop: soft targets from a store or from the teachers themselves.

Shapes:  M students side by side, N frames of the set, B frames in a batch, D inputs, C tied states.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import AcousticModel
from asr_kd.distillation.ensemble import Mean, ensemble_distribution
from asr_kd.distillation.loss import SoftTargets, distillation_loss, logit_matching
from asr_kd.distillation.store import SoftTargetStore


class TargetProvider(Protocol):
    """Soft targets of any frames of the training set."""

    temperature: float

    def targets(self, frames: Tensor, inputs: Tensor) -> SoftTargets:
        """(B,) frame numbers and their (B, D) inputs -> the ensemble's distributions."""


class StoredTargets:
    """Reads what `asr-kd soft-targets` wrote."""

    def __init__(self, store: SoftTargetStore) -> None:
        self._store = store
        self.temperature = store.temperature

    def targets(self, frames: Tensor, inputs: Tensor) -> SoftTargets:
        return self._store.read(frames.cpu().numpy())


class TableTargets:
    """All distributions in memory, for sets that are small enough.

    Args:
      log_probabilities: (N, C), on the device where the student is trained.
    """

    def __init__(self, log_probabilities: Tensor, temperature: float) -> None:
        self._table = log_probabilities
        self.temperature = temperature

    def targets(self, frames: Tensor, inputs: Tensor) -> SoftTargets:
        return SoftTargets(self._table[frames], self.temperature)


class OnlineTargets:
    """The teachers run beside the student.

    Args:
      members: (M, N) bool or None: which members answer for which frame (out-of-fold); None: all for all.
    """

    def __init__(
        self, teacher: AcousticModel, *, temperature: float, mean: Mean, members: np.ndarray | None = None
    ) -> None:
        self._teacher, self._mean = teacher, mean
        self.temperature = temperature
        self._members = None if members is None else torch.from_numpy(members)

    @torch.no_grad()
    def targets(self, frames: Tensor, inputs: Tensor) -> SoftTargets:
        weights = None
        if self._members is not None:
            weights = self._members[:, frames.cpu()].float().to(inputs.device)
            weights = weights / weights.sum(0)
        logits = self._teacher(inputs)
        return SoftTargets(
            ensemble_distribution(logits, temperature=self.temperature, mean=self._mean, weights=weights),
            self.temperature,
        )


class DistillationObjective:
    """alpha * soft + (1 - alpha) * hard for every student; both means over the batch's frames."""

    def __init__(
        self,
        provider: TargetProvider,
        states: np.ndarray,
        *,
        soft_weight: float,
        loss: Literal["kl", "logits"],
        device: torch.device,
    ) -> None:
        self._provider = provider
        self._states = torch.from_numpy(np.asarray(states, np.int64)).to(device)
        self._soft_weight = soft_weight
        self._loss = {"kl": distillation_loss, "logits": logit_matching}[loss]

    def __call__(self, logits: Tensor, frames: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        terms = self._loss(
            logits,
            self._provider.targets(frames, inputs),
            self._states[frames],
            temperature=self._provider.temperature,
            soft_weight=self._soft_weight,
        )
        return {"loss": terms.total, "soft": terms.soft, "hard": terms.hard, "train_accuracy": terms.right}

"""Soft targets for the training loop, from a store or from the teachers themselves, and the criterion that uses them.

Shapes:  M students side by side, N frames of the set, B = K * L frames in a batch, C senones.
"""

from __future__ import annotations

import functools
import operator
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.criteria import Terms
from asr_kd.acoustic.model import FrameModel
from asr_kd.distillation.loss import Mean, SoftTargets, ensemble_distribution
from asr_kd.distillation.settings import LOSSES
from asr_kd.distillation.store import SoftTargetStore
from asr_kd.frames.batches import Batch
from asr_kd.frames.source import Context, InterleavedFrames
from asr_kd.frames.windows import Windows
from asr_kd.kernels.transfer import on_device

NO_CONTEXT = Context(0, 0)


class TargetProvider(Protocol):
    """Soft targets of any frames of the training set.

    Attributes:
      context: that the inputs of a batch must have at least.
      of_frames_alone: the answer does not depend on the inputs, and may be asked for before they are altered.
    """

    temperature: float
    context: Context
    of_frames_alone: bool

    def targets(self, batch: Batch) -> SoftTargets:
        """The teachers' distribution for each of the batch's B frames."""


class StoredTargets:
    """Reads soft-target stores (a `TargetProvider`): what the teachers said of frames as they are, without masks.

    Args:
      stores: of one set, or of several sets that are trained on together.
      frames: of several sets, in the order of training; None: the sets lie one after the other.

    Raises:
      ValueError: the stores have different temperatures.
    """

    context, of_frames_alone = NO_CONTEXT, True

    def __init__(self, *stores: SoftTargetStore, frames: InterleavedFrames | None = None) -> None:
        temperatures = {store.temperature for store in stores}
        if len(temperatures) != 1:
            raise ValueError(f"soft targets of one student must be of one temperature, not {sorted(temperatures)}")
        self._stores, self._frames, self.temperature = stores, frames, stores[0].temperature
        self._firsts = np.cumsum([0, *(store.num_frames for store in stores)])

    def targets(self, batch: Batch) -> SoftTargets:
        """See `TargetProvider`."""
        frames = batch.frames.numpy()
        if self._frames is not None:
            frames = self._frames.concatenated(frames)
        if len(self._stores) == 1:
            return self._stores[0].read(frames)
        store_of = np.searchsorted(self._firsts, frames, side="right") - 1
        order = np.argsort(store_of, kind="stable")
        parts = [
            self._stores[number].read(frames[store_of == number] - self._firsts[number])
            for number in np.unique(store_of).tolist()
        ]
        return _in_order(parts, torch.from_numpy(np.argsort(order)))


def _in_order(parts: Sequence[SoftTargets], places: Tensor) -> SoftTargets:
    """The frames of all parts; frame b of the result is number places[b] of the parts one after the other."""
    log_probabilities = torch.cat([part.log_probabilities for part in parts])
    places = on_device(places, log_probabilities.device)
    present = None
    if any(part.present is not None for part in parts):
        full = [torch.ones(len(part.log_probabilities), dtype=torch.bool, device=places.device) for part in parts]
        present = torch.cat([all_of if part.present is None else part.present for part, all_of in zip(parts, full)])
        present = present[places]
    return SoftTargets(log_probabilities[places], parts[0].temperature, present)


class TableTargets:
    """All distributions in memory, for small sets (a `TargetProvider`).

    Args:
      log_probabilities: (N, C), on the device where the student is trained.
    """

    context, of_frames_alone = NO_CONTEXT, True

    def __init__(self, log_probabilities: Tensor, temperature: float) -> None:
        self._table = log_probabilities
        self.temperature = temperature

    def targets(self, batch: Batch) -> SoftTargets:
        """See `TargetProvider`."""
        return SoftTargets(batch.entries(self._table), self.temperature)


@dataclass(frozen=True)
class Teacher:
    """A trained system that answers for frames of the training set.

    Attributes:
      windows: of the teacher's own context, numbered as the student's. None: it sees the frames of the batch, altered
        where the student's are; the batch must have its context.
      members: (M, N) bool, which members answer for which frame (out of fold); None: all for all.
      weight: of its distribution, relative to the other teachers'; its members share it.
    """

    model: FrameModel
    windows: Windows | None = None
    members: np.ndarray | None = None
    weight: float = 1.0

    def logits(self, batch: Batch) -> Tensor:
        """(M, B, C) of the batch's frames."""
        windows = self.windows
        if windows is None:
            return self.model(batch.inputs_in(self.model.context))
        return self.model(windows.inputs(batch.first_frames, batch.length))


class OnlineTargets:
    """Teachers that run beside the student (a `TargetProvider`); several teachers count by their weights.

    Args:
      teachers: at least one, all of the same senones.
    """

    of_frames_alone = False

    def __init__(self, teachers: Sequence[Teacher], *, temperature: float, mean: Mean) -> None:
        senones = {teacher.model.num_senones for teacher in teachers}
        if len(senones) != 1:
            raise ValueError(f"teachers of one student must have the same senones, not {sorted(senones)}")
        self._teachers, self._mean = list(teachers), mean
        self._shares = [teacher.weight / sum(teacher.weight for teacher in teachers) for teacher in teachers]
        self.temperature = temperature
        through_the_batch = [teacher.model.context for teacher in teachers if teacher.windows is None]
        self.context = functools.reduce(operator.or_, through_the_batch, NO_CONTEXT)
        # transposed: a batch needs a few frames of all members
        self._answering = [
            None if teacher.members is None else torch.from_numpy(teacher.members.T.copy()).to(teacher.model.device)
            for teacher in teachers
        ]

    @torch.no_grad()
    def targets(self, batch: Batch) -> SoftTargets:
        """See `TargetProvider`."""
        logits = [teacher.logits(batch) for teacher in self._teachers]
        parts = [
            _weights(answering, part, batch).mul(share)
            for answering, part, share in zip(self._answering, logits, self._shares, strict=True)
        ]
        members = logits[0] if len(logits) == 1 else torch.cat(logits)  # one teacher's are not copied
        weights = torch.cat(parts)
        distribution = ensemble_distribution(members, temperature=self.temperature, mean=self._mean, weights=weights)
        return SoftTargets(distribution, self.temperature)


def _weights(answering: Tensor | None, logits: Tensor, batch: Batch) -> Tensor:
    """(M, B) of one teacher's members; they sum to one over the members."""
    if answering is None:
        return torch.full(logits.shape[:2], 1 / len(logits), device=logits.device)
    weights = batch.entries(answering).T.float()
    return weights / weights.sum(0)


class DistillationCriterion:
    """alpha * soft + (1 - alpha) * hard for every student (`Criterion`); see `distillation_loss`.

    Args:
      labels: (N,) int, the senone of each frame of the set; negative: the soft term alone applies to the frame.
      soft_weight: alpha.
      loss: one of `asr_kd.distillation.settings.LOSSES`.
      labelled_share: of the frames that are learnt from, those with a label; None: each batch has its own share.
    """

    def __init__(
        self,
        provider: TargetProvider,
        labels: np.ndarray,
        *,
        soft_weight: float,
        loss: str = "kl",
        device: torch.device,
        labelled_share: float | None = None,
    ) -> None:
        self._share = {} if labelled_share is None else {"labelled_share": labelled_share}
        self._provider = provider
        self._labels = torch.from_numpy(np.asarray(labels, np.int64)).to(device)
        self._soft_weight = soft_weight
        self._loss = pkgutil.resolve_name(LOSSES[loss].function)

    def read_ahead(self, batch: Batch) -> Batch:
        """See `asr_kd.acoustic.criteria.ReadsAhead`: with stored targets, which are read from disk."""
        return replace(batch, targets=self._provider.targets(batch)) if self._provider.of_frames_alone else batch

    def __call__(self, logits: Tensor, batch: Batch) -> Terms:
        terms = self._loss(
            logits,
            self._provider.targets(batch) if batch.targets is None else batch.targets,
            batch.entries(self._labels),
            temperature=self._provider.temperature,
            soft_weight=self._soft_weight,
            valid=None if batch.valid is None else batch.valid.to(logits.device, non_blocking=True),
            **self._share,
        )
        count = torch.full((len(logits),), float(batch.num_valid), device=logits.device)
        return Terms(terms.total, count, {"soft": terms.soft, "hard": terms.hard, "train_accuracy": terms.accuracy})

"""What training minimises, and how models are scored on dev.

Shapes:  M members, B = K * L frames in a batch, N frames of a set, C senones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import FrameModel
from asr_kd.frames.batches import Batch, chunk_batch
from asr_kd.frames.sampler import ChunkSampler
from asr_kd.frames.windows import Windows
from asr_kd.kernels.softmax import cross_entropy


@dataclass(frozen=True)
class Terms:
    """What one batch contributed, per member: means over the valid frames that the member learns from.

    Several ranks get the mean over all their frames from the sums of loss * count and of count.

    Attributes:
      loss: (M,) with gradient.
      count: (M,) float32, the frames that the mean is over; a member without any has loss 0.
      logged: further means by name, (M,) each, without gradient.
    """

    loss: Tensor
    count: Tensor
    logged: Mapping[str, Tensor] = field(default_factory=dict)


class Criterion(Protocol):
    """A training criterion: it says where targets come from and how the logits are compared with them."""

    def __call__(self, logits: Tensor, batch: Batch) -> Terms:
        """(M, B, C) float32 logits of the batch's frames -> the members' losses. Must not wait for the device."""


@runtime_checkable
class ReadsAhead(Protocol):
    """A `Criterion` that reads something for a batch before its step; on an accelerator another thread does."""

    def read_ahead(self, batch: Batch) -> Batch:
        """The batch with its `targets`; it is given to the criterion with inputs that may have been altered."""


@dataclass(frozen=True)
class DevScores:
    """Per member: frame accuracy (a fraction) and cross-entropy (nats)."""

    accuracy: list[float]
    cross_entropy: list[float]


class HardTargets:
    """Cross-entropy with the forced-alignment senone of each frame (a `Criterion`).

    Args:
      labels: (N,) int, the senone of each frame of the set; frames with a negative label must not be valid.
      trains_on: (M, N) bool, which member learns from which frame (out-of-fold teachers); None: every one from all.
    """

    def __init__(self, labels: np.ndarray, device: torch.device, trains_on: np.ndarray | None = None) -> None:
        self._labels = torch.from_numpy(np.asarray(labels, np.int64)).to(device)
        self._trains_on = None if trains_on is None else torch.from_numpy(trains_on.T.copy()).to(device)

    def __call__(self, logits: Tensor, batch: Batch) -> Terms:
        labels, learnt = batch.entries(self._labels), self._learnt(batch, len(logits))
        if batch.valid is not None:
            labels = labels.clamp_min(0)  # an invalid frame may have none
        count = learnt.sum(1, keepdim=True)
        weights = learnt / count.clamp_min(1.0)
        loss, correct = cross_entropy(logits, labels, weights)
        count = count.squeeze(1)
        return Terms(loss, count, {"train_accuracy": correct / count.clamp_min(1.0)})

    def _learnt(self, batch: Batch, members: int) -> Tensor:
        """(M, B) float32, 1 where a member learns from a frame, else 0."""
        device = self._labels.device
        if self._trains_on is None:
            learnt = torch.ones(members, len(batch.frames), device=device)
        else:
            learnt = batch.entries(self._trains_on).T.float()
        return learnt if batch.valid is None else learnt * batch.valid.to(device, non_blocking=True)


class DevScorer:
    """Frame accuracy and cross-entropy of every member on the labelled frames of a set.

    Args:
      labels: (N,) int; negative: not scored.

    Raises:
      ValueError: there is not one label for each frame, or no frame is scored.
    """

    def __init__(self, windows: Windows, labels: np.ndarray, batch_size: int = 4096) -> None:
        if len(labels) != windows.offsets[-1]:
            raise ValueError(f"{len(labels)} labels for {windows.offsets[-1]} frames")
        if not (labels >= 0).any():
            raise ValueError("no frame has a label")
        self._windows, self._batch_size = windows, batch_size
        self._labels = torch.from_numpy(np.asarray(labels, np.int64))

    @torch.no_grad()
    def __call__(self, model: FrameModel) -> DevScores:
        correct = torch.zeros(model.members, dtype=torch.float64)
        entropy = torch.zeros(model.members, dtype=torch.float64)
        num_frames = 0
        for batch in self._batches(model.settings.chunk_frames):
            log_posteriors, labels = model(batch.inputs).log_softmax(-1).cpu(), batch.entries(self._labels)
            if batch.valid is not None:
                log_posteriors, labels = log_posteriors[:, batch.valid], labels[batch.valid]
            correct += (log_posteriors.argmax(-1) == labels).sum(1)
            entropy -= log_posteriors[:, torch.arange(len(labels)), labels].sum(1).double()
            num_frames += len(labels)
        return DevScores(correct.div(num_frames).tolist(), entropy.div(num_frames).tolist())

    def _batches(self, length: int) -> Iterator[Batch]:
        labelled = self._labels.ge(0).numpy()
        if length == 1:
            for frames in torch.from_numpy(np.flatnonzero(labelled)).split(self._batch_size):
                yield Batch(frames, self._windows.inputs(frames))
            return
        chunks = ChunkSampler(self._windows.offsets, length, valid=labelled).in_order()
        size = max(1, self._batch_size // length)
        for first in range(0, len(chunks), size):
            yield chunk_batch(self._windows, chunks[first : first + size], length, labelled)

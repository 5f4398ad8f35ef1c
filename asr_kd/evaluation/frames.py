"""What a model gets right frame by frame: every member alone, the ensemble's mean, and how the members differ.

Shapes:  M members, B frames in a batch, N frames and U utterances of a set, C tied states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import AcousticModel
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import WindowedFrames

_NUMBERS_AT_ONCE = 1 << 23  # posteriors per batch over all members: 32 MiB in float32


@dataclass(frozen=True)
class FrameMetrics:
    """Means over the frames that have a label. Accuracies are fractions, cross-entropies nats.

    wrong: (M + 1, U) int64, frames of each utterance whose label is not the likeliest state, by each member and by the
      mean of all. labelled: (U,) int64, frames with a label.
    """

    frames: int
    accuracy: list[float]  # per member
    cross_entropy: list[float]  # per member
    ensemble_accuracy: float  # of the members' arithmetic mean
    ensemble_cross_entropy: float
    wrong: np.ndarray
    labelled: np.ndarray


@dataclass(frozen=True)
class Diversity:
    """What an ensemble is made of."""

    disagreement: np.ndarray  # (M, M) float64: the share of frames where two members name different states
    accuracy: np.ndarray  # (M, M) float64: [order r, k]: mean of the k + 1 members r, r + 1, ... (cyclic)
    cross_entropy: np.ndarray  # (M, M) float64, likewise


def frame_metrics(model: AcousticModel, store: FrameStore, states: np.ndarray) -> FrameMetrics:
    """Scores a model on a set.

    Args:
      states: (N,) int, the label of each frame; negative: not aligned, ignored.

    Raises:
      ValueError: `states` and the store differ in length.
    """
    found = _Scores(model.members)
    for answers in _batches(model, store, states):
        found.add(answers)
    return found.metrics(store, states)


def diversity(
    model: AcousticModel, store: FrameStore, states: np.ndarray, alone: int = 0
) -> tuple[FrameMetrics, Diversity, FrameMetrics | None]:
    """As `frame_metrics`, and how the members differ, and what each one adds: one forward pass for all.

    The order in which members join is arbitrary, so all M rotations of it are followed: a curve over them shows what
    the k-th member is worth, not what the k-th seed happened to be.

    Args, Raises: as `frame_metrics`.
      alone: of the first so many members, as if the others were not there, the metrics too; 0: none.
    """
    found, first, members = _Scores(model.members), _Scores(alone), _Members(model.members)
    for answers in _batches(model, store, states):
        found.add(answers)
        members.add(answers)
        if alone:
            first.add(answers.first(alone))
    metrics = found.metrics(store, states)
    return metrics, members.diversity(metrics.frames), first.metrics(store, states) if alone else None


@dataclass(frozen=True)
class _Answers:
    """Of a batch's frames: (M, B, C) posteriors, their log at the (B,) labels as (M, B) float64, (M, B) likeliest."""

    probabilities: Tensor
    at_label: Tensor
    best: Tensor
    labels: Tensor

    def first(self, count: int) -> _Answers:
        """Of the first so many members alone."""
        return _Answers(self.probabilities[:count], self.at_label[:count], self.best[:count], self.labels)


class _Scores:
    """What `FrameMetrics` is made of; the last of each is the mean of all members."""

    def __init__(self, members: int) -> None:
        self._members = members
        self._nats = np.zeros(members + 1)
        self._mistaken = [np.zeros((members + 1, 0), bool)]

    def add(self, answers: _Answers) -> None:
        single = self._members == 1
        of_mean = answers.best if single else answers.probabilities.sum(0, keepdim=True).argmax(-1)
        self._mistaken.append(torch.cat([answers.best, of_mean]).ne(answers.labels).cpu().numpy())
        mean = answers.at_label.logsumexp(0, keepdim=True).sub(math.log(self._members))
        self._nats -= torch.cat([answers.at_label, mean]).sum(1).cpu().numpy()

    def metrics(self, store: FrameStore, states: np.ndarray) -> FrameMetrics:
        utterances = np.repeat(np.arange(len(store.ids)), np.diff(store.offsets))[np.asarray(states) >= 0]
        count = len(store.ids)
        mistaken = np.concatenate(self._mistaken, axis=1)
        wrong = np.stack([np.bincount(utterances[row], minlength=count) for row in mistaken])
        frames = len(utterances)
        accuracy = ((frames - wrong.sum(1)) / max(1, frames)).tolist()
        nats = (self._nats / max(1, frames)).tolist()
        labelled = np.bincount(utterances, minlength=count)
        return FrameMetrics(frames, accuracy[:-1], nats[:-1], accuracy[-1], nats[-1], wrong, labelled)


class _Members:
    """What `Diversity` is made of."""

    def __init__(self, members: int) -> None:
        self._disagreement, self._correct, self._nats = (np.zeros((members, members)) for _ in range(3))

    def add(self, answers: _Answers) -> None:
        members, best = len(self._correct), answers.best
        self._disagreement += best.unsqueeze(0).ne(best.unsqueeze(1)).sum(-1).cpu().numpy()
        for first in range(members):
            total, joint = answers.probabilities[first], answers.at_label[first]
            self._add(first, 0, best[first], joint, answers.labels)
            # all members together are the same ones wherever they start
            for k in range(1, members if first == 0 else members - 1):
                member = (first + k) % members
                total = total + answers.probabilities[member]
                joint = torch.logaddexp(joint, answers.at_label[member])
                self._add(first, k, total.argmax(-1), joint, answers.labels)

    def _add(self, first: int, k: int, best: Tensor, joint: Tensor, labels: Tensor) -> None:
        self._correct[first, k] += int(best.eq(labels).sum())
        self._nats[first, k] -= float(joint.sub(math.log(k + 1)).sum())

    def diversity(self, frames: int) -> Diversity:
        count = max(1, frames)
        for sums in (self._correct, self._nats):
            sums[:, -1] = sums[0, -1]
        return Diversity(self._disagreement / count, self._correct / count, self._nats / count)


def _batches(model: AcousticModel, store: FrameStore, states: np.ndarray) -> Iterator[_Answers]:
    """Yields what the members say of the frames with a label, on the model's device."""
    windows = _windows(model, store, states)
    labelled = torch.from_numpy(np.flatnonzero(np.asarray(states) >= 0))
    labels = torch.from_numpy(np.asarray(states, np.int64))
    size = min(4096, max(64, _NUMBERS_AT_ONCE // (model.members * model.num_states)))
    for frames in labelled.split(size):
        log_probabilities = model.log_probabilities(windows.inputs(frames.to(model.device)))
        wanted = labels[frames].to(model.device)
        at_label = log_probabilities.gather(2, wanted.expand(model.members, -1).unsqueeze(2)).squeeze(2)
        yield _Answers(log_probabilities.exp(), at_label.double(), log_probabilities.argmax(-1), wanted)


def _windows(model: AcousticModel, store: FrameStore, states: np.ndarray) -> WindowedFrames:
    if len(states) != store.num_frames:
        raise ValueError(f"{len(states)} states for {store.num_frames} frames of {store.folder}")
    settings = model.settings
    return WindowedFrames(store, left=settings.left_context, right=settings.right_context, device=str(model.device))


@dataclass(frozen=True)
class ExampleFrame:
    """One real frame's soft targets at several temperatures."""

    utterance: str
    seconds: float  # from the utterance's start
    label: int  # the tied state that the alignment gives it
    temperatures: list[float]
    states: list[int]  # the most probable ones at the lowest temperature, falling
    probabilities: np.ndarray  # (temperatures, states)


def example_frame(
    model: AcousticModel,
    store: FrameStore,
    states: np.ndarray,
    *,
    temperatures: list[float],
    mean: str = "arithmetic",
    silence: frozenset[int] = frozenset(),
    entries: int = 8,
    limit: int = 50_000,
) -> ExampleFrame | None:
    """The frame that shows best what soft targets say: the ensemble is right and sure, and yet names two more states.

    Among the first `limit` labelled frames that are no silence and whose label has 60 to 85 % of the mean, it is the
    one with the most probability on its third state; so the choice depends on the model and the set alone.

    Args:
      states, Raises: as `frame_metrics`.
      silence: tied states of silence.

    Returns:
      None where the set has no labelled frame.
    """
    from asr_kd.distillation.ensemble import ensemble_distribution

    keep = np.flatnonzero((states >= 0) & ~np.isin(states, list(silence)))[:limit]
    keep = keep if len(keep) else np.flatnonzero(states >= 0)[:limit]
    if not len(keep):
        return None
    subset = np.full(len(states), -1, np.int64)
    subset[keep] = np.asarray(states)[keep]
    scores = []
    for answers in _batches(model, store, subset):
        top, ids = answers.probabilities.mean(0).topk(min(3, model.num_states), dim=-1)
        clear = (ids[:, 0] == answers.labels) & (top[:, 0] >= 0.6) & (top[:, 0] <= 0.85)
        scores.append((top[:, -1] + clear).cpu())  # clear ones first; any frame where none is clear
    frame = int(keep[int(torch.cat(scores).argmax())])
    inputs = _windows(model, store, states).inputs(torch.tensor([frame], device=model.device))
    logits = model.log_probabilities(inputs)
    rows: list[Tensor] = [
        ensemble_distribution(logits, temperature=t, mean=mean)[0].exp().cpu()  # type: ignore[arg-type]
        for t in temperatures
    ]
    order = rows[int(np.argmin(temperatures))].argsort(descending=True, stable=True)[:entries]
    utterance = int(np.searchsorted(store.offsets, frame, side="right")) - 1
    return ExampleFrame(
        store.ids[utterance],
        (frame - int(store.offsets[utterance])) * 0.01,
        int(states[frame]),
        list(temperatures),
        order.tolist(),
        torch.stack([row[order] for row in rows]).double().numpy(),
    )

"""Frame accuracy and cross-entropy: of every member alone, of the ensemble's mean, and how the members differ.

Shapes:  M members, B frames of a block, N frames and U utterances of a set, T frames of an utterance, C senones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import FrameModel
from asr_kd.distillation.loss import ensemble_distribution
from asr_kd.evaluation.bootstrap import Interval, ratio_interval
from asr_kd.frames.store import FrameStore

_NUMBERS_AT_ONCE = 1 << 23  # posteriors of a block over all members: 32 MiB in float32
_EXAMPLE_FRAMES = 50_000  # that an example is chosen from
_EXAMPLE_SENONES = 8  # that it shows


@dataclass(frozen=True)
class FrameMetrics:
    """Means over the frames that have a label; R rows: one for each member, the last for the mean of all.

    utterances: U ids. accuracy: (R,) float64, fractions. cross_entropy: (R,) float64, nats. wrong: (R, U) int64, frames
    of each utterance whose label is not the most probable senone. labelled: (U,) int64, frames with a label.
    """

    utterances: Sequence[str]
    accuracy: np.ndarray
    cross_entropy: np.ndarray
    wrong: np.ndarray
    labelled: np.ndarray

    @property
    def frames(self) -> int:
        return int(self.labelled.sum())

    def rows(self, rows: slice) -> FrameMetrics:
        """Some of the rows."""
        return replace(
            self, accuracy=self.accuracy[rows], cross_entropy=self.cross_entropy[rows], wrong=self.wrong[rows]
        )


@dataclass(frozen=True)
class Diversity:
    """How the members of an ensemble differ, and what each one adds."""

    disagreement: np.ndarray  # (M, M) float64: the share of frames where two members name different senones
    accuracy: np.ndarray  # (M, M) float64: [start r, k]: mean of k + 1 members, in a cyclic order from its r-th on
    cross_entropy: np.ndarray  # (M, M) float64, likewise


def alternating(sizes: Sequence[int]) -> list[int]:
    """The numbers of an ensemble's members in an order in which its parts take turns.

    Args:
      sizes: of the parts, whose members are numbered one part after the other.

    >>> alternating([4, 2])
    [0, 4, 1, 2, 5, 3]
    """
    firsts = np.cumsum([0, *sizes])
    places = [((k + 0.5) / size, part, k) for part, size in enumerate(sizes) for k in range(size)]
    return [int(firsts[part]) + k for _, part, k in sorted(places)]


def between_parts(disagreement: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The mean over the pairs of different members of two parts, and of one part on the diagonal.

    Args:
      disagreement: (M, M) of `Diversity`.
      sizes: as in `alternating`, P of them.

    Returns:
      (P, P) float64; NaN for a part of one member with itself.

    >>> between_parts(np.array([[0, 0.2, 0.3], [0.2, 0, 0.5], [0.3, 0.5, 0]]), [2, 1]).tolist()
    [[0.2, 0.4], [0.4, nan]]
    """
    part = np.repeat(np.arange(len(sizes)), sizes)
    means = np.full((len(sizes), len(sizes)), np.nan)
    for first, second in np.ndindex(means.shape):
        pairs = np.outer(part == first, part == second) & ~np.eye(len(part), dtype=bool)
        if pairs.any():
            means[first, second] = disagreement[pairs].mean()
    return means


def accuracy_interval(
    metrics: FrameMetrics, *, groups: np.ndarray | None = None, samples: int = 10000, seed: int = 0
) -> Interval:
    """The interval of the rows' mean accuracy: `ratio_interval` of the frames that are wrong.

    Returns:
      0 to 1 where no frame has a label.
    """
    if not metrics.frames:
        return Interval(0.0, 0.0, 1.0)
    wrong = ratio_interval(metrics.wrong, metrics.labelled, groups=groups, samples=samples, seed=seed)
    return Interval(1 - wrong.value, 1 - wrong.high, 1 - wrong.low)


def frame_metrics(model: FrameModel, store: FrameStore, senones: np.ndarray) -> FrameMetrics:
    """Scores a model on a set.

    Args:
      senones: (N,) int, the label of each frame; negative: not aligned, ignored.

    Raises:
      ValueError: `senones` and the store differ in length.
    """
    scores = _Scores(model.members)
    for block in _blocks(model, store, senones):
        scores.add(block)
    return scores.metrics(store, senones)


def diversity(
    model: FrameModel, store: FrameStore, senones: np.ndarray, order: Sequence[int] | None = None
) -> tuple[FrameMetrics, Diversity]:
    """Scores a model as `frame_metrics` does, and measures how its members differ and what each one adds.

    Both come from one forward pass. Where to start is arbitrary, so all M rotations of the order are followed: a
    curve over them shows what the k-th member is worth, not what the k-th seed happened to be.

    Args:
      order: (M,) in which members join; None: that of their numbers.
    """
    scores, members = _Scores(model.members), _Members(order or range(model.members))
    for block in _blocks(model, store, senones):
        scores.add(block)
        members.add(block)
    metrics = scores.metrics(store, senones)
    return metrics, members.diversity(metrics.frames)


class _Block:
    """Labelled frames: (M, B, C) posteriors, their log at the (B,) labels as (M, B) float64, (M, B) most probable."""

    def __init__(self, log_posteriors: Tensor, labels: Tensor) -> None:
        self.probabilities, self.best, self.labels = log_posteriors.exp(), log_posteriors.argmax(-1), labels
        at_label = log_posteriors.gather(2, labels.expand(len(log_posteriors), -1).unsqueeze(2))
        self.at_label = at_label.squeeze(2).double()


class _Scores:
    """Accumulates `FrameMetrics`."""

    def __init__(self, members: int) -> None:
        self._members = members
        self._nats = np.zeros(members + 1)
        self._wrong = [np.zeros((members + 1, 0), bool)]

    def add(self, block: _Block) -> None:
        single = self._members == 1
        of_mean = block.best if single else block.probabilities.sum(0, keepdim=True).argmax(-1)
        self._wrong.append(torch.cat([block.best, of_mean]).ne(block.labels).cpu().numpy())
        mean = block.at_label.logsumexp(0, keepdim=True).sub(math.log(self._members))
        self._nats -= torch.cat([block.at_label, mean]).sum(1).cpu().numpy()

    def metrics(self, store: FrameStore, senones: np.ndarray) -> FrameMetrics:
        utterances = np.repeat(np.arange(len(store.ids)), np.diff(store.offsets))[np.asarray(senones) >= 0]
        count = len(store.ids)
        wrong = np.stack([np.bincount(utterances[row], minlength=count) for row in np.concatenate(self._wrong, axis=1)])
        frames = max(1, len(utterances))
        accuracy = (len(utterances) - wrong.sum(1)) / frames
        labelled = np.bincount(utterances, minlength=count)
        return FrameMetrics(store.ids, accuracy, self._nats / frames, wrong, labelled)


class _Members:
    """Accumulates `Diversity`."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._disagreement, self._correct, self._nats = (np.zeros((len(order), len(order))) for _ in range(3))

    def add(self, block: _Block) -> None:
        order, members, best = self._order, len(self._order), block.best
        self._disagreement += best.unsqueeze(0).ne(best.unsqueeze(1)).sum(-1).cpu().numpy()
        for first in range(members):
            total, joint = block.probabilities[order[first]], block.at_label[order[first]]
            self._add(first, 0, best[order[first]], joint, block.labels)
            # all members together are the same ones wherever they start
            for k in range(1, members if first == 0 else members - 1):
                member = order[(first + k) % members]
                total = total + block.probabilities[member]
                joint = torch.logaddexp(joint, block.at_label[member])
                self._add(first, k, total.argmax(-1), joint, block.labels)

    def _add(self, first: int, k: int, best: Tensor, joint: Tensor, labels: Tensor) -> None:
        self._correct[first, k] += int(best.eq(labels).sum())
        self._nats[first, k] -= float(joint.sub(math.log(k + 1)).sum())

    def diversity(self, frames: int) -> Diversity:
        count = max(1, frames)
        for sums in (self._correct, self._nats):
            sums[:, -1] = sums[0, -1]
        return Diversity(self._disagreement / count, self._correct / count, self._nats / count)


def _blocks(model: FrameModel, store: FrameStore, senones: np.ndarray) -> Iterator[_Block]:
    """Yields the members' posteriors of the frames that have a label, in the order of the set, on the model's device.

    Utterances are cut into parts and parts are joined, each with its context: memory stays bounded where an utterance
    is long, and short ones share a forward pass, which would cost more than their frames do.
    """
    if len(senones) != store.num_frames:
        raise ValueError(f"{len(senones)} labels for {store.num_frames} frames of {store.folder}")
    size = min(4096, max(64, _NUMBERS_AT_ONCE // (model.members * model.num_senones)))
    left, right = model.context.left, model.context.right
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for utterance in range(len(store.ids)):
        labels = np.asarray(senones[store.span(utterance)], np.int64)
        if not (labels >= 0).any():
            continue
        features = np.pad(store.normalised(utterance), ((left, right), (0, 0)), mode="edge")
        for first in range(0, len(labels), size):
            part = features[first : first + size + left + right], labels[first : first + size]
            if count and count + len(part[0]) > size + left + right:
                yield _joined(model, parts)
                parts, count = [], 0
            parts.append(part)
            count += len(part[0])
    if parts:
        yield _joined(model, parts)


@torch.no_grad()
def _joined(model: FrameModel, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> _Block:
    """Frames with their context, and labels; outputs that mix two parts are dropped with those that have no label."""
    context = model.context.left + model.context.right
    frames = np.concatenate([features for features, _ in parts])
    labels = np.concatenate([np.pad(of_part, (0, context), constant_values=-1) for _, of_part in parts])
    chosen = np.flatnonzero(labels >= 0)
    logits = model(torch.from_numpy(frames).to(model.device)[None])
    return _Block(
        logits[:, torch.from_numpy(chosen).to(model.device)].log_softmax(-1),
        torch.from_numpy(labels[chosen]).to(model.device),
    )


@dataclass(frozen=True)
class ExampleFrame:
    """One real frame's soft targets at several temperatures."""

    utterance: str
    seconds: float  # from the utterance's start
    label: int  # the senone that the alignment gives it
    temperatures: list[float]
    senones: list[int]  # the most probable ones at the lowest temperature, falling
    probabilities: np.ndarray  # (temperatures, senones)


def example_frame(
    model: FrameModel,
    store: FrameStore,
    senones: np.ndarray,
    *,
    frame_seconds: float,
    temperatures: Sequence[float],
    mean: Literal["arithmetic", "geometric"] = "arithmetic",
    silence: frozenset[int] = frozenset(),
) -> ExampleFrame | None:
    """The frame that shows best what soft targets say: the teacher is right and confident, yet names two more senones.

    Among the first 50,000 labelled frames that are no silence and whose label has 60 to 85 % of the mean, it is the
    one with the largest probability of its third senone. So the choice depends on the model and the set alone.

    Args:
      senones: as in `frame_metrics`.
      frame_seconds: from one frame to the next.
      silence: senones of silence.

    Returns:
      None where the set has no labelled frame.

    Raises:
      ValueError: as `frame_metrics`.
    """
    speech = np.flatnonzero((senones >= 0) & ~np.isin(senones, list(silence)))[:_EXAMPLE_FRAMES]
    candidates = speech if len(speech) else np.flatnonzero(senones >= 0)[:_EXAMPLE_FRAMES]
    if not len(candidates):
        return None
    subset = np.full(len(senones), -1, np.int64)
    subset[candidates] = np.asarray(senones)[candidates]
    scores = []
    for block in _blocks(model, store, subset):
        top, ids = block.probabilities.mean(0).topk(min(3, model.num_senones), dim=-1)
        clear = (ids[:, 0] == block.labels) & (top[:, 0] >= 0.6) & (top[:, 0] <= 0.85)
        scores.append((top[:, -1] + clear).cpu())  # clear ones first; any frame where none is clear
    frame = int(candidates[int(torch.cat(scores).argmax())])
    utterance = int(np.searchsorted(store.offsets, frame, side="right")) - 1
    position = frame - int(store.offsets[utterance])
    features = torch.from_numpy(store.normalised(utterance)).to(model.device)
    logits = model.member_log_posteriors(features)[:, position : position + 1]
    rows = [ensemble_distribution(logits, temperature=t, mean=mean)[0].exp().cpu() for t in temperatures]
    order = rows[int(np.argmin(temperatures))].argsort(descending=True, stable=True)[:_EXAMPLE_SENONES]
    return ExampleFrame(
        store.ids[utterance],
        position * frame_seconds,
        int(senones[frame]),
        list(temperatures),
        order.tolist(),
        torch.stack([row[order] for row in rows]).double().numpy(),
    )

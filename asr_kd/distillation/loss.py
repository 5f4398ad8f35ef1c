"""The ensemble's distribution at a temperature, and the loss that mixes it with hard labels.

Shapes:  B frames in a batch, C senones, M members of an ensemble, or students side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.kernels.softmax import soft_cross_entropy

Mean = Literal["arithmetic", "geometric"]


@dataclass(frozen=True)
class SoftTargets:
    """The ensemble's distribution over the senones for the frames of a batch."""

    log_probabilities: Tensor  # (B, C) natural log, each row sums to one in the exponential
    temperature: float  # at which every member was tempered before the mean
    present: Tensor | None = None  # (B,) bool; a frame that is False has no target: its soft term is 0. None: all have


@dataclass(frozen=True)
class LossTerms:
    """What one batch contributed, in nats: scalars, or (M,) for students side by side.

    `total` and `soft` are means over valid frames, `hard` and `accuracy` over those of them that have a label (see
    `distillation_loss`). Only `total` is to be differentiated.
    """

    total: Tensor
    soft: Tensor  # T^2 * KL(teacher_T || student_T); for logit matching the squared error
    hard: Tensor  # cross-entropy with the forced-alignment senone, at T = 1
    accuracy: Tensor  # the share of frames whose senone is the student's most probable one


def ensemble_distribution(
    logits: Tensor, *, temperature: float, mean: Mean = "arithmetic", weights: Tensor | None = None
) -> Tensor:
    """Tempers each member, then averages.

    Args:
      logits: (M, B, C) logits or log posteriors of the members (they differ by a constant, which cancels).
      mean: "arithmetic": of probabilities; "geometric": of logits, normalised.
      weights: (M, B), how much each member counts in each frame, summing to one over members; None: all alike.

    Returns:
      (B, C) natural-log probabilities.

    Raises:
      ValueError: the weights are not (M, B).
    """
    if weights is None:
        weights = torch.full(logits.shape[:2], 1 / len(logits), dtype=logits.dtype, device=logits.device)
    if weights.shape != logits.shape[:2]:
        raise ValueError(f"weights are {tuple(weights.shape)}, logits {tuple(logits.shape)}")
    tempered, weights = F.log_softmax(logits.div(temperature), dim=-1), weights.to(logits.dtype).unsqueeze(-1)
    if mean == "arithmetic":
        return torch.logsumexp(tempered + weights.log(), dim=0)
    return F.log_softmax((tempered * weights).sum(0), dim=-1)


def distillation_loss(
    logits: Tensor,
    teacher: SoftTargets,
    labels: Tensor,
    *,
    temperature: float,
    soft_weight: float,
    valid: Tensor | None = None,
    labelled_share: float | None = None,
) -> LossTerms:
    """Hinton, Vinyals, Dean (2015), section 2: alpha * T^2 * KL + (1 - alpha) * CE.

    With n valid frames, r of which have a label (untranscribed speech has none), the loss is

        alpha * T^2 / n * sum over valid frames of KL + (1 - alpha) / (r * n) * sum over labelled frames of CE,

    so that a frame without a label has alpha times the soft gradient of any other, and no hard one. With the share r of
    the whole set, sums over an epoch's batches have exactly the set's means, however the labelled frames fall into
    batches; with a batch's own share, a batch of few labelled frames would weigh each of them as much as many.

    KL and the paper's cross-entropy with soft targets differ by the teacher's entropy, which has no gradient; KL's
    floor is 0. Without T^2 the soft gradient would be (q - p) / T, and shrink as 1 / T^2 where T is high.

    Args:
      logits: (B, C) or (M, B, C) student logits, any float dtype; reduced in float32 at least.
      teacher: the ensemble's distribution at this same temperature, B frames.
      labels: (B,) int64 senones; negative: the frame has none, and the soft term alone applies to it.
      temperature: T > 0; must equal the one the targets were made at.
      soft_weight: alpha in [0, 1], the weight of the soft term.
      valid: (B,) bool; frames that are False weigh nothing, in value and in gradient.
      labelled_share: r, of the set that the batch is from, above 0; None: the batch's own.

    Raises:
      ValueError: the targets were made at another temperature, lengths differ, or a setting is out of its range.
    """
    check_arguments(logits, teacher, labels, temperature, soft_weight, labelled_share)
    logits = at_least_float32(logits)
    weight = torch.ones_like(labels, dtype=logits.dtype) if valid is None else valid.to(logits.dtype)
    count = weight.sum().clamp_min(1)
    labelled = _labelled(labels, valid)
    hard_weight = labelled.to(logits.dtype)
    hard_count = hard_weight.sum().clamp_min(1) if labelled_share is None else count * labelled_share
    weight, hard_weight = weight / count, hard_weight / hard_count
    soft_share = torch.full((), soft_weight, dtype=logits.dtype, device=logits.device)  # no copy from the host
    terms = soft_cross_entropy(
        logits.reshape(-1, *logits.shape[-2:]),
        teacher.log_probabilities.to(logits.dtype),
        torch.where(labelled, labels, torch.zeros_like(labels)),
        soft_weights=where_present(weight, teacher) * soft_share,
        hard_weights=hard_weight * (1 - soft_share),
        temperature=temperature,
    )
    soft = where_present(terms.soft, teacher).sum(-1) / count
    hard, correct = (_of_labelled(frames, labelled, hard_count) for frames in (terms.hard, terms.correct))
    means = (terms.loss, soft, hard, correct)
    return LossTerms(*(mean.view(logits.shape[:-2]) for mean in means))


def logit_matching(
    logits: Tensor,
    teacher: SoftTargets,
    labels: Tensor,
    *,
    temperature: float,
    soft_weight: float,
    valid: Tensor | None = None,
    labelled_share: float | None = None,
) -> LossTerms:
    """The limit of high temperatures, section 2.1: 1/(2C) * sum (z - v)^2 on zero-mean logits z and v.

    The teacher's logits follow from its distribution: v = T * log p, up to the constant that zero mean fixes.
    The factor 1/C makes it the limit of T^2 * KL (whose gradient is (z - v) / C). Arguments, result and errors as for
    `distillation_loss`.
    """
    check_arguments(logits, teacher, labels, temperature, soft_weight, labelled_share)
    logits = at_least_float32(logits)
    target = teacher.log_probabilities.to(logits.dtype) * temperature
    error = (logits - logits.mean(-1, keepdim=True)) - (target - target.mean(-1, keepdim=True))
    soft = where_present(0.5 * error.square().mean(-1), teacher)
    return mixed_with_labels(soft, logits, labels, soft_weight=soft_weight, valid=valid, labelled_share=labelled_share)


def mixed_with_labels(
    soft: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    soft_weight: float,
    valid: Tensor | None = None,
    labelled_share: float | None = None,
) -> LossTerms:
    """The terms of a loss whose soft term, of each frame, is known; the hard term is the cross-entropy.

    Args:
      soft: (B,) or (M, B) nats, 0 where a frame has no target.
      logits: (B, C) or (M, B, C), float32 at least.

    The other arguments are those of `distillation_loss`.

    >>> import torch
    >>> terms = mixed_with_labels(torch.tensor([3.0, 1.0]), torch.zeros(2, 4), torch.tensor([0, -1]), soft_weight=0.5)
    >>> round(float(terms.total), 4), float(terms.soft), round(float(terms.hard), 4)  # the second has no label
    (1.6931, 2.0, 1.3863)
    """
    log_posteriors = F.log_softmax(logits, dim=-1)
    labelled = _labelled(labels, valid)
    labels = torch.where(labelled, labels, torch.zeros_like(labels))
    hard = -log_posteriors.gather(-1, labels.expand(log_posteriors.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    count = (torch.ones_like(labelled) if valid is None else valid).to(hard.dtype).sum().clamp_min(1)
    hard_count = labelled.to(hard.dtype).sum().clamp_min(1) if labelled_share is None else count * labelled_share
    soft_mean, hard_mean = _mean(soft, valid), _of_labelled(hard, labelled, hard_count)
    total: Tensor = soft_mean.mul(soft_weight).add(hard_mean, alpha=1 - soft_weight)
    correct = log_posteriors.detach().argmax(-1) == labels
    return LossTerms(total, soft_mean, hard_mean, _of_labelled(correct.to(hard.dtype), labelled, hard_count))


def _labelled(labels: Tensor, valid: Tensor | None) -> Tensor:
    """(B,) bool: the valid frames that have a label."""
    return labels.ge(0) if valid is None else labels.ge(0) & valid


def _of_labelled(values: Tensor, labelled: Tensor, count: Tensor) -> Tensor:
    """(..., B) values of frames: the sum over those that have a label, over their count."""
    # where, not a product: a frame without a label may hold inf or nan
    return torch.where(labelled, values, torch.zeros_like(values)).sum(-1) / count


def where_present(values: Tensor, teacher: SoftTargets) -> Tensor:
    """(..., B) values of frames, 0 where a frame has no target."""
    return values if teacher.present is None else torch.where(teacher.present, values, torch.zeros_like(values))


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the mean over the last axis, of valid entries only; a batch without any has mean 0."""
    if valid is None:
        return values.mean(-1)
    # where, not a product: an invalid frame may hold inf or nan
    masked = torch.where(valid, values, torch.zeros_like(values))
    return masked.sum(-1) / valid.sum(-1).clamp_min(1)


def at_least_float32(logits: Tensor) -> Tensor:
    """Returns logits in the format in which they are reduced: float64 as they are, any other in float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def check_arguments(
    logits: Tensor,
    teacher: SoftTargets,
    labels: Tensor,
    temperature: float,
    soft_weight: float,
    labelled_share: float | None,
) -> None:
    """Raises ValueError, as `distillation_loss` says."""
    if temperature <= 0 or not 0 <= soft_weight <= 1:
        raise ValueError(f"temperature {temperature} must be above 0 and soft_weight {soft_weight} within [0, 1]")
    if labelled_share is not None and not 0 < labelled_share <= 1:
        raise ValueError(f"labelled_share {labelled_share} must be above 0 and at most 1")
    if teacher.temperature != temperature:
        raise ValueError(f"soft targets were made at temperature {teacher.temperature}, the loss is at {temperature}")
    if teacher.log_probabilities.shape != logits.shape[-2:] or labels.shape != logits.shape[-2:-1]:
        raise ValueError(
            f"student logits are {tuple(logits.shape)}, soft targets {tuple(teacher.log_probabilities.shape)}, "
            f"labels {tuple(labels.shape)}: frames and classes must agree"
        )

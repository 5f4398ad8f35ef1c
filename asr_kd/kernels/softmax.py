"""Cross-entropy with hard and with soft targets, and its gradient: one pass over each row of logits.

torch takes ten to twenty passes over all logits for the same sums and their gradients.

Shapes:  M members, B frames in a batch, C senones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from asr_kd.kernels import compiled
from asr_kd.kernels.switch import use_numba, use_torchs_threads

LANES = 16  # sums side by side
_LOG2_E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-126.0)  # power of two; below are denormal numbers
# 2^f for |f| <= 1/2: the Taylor series, off by 1e-7 at most, float32's own rounding
_POWERS = tuple(np.float32(np.log(2.0) ** k / np.prod(np.arange(1, k + 1), dtype=float)) for k in range(7))
_LEAST_NORMAL = np.float32(2.0**-126)
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


class SoftTerms(NamedTuple):
    """What `soft_cross_entropy` returns; only `loss` has a gradient."""

    loss: Tensor  # (M,): sum over frames of soft_weight * soft + hard_weight * hard
    soft: Tensor  # (M, B): T^2 * KL(targets || softmax(logits / T)), in nats
    hard: Tensor  # (M, B): cross-entropy with the senone at T = 1, in nats
    correct: Tensor  # (M, B): 1 where the senone has the largest logit, the first of equally large ones; else 0


def cross_entropy(logits: Tensor, senones: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of cross-entropies, and how many frames are correct.

    Args:
      logits: (M, B, C).
      senones: (B,) int64.
      weights: (M, B); a frame of weight 0 is not looked at.

    Returns:
      (M,) sums over frames of weight * cross-entropy, in nats, and (M,) numbers of correct frames: of a weight above 0,
      with the senone's logit the largest, the first of equally large ones. Only the sums have a gradient.

    Raises:
      ValueError: shapes do not agree, or a senone is not one of the C.
    """
    _check_senones(senones, logits)
    if weights.shape != logits.shape[:2]:
        raise ValueError(f"weights are {tuple(weights.shape)}, logits {tuple(logits.shape)}")
    if use_numba("cross_entropy", logits, weights):
        return _CrossEntropy.apply(logits, senones, weights)
    return torch_cross_entropy(logits, senones, weights)


def torch_cross_entropy(logits: Tensor, senones: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The reference of `cross_entropy`."""
    looked_at = weights.gt(0)
    # where, not only a product: a frame of weight 0 may hold inf or nan
    logits = torch.where(looked_at.unsqueeze(-1), logits, torch.zeros_like(logits))
    senones = senones.expand(len(logits), -1)
    # flat: with the classes in the middle it is several times slower
    entropy = F.cross_entropy(logits.flatten(0, 1), senones.flatten(), reduction="none").view_as(senones)
    correct = (logits.detach().argmax(-1) == senones) & looked_at
    return (entropy * weights).sum(1), correct.sum(1).to(logits.dtype)


def soft_cross_entropy(
    logits: Tensor,
    log_targets: Tensor,
    senones: Tensor,
    *,
    soft_weights: Tensor,
    hard_weights: Tensor,
    temperature: float,
) -> SoftTerms:
    """The terms of the distillation loss, frame by frame, and their weighted sum.

    Args:
      logits: (M, B, C) of M students side by side.
      log_targets: (B, C) natural-log probabilities of the teachers at this temperature.
      senones: (B,) int64.
      soft_weights: (B,) weight of each frame's soft term in the sum.
      hard_weights: (B,) weight of each frame's hard term. A frame without weight is skipped: its terms are 0.

    Raises:
      ValueError: shapes do not agree, or a senone is not one of the C.
    """
    _check_senones(senones, logits)
    if log_targets.shape != logits.shape[1:] or not soft_weights.shape == hard_weights.shape == senones.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, log_targets {tuple(log_targets.shape)}, "
            f"weights {tuple(soft_weights.shape)} and {tuple(hard_weights.shape)}"
        )
    if use_numba("soft_cross_entropy", logits, log_targets, soft_weights, hard_weights):
        arguments = (logits, log_targets, senones, soft_weights, hard_weights, temperature)
        return SoftTerms(*_SoftCrossEntropy.apply(*arguments))
    return torch_soft_cross_entropy(logits, log_targets, senones, soft_weights, hard_weights, temperature)


def torch_soft_cross_entropy(
    logits: Tensor,
    log_targets: Tensor,
    senones: Tensor,
    soft_weights: Tensor,
    hard_weights: Tensor,
    temperature: float,
) -> SoftTerms:
    """The reference of `soft_cross_entropy`."""
    looked_at = soft_weights.ne(0).logical_or(hard_weights.ne(0)).view(-1, 1)
    # where, not a product: a frame of weight 0 may hold inf or nan
    logits = torch.where(looked_at, logits, torch.zeros_like(logits))
    log_targets = torch.where(
        looked_at, log_targets.to(logits.dtype), torch.zeros_like(log_targets, dtype=logits.dtype)
    )
    students = F.log_softmax(logits.div(temperature), dim=-1)
    targets = log_targets.exp()
    # where p is 0, p log p is 0: its log of -inf must not turn into nan
    negative_entropy = torch.where(targets > 0, targets * log_targets, torch.zeros_like(targets)).sum(-1)
    looked_at = looked_at.view(-1)
    soft = temperature**2 * (negative_entropy - (targets * students).sum(-1)) * looked_at
    log_posteriors = F.log_softmax(logits, dim=-1)
    labels = senones.expand(logits.shape[:-1])
    hard = -log_posteriors.gather(-1, labels.unsqueeze(-1)).squeeze(-1) * looked_at
    correct = ((log_posteriors.detach().argmax(-1) == labels) & looked_at).to(hard.dtype)
    loss = (soft * soft_weights + hard * hard_weights).sum(-1)
    return SoftTerms(loss, soft.detach(), hard.detach(), correct)


def _check_senones(senones: Tensor, logits: Tensor) -> None:
    """Compiled code would read and write outside its arrays."""
    frames, classes = logits.shape[-2:]
    if senones.shape != (frames,):
        raise ValueError(f"senones are {tuple(senones.shape)}, logits {tuple(logits.shape)}")
    on_cpu = senones.device.type == "cpu"  # elsewhere torch checks by itself, without waiting for the device
    if on_cpu and frames and (int(senones.min()) < 0 or int(senones.max()) >= classes):
        raise ValueError(f"senones run from {senones.min()} to {senones.max()}, of {classes} classes")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, senones: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        use_torchs_threads()
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        entropy, correct = logits.new_empty(logits.shape[:2]), logits.new_empty(logits.shape[:2])
        arrays = (logits.detach().contiguous(), senones, weights, entropy, correct, gradient)
        _hard_rows(*(array.numpy() for array in arrays))
        ctx.save_for_backward(gradient)
        correct = correct.sum(1)
        ctx.mark_non_differentiable(correct)
        return entropy.sum(1), correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(ctx.saved_tensors[0], of_outputs[0]), None, None


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        log_targets: Tensor,
        senones: Tensor,
        soft_weights: Tensor,
        hard_weights: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        use_torchs_threads()
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        terms = logits.new_empty(3, *logits.shape[:2])
        arrays = (logits.detach().contiguous(), log_targets, senones, terms, gradient)
        weights = (soft_weights.numpy(), hard_weights.numpy())
        _soft_rows(*(array.numpy() for array in arrays), weights, np.float32(temperature))
        ctx.save_for_backward(gradient)
        soft, hard, correct = terms
        ctx.mark_non_differentiable(soft, hard, correct)
        return (soft * soft_weights + hard * hard_weights).sum(-1), soft, hard, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(ctx.saved_tensors[0], of_outputs[0]), None, None, None, None, None


def _scaled(gradient: Tensor, of_loss: Tensor) -> Tensor:
    """(M, B, C) times the (M,) gradients of the losses; without a pass over it where they are 1, as in training."""
    return gradient if bool(of_loss.eq(1).all()) else gradient * of_loss.view(-1, 1, 1)


@compiled(inline="always")
def _dot(left, right, lanes):  # type: ignore[no-untyped-def]
    """The sum of products in an order of its own: LANES sums side by side, which run in vector registers."""
    whole = left.size // LANES * LANES
    lanes[:] = np.float32(0.0)
    for first in range(0, whole, LANES):
        for k in range(LANES):
            lanes[k] += left[first + k] * right[first + k]
    total = np.float32(0.0)
    for k in range(LANES):
        total += lanes[k]
    for j in range(whole, left.size):
        total += left[j] * right[j]
    return total


@compiled(inline="always")
def _largest(values, lanes):  # type: ignore[no-untyped-def]
    """Returns the largest number of a row, which has one number or more."""
    whole = values.size // LANES * LANES
    lanes[:] = values[0]
    for first in range(0, whole, LANES):
        for k in range(LANES):
            lanes[k] = max(lanes[k], values[first + k])
    top = values[0]
    for k in range(LANES):
        top = max(top, lanes[k])
    for j in range(whole, values.size):
        top = max(top, values[j])
    return top


@compiled(inline="always")
def _exponentials(values, shift, scale, powers, results):  # type: ignore[no-untyped-def]
    """results[j] = exp(scale * (values[j] - shift)), whose arguments are 0 at most.

    2^n as the bits of a float, times 2^f: compilers do not vectorise the library's exp().
    """
    bits = powers.view(np.int32)
    factor = scale * _LOG2_E
    for j in range(values.size):
        power = max(factor * (values[j] - shift), _LOWEST)
        whole = np.floor(power + np.float32(0.5))
        bits[j] = (np.int32(whole) + _BIAS) << _MANTISSA_BITS
        part = power - whole
        results[j] = _POWERS[0] + part * (
            _POWERS[1]
            + part * (_POWERS[2] + part * (_POWERS[3] + part * (_POWERS[4] + part * (_POWERS[5] + part * _POWERS[6]))))
        )
    for j in range(values.size):
        results[j] *= powers[j]


@compiled(inline="always")
def _is_best(row, top, senone):  # type: ignore[no-untyped-def]
    """Whether the senone is the first with `top`, the largest number of the row."""
    first = 0
    while first < senone and row[first] != top:
        first += 1
    return first == senone and row[senone] == top


@compiled(inline="always")
def _normal(number):  # type: ignore[no-untyped-def]
    """The number, or 0 where it is denormal: processors are slow with denormal numbers."""
    return np.float32(0.0) if abs(number) < _LEAST_NORMAL else number


# No fastmath: it leaves the order of sums to each compilation, and two runs would differ in the last bits.
@compiled(parallel=True)
def _hard_rows(logits, senones, weights, entropy, correct, gradient):  # type: ignore[no-untyped-def]
    members, frames, classes = logits.shape
    one = np.float32(1.0)
    ones = np.ones(classes, np.float32)
    for b in numba.prange(frames):
        powers = np.empty(classes, np.float32)
        lanes = np.empty(LANES, np.float32)
        senone = senones[b]
        for m in range(members):
            row, slope, weight = logits[m, b], gradient[m, b], weights[m, b]
            if weight == np.float32(0.0):
                slope[:] = weight
                entropy[m, b], correct[m, b] = weight, weight
                continue
            top = _largest(row, lanes)
            _exponentials(row, top, one, powers, slope)
            total = _dot(slope, ones, lanes)
            entropy[m, b] = weight * (np.log(total) - (row[senone] - top))
            correct[m, b] = one if _is_best(row, top, senone) else np.float32(0.0)
            share = weight / total
            for j in range(classes):
                slope[j] = _normal(slope[j] * share)
            slope[senone] -= weight


@compiled(parallel=True)
def _soft_rows(logits, log_targets, senones, terms, gradient, weights, temperature):  # type: ignore[no-untyped-def]
    members, frames, classes = logits.shape
    one, zero = np.float32(1.0), np.float32(0.0)
    ones = np.ones(classes, np.float32)
    for b in numba.prange(frames):
        soft, hard, senone = weights[0][b], weights[1][b], senones[b]
        if soft == zero and hard == zero:
            gradient[:, b] = zero
            terms[:, :, b] = zero
            continue
        powers, targets, scratch = np.empty((3, classes), np.float32)
        lanes = np.empty(LANES, np.float32)
        _exponentials(log_targets[b], zero, one, powers, targets)
        for j in range(classes):
            scratch[j] = max(log_targets[b, j], np.float32(-1e30))
        negative_entropy = _dot(targets, scratch, lanes)
        for m in range(members):
            row, slope = logits[m, b], gradient[m, b]
            top = _largest(row, lanes)
            for j in range(classes):
                scratch[j] = row[j] - top
            expected = _dot(targets, scratch, lanes)
            _exponentials(row, top, one / temperature, powers, slope)
            total = _dot(slope, ones, lanes)
            kl = negative_entropy - expected / temperature + np.log(total)
            terms[0, m, b] = temperature * temperature * kl
            if temperature == one:
                scratch[:] = slope
                total_hard = total
            else:
                _exponentials(row, top, one, powers, scratch)
                total_hard = _dot(scratch, ones, lanes)
            terms[1, m, b] = np.log(total_hard) - (row[senone] - top)
            terms[2, m, b] = one if _is_best(row, top, senone) else zero
            scale, share = soft * temperature, one / total
            rest = hard / total_hard
            for j in range(classes):
                slope[j] = _normal(scale * (slope[j] * share - targets[j]) + rest * scratch[j])
            slope[senone] -= hard

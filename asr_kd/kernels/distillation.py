"""The distillation loss of a batch and its gradient, row by row on the CPU, each row while it is in the cache.

torch takes some twenty passes over all logits for the same sums, forwards and back: a quarter of a student's step with
1000 tied states. `asr_kd.distillation.loss` holds the definition; its tests hold both against a float64 reference.

Shapes:  M students side by side, B frames in a batch, C tied states.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_kd.kernels.cross_entropy import (
    LANES,
    check_states,
    check_weights,
    dot,
    exponentials,
    is_best,
    largest,
    normal,
    scaled,
)
from asr_kd.kernels.numba_utils import compiled, use_torchs_threads

_LEAST = np.float32(1e-30)  # probabilities below are had from sums of logarithms: float32 would hold them badly or not


class FusedDistillationLoss(torch.autograd.Function):
    """(M, B, C) float32 logits -> (M,) weighted sum, soft term, hard term and share of right frames: means over frames.

    Right is a frame as for `FusedCrossEntropy`. Only the sum has a gradient.

    Further arguments: (B, C) float32 natural-log targets, (B,) int64 states, the temperature and the soft weight.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, states: Tensor, temperature: float, soft_weight: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_states(states, logits)
        use_torchs_threads()
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        terms = logits.new_empty(3, *logits.shape[:2])
        _rows(
            logits.detach().contiguous().numpy(),
            targets.numpy(),
            states.numpy(),
            np.float32(temperature),
            np.float32(soft_weight),
            terms.numpy(),
            gradient.numpy(),
        )
        ctx.save_for_backward(gradient)
        soft, hard, right = terms.mean(-1)
        ctx.mark_non_differentiable(soft, hard, right)
        return soft * soft_weight + hard * (1 - soft_weight), soft, hard, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return scaled(ctx.saved_tensors[0], of_outputs[0]), None, None, None, None


def fused_ensemble_mean(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """(M, B, C) float32 logits, (M, B) float32 weights -> (B, C) log of the weighted mean of the softmax of logits / T.

    It has no gradient.
    """
    check_weights(weights, logits)
    use_torchs_threads()
    found = torch.empty_like(logits[0], memory_format=torch.contiguous_format)
    arrays = (logits.detach().contiguous(), weights.contiguous(), found)
    _means(*(array.numpy() for array in arrays), np.float32(1 / temperature))
    return found


# no fastmath: it leaves the order of sums to each compilation, and one run would differ from the next in the last bits
@compiled(parallel=True)
def _rows(logits, targets, states, temperature, soft_weight, terms, gradient):  # type: ignore[no-untyped-def]
    members, frames, classes = logits.shape
    one, nothing = np.float32(1.0), np.float32(0.0)
    ones = np.ones(classes, np.float32)
    of_frame = one / np.float32(max(1, frames))
    soft, hard = soft_weight * of_frame, (one - soft_weight) * of_frame
    for b in numba.prange(frames):
        powers, wanted, scratch = np.empty((3, classes), np.float32)
        lanes = np.empty(LANES, np.float32)
        exponentials(targets[b], nothing, one, powers, wanted)
        for j in range(classes):
            scratch[j] = max(targets[b, j], np.float32(-1e30))
        negative_entropy = dot(wanted, scratch, lanes)
        for m in range(members):
            row, slope = logits[m, b], gradient[m, b]
            top = largest(row, lanes)
            for j in range(classes):
                scratch[j] = row[j] - top
            seen = dot(wanted, scratch, lanes)
            exponentials(row, top, one / temperature, powers, slope)
            total = dot(slope, ones, lanes)
            kl = negative_entropy - seen / temperature + np.log(total)
            terms[0, m, b] = temperature * temperature * kl
            if temperature == one:
                scratch[:] = slope
                total_hard = total
            else:
                exponentials(row, top, one, powers, scratch)
                total_hard = dot(scratch, ones, lanes)
            terms[1, m, b] = np.log(total_hard) - (row[states[b]] - top)
            terms[2, m, b] = one if is_best(row, top, states[b]) else nothing
            scale, share = soft * temperature, one / total
            rest = hard / total_hard
            for j in range(classes):
                slope[j] = normal(scale * (slope[j] * share - wanted[j]) + rest * scratch[j])
            slope[states[b]] -= hard


@compiled(parallel=True)
def _means(logits, weights, found, scale):  # type: ignore[no-untyped-def]
    members, frames, classes = logits.shape
    ones = np.ones(classes, np.float32)
    for b in numba.prange(frames):
        powers, tempered = np.empty((2, classes), np.float32)
        lanes = np.empty(LANES, np.float32)
        offsets = np.empty(members, np.float32)  # log weight - log of the softmax's denominator
        mean = found[b]
        mean[:] = np.float32(0.0)
        for m in range(members):
            row = logits[m, b]
            top = largest(row, lanes)
            exponentials(row, top, scale, powers, tempered)
            share = weights[m, b] / dot(tempered, ones, lanes)
            offsets[m] = (np.log(share) if share != 0 else -np.inf) - scale * top
            for j in range(classes):
                mean[j] += share * tempered[j]
        for j in range(classes):
            # a comparison that what is no number does not pass: it stays none
            mean[j] = _log_sum(logits[:, b, j], scale, offsets) if mean[j] < _LEAST else np.log(mean[j])


@compiled()
def _log_sum(numbers, scale, offsets):  # type: ignore[no-untyped-def]
    """log of the sum of exp(scale * number + offset)."""
    top = np.float32(-np.inf)
    for m in range(len(numbers)):
        top = max(top, scale * numbers[m] + offsets[m])
    if top == np.float32(-np.inf):
        return top
    total = np.float32(0.0)
    for m in range(len(numbers)):
        total += np.exp(scale * numbers[m] + offsets[m] - top)
    return top + np.log(total)

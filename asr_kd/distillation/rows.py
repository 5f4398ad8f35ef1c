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

from asr_kd.compiled import compiled, use_torchs_threads

_LOG2_E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-126.0)  # power of two; below are denormal numbers
# 2^f for |f| <= 1/2: the Taylor series, off by 1e-7 at most, float32's own rounding
_POWERS = tuple(np.float32(np.log(2.0) ** k / np.prod(np.arange(1, k + 1), dtype=float)) for k in range(7))
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
_LANES = 16  # sums side by side


class RowLosses(torch.autograd.Function):
    """(M, B, C) float32 logits -> (M, B) weighted sum, soft and hard term of every frame; only the sum has a gradient.

    Further arguments: (B, C) float32 natural-log targets, (B,) int64 states, the temperature and the soft weight.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, states: Tensor, temperature: float, soft_weight: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        use_torchs_threads()
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        soft, hard = logits.new_empty(logits.shape[:2]), logits.new_empty(logits.shape[:2])
        _rows(
            logits.detach().contiguous().numpy(),
            targets.numpy(),
            states.numpy(),
            np.float32(temperature),
            np.float32(soft_weight),
            soft.numpy(),
            hard.numpy(),
            gradient.numpy(),
        )
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(soft, hard)
        return soft * soft_weight + hard * (1 - soft_weight), soft, hard

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_outputs[0].unsqueeze(-1), None, None, None, None


@compiled(inline="always")
def _dot(left, right, lanes):  # type: ignore[no-untyped-def]
    """The sum of products in an order of its own: _LANES sums side by side, which run in vector registers."""
    whole = left.size // _LANES * _LANES
    lanes[:] = np.float32(0.0)
    for first in range(0, whole, _LANES):
        for k in range(_LANES):
            lanes[k] += left[first + k] * right[first + k]
    total = np.float32(0.0)
    for k in range(_LANES):
        total += lanes[k]
    for j in range(whole, left.size):
        total += left[j] * right[j]
    return total


@compiled(inline="always")
def _largest(values, lanes):  # type: ignore[no-untyped-def]
    whole = values.size // _LANES * _LANES
    lanes[:] = values[0]
    for first in range(0, whole, _LANES):
        for k in range(_LANES):
            lanes[k] = max(lanes[k], values[first + k])
    top = values[0]
    for k in range(_LANES):
        top = max(top, lanes[k])
    for j in range(whole, values.size):
        top = max(top, values[j])
    return top


@compiled(inline="always")
def _exponentials(values, shift, scale, powers, found):  # type: ignore[no-untyped-def]
    """found[j] = exp(scale * (values[j] - shift)), whose arguments are 0 at most.

    By hand, since a compiler does not run exp() of a library in vector registers: 2^n as a float's bits, times 2^f.
    """
    bits = powers.view(np.int32)
    factor = scale * _LOG2_E
    for j in range(values.size):
        power = max(factor * (values[j] - shift), _LOWEST)
        whole = np.floor(power + np.float32(0.5))
        bits[j] = (np.int32(whole) + _BIAS) << _MANTISSA_BITS
        part = power - whole
        found[j] = _POWERS[0] + part * (
            _POWERS[1]
            + part * (_POWERS[2] + part * (_POWERS[3] + part * (_POWERS[4] + part * (_POWERS[5] + part * _POWERS[6]))))
        )
    for j in range(values.size):
        found[j] *= powers[j]


# no fastmath: it leaves the order of sums to each compilation, and one run would differ from the next in the last bits
@compiled(parallel=True)
def _rows(logits, targets, states, temperature, soft_weight, soft, hard, gradient):  # type: ignore[no-untyped-def]
    members, frames, classes = logits.shape
    one, nothing = np.float32(1.0), np.float32(0.0)
    ones = np.ones(classes, np.float32)
    for b in numba.prange(frames):
        powers, wanted, scratch = np.empty((3, classes), np.float32)
        lanes = np.empty(_LANES, np.float32)
        _exponentials(targets[b], nothing, one, powers, wanted)
        for j in range(classes):
            scratch[j] = max(targets[b, j], np.float32(-1e30))
        negative_entropy = _dot(wanted, scratch, lanes)
        for m in range(members):
            row, slope = logits[m, b], gradient[m, b]
            top = _largest(row, lanes)
            for j in range(classes):
                scratch[j] = row[j] - top
            seen = _dot(wanted, scratch, lanes)
            _exponentials(row, top, one / temperature, powers, slope)
            total = _dot(slope, ones, lanes)
            kl = negative_entropy - seen / temperature + np.log(total)
            soft[m, b] = temperature * temperature * kl
            if temperature == one:
                scratch[:] = slope
                total_hard = total
            else:
                _exponentials(row, top, one, powers, scratch)
                total_hard = _dot(scratch, ones, lanes)
            hard[m, b] = np.log(total_hard) - (row[states[b]] - top)
            scale, share = soft_weight * temperature, one / total
            rest = (one - soft_weight) / total_hard
            for j in range(classes):
                slope[j] = scale * (slope[j] * share - wanted[j]) + rest * scratch[j]
            slope[states[b]] -= one - soft_weight

"""Cross-entropy with hard targets and its gradient, row by row on the CPU, each row of logits while it is in the cache.

torch takes some ten passes over all logits for the same sums, forwards and back. `asr_kd.kernels.distillation`
takes soft targets in the same way, with the sums and exponentials of here.

Shapes:  M members, B frames in a batch, C tied states.

numba does not see that a function it has compiled into another one was changed: after a change of `dot`, `largest`,
`exponentials`, `is_best` or a constant, delete what it keeps of both modules in __pycache__.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_kd.kernels.numba_utils import compiled, use_torchs_threads

LANES = 16  # sums side by side
_LOG2_E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-126.0)  # power of two; below are denormal numbers
# 2^f for |f| <= 1/2: the Taylor series, off by 1e-7 at most, float32's own rounding
_POWERS = tuple(np.float32(np.log(2.0) ** k / np.prod(np.arange(1, k + 1), dtype=float)) for k in range(7))
_LEAST_NORMAL = np.float32(2.0**-126)
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


class FusedCrossEntropy(torch.autograd.Function):
    """(M, B, C) float32 logits -> (M,) sums over frames of weight * cross-entropy, and (M,) numbers of right frames.

    Right is a frame whose state has the largest logit, the first of those where several are as large. Only the
    cross-entropy has a gradient.

    Further arguments: (B,) int64 states and (M, B) float32 weights; a frame of weight 0 is not looked at.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, states: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        check_states(states, logits)
        check_weights(weights, logits)
        use_torchs_threads()
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        entropy, right = logits.new_empty(logits.shape[:2]), logits.new_empty(logits.shape[:2])
        arrays = (logits.detach().contiguous(), states, weights, entropy, right, gradient)
        _rows(*(array.numpy() for array in arrays))
        ctx.save_for_backward(gradient)
        right = right.sum(1)
        ctx.mark_non_differentiable(right)
        return entropy.sum(1), right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return scaled(ctx.saved_tensors[0], of_outputs[0]), None, None


def check_states(states: Tensor, logits: Tensor) -> None:
    """Compiled code would read and write beside its arrays.

    Raises:
      ValueError: a state is not one of the classes, or there is not one for each of the (..., B, C) logits' frames.
    """
    frames, classes = logits.shape[-2:]
    if states.shape != (frames,):
        raise ValueError(f"states are {tuple(states.shape)}, logits {tuple(logits.shape)}")
    if frames and (int(states.min()) < 0 or int(states.max()) >= classes):
        raise ValueError(f"states run from {states.min()} to {states.max()}, of {classes} classes")


def check_weights(weights: Tensor, logits: Tensor) -> None:
    """As `check_states`, for (M, B) weights of (M, B, C) logits."""
    if weights.shape != logits.shape[:2]:
        raise ValueError(f"weights are {tuple(weights.shape)}, logits {tuple(logits.shape)}")


def scaled(gradient: Tensor, of_totals: Tensor) -> Tensor:
    """(M, B, C) of what the (M,) totals say times theirs; without a pass over it where that is 1, as in training."""
    return gradient if bool(of_totals.eq(1).all()) else gradient * of_totals.view(-1, 1, 1)


@compiled(inline="always")
def dot(left, right, lanes):  # type: ignore[no-untyped-def]
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
def largest(values, lanes):  # type: ignore[no-untyped-def]
    """Of a row of one number or more."""
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
def exponentials(values, shift, scale, powers, found):  # type: ignore[no-untyped-def]
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


@compiled(inline="always")
def is_best(row, top, state):  # type: ignore[no-untyped-def]
    """Whether the state's number is the first that is as large as `top`, the row's largest."""
    first = 0
    while first < state and row[first] != top:
        first += 1
    return first == state and row[state] == top


@compiled(inline="always")
def normal(number):  # type: ignore[no-untyped-def]
    """The number, or 0 in place of a denormal one, with which processors are slow."""
    return np.float32(0.0) if abs(number) < _LEAST_NORMAL else number


# no fastmath: it leaves the order of sums to each compilation, and one run would differ from the next in the last bits
@compiled(parallel=True)
def _rows(logits, states, weights, entropy, right, gradient):  # type: ignore[no-untyped-def]
    members, frames, classes = logits.shape
    one = np.float32(1.0)
    ones = np.ones(classes, np.float32)
    for b in numba.prange(frames):
        powers = np.empty(classes, np.float32)
        lanes = np.empty(LANES, np.float32)
        state = states[b]
        for m in range(members):
            row, slope, weight = logits[m, b], gradient[m, b], weights[m, b]
            if weight == np.float32(0.0):
                slope[:] = weight
                entropy[m, b], right[m, b] = weight, weight
                continue
            top = largest(row, lanes)
            exponentials(row, top, one, powers, slope)
            total = dot(slope, ones, lanes)
            entropy[m, b] = weight * (np.log(total) - (row[state] - top))
            right[m, b] = one if is_best(row, top, state) else np.float32(0.0)
            share = weight / total
            for j in range(classes):
                slope[j] = normal(slope[j] * share)
            slope[state] -= weight

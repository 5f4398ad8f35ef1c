"""What follows a hidden layer's product: bias, ReLU, dropout; in bfloat16 on the CPU in one pass each way.

torch takes a pass over all hidden units for each of the three, and four on the way back.

Shapes:  M members, B frames in a batch, H hidden units.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.bfloat16 import bits_of, narrowed, widened
from asr_kd.compiled import compiled, use_torchs_threads

_ROWS = 32  # frames that a thread takes at a time; sums are taken block by block, so that they do not depend on threads


class Activation(torch.autograd.Function):
    """relu(products + bias) * mask.

    Arguments: (M, B, H) bfloat16 products; (M, 1, H) float32 biases; a bfloat16 mask of the products' shape, 0 or
    `kept` in each place, or None; `kept`, above 0, or 1 where there is no mask. Returns (M, B, H) bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, products: Tensor, bias: Tensor, mask: Tensor | None, kept: float) -> Tensor:
        use_torchs_threads()
        products = products.contiguous()
        hidden = torch.empty_like(products)
        masks = np.empty((0, 0, 0), np.uint16) if mask is None else bits_of(mask)
        _forward(bits_of(products), bias.detach().numpy(), masks, bits_of(hidden))
        ctx.save_for_backward(hidden)
        ctx.kept = kept
        return hidden

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        use_torchs_threads()
        (hidden,), gradient = ctx.saved_tensors, of_outputs[0].contiguous()
        of_products = torch.empty_like(gradient)
        members, frames, units = hidden.shape
        sums = np.zeros((members, -(-frames // _ROWS), units), np.float32)
        _backward(bits_of(gradient), bits_of(hidden), np.float32(ctx.kept), bits_of(of_products), sums)
        return of_products, torch.from_numpy(sums.sum(1, keepdims=True)), None, None


@compiled(parallel=True)
def _forward(products, bias, masks, hidden):  # type: ignore[no-untyped-def]
    members, frames, _ = products.shape
    for row in numba.prange(members * frames):
        m, b = row // frames, row % frames
        if masks.size:
            _rectify_masked(products[m, b], bias[m, 0], masks[m, b], hidden[m, b])
        else:
            _rectify(products[m, b], bias[m, 0], hidden[m, b])


@compiled(parallel=True)
def _backward(gradient, hidden, kept, of_products, sums):  # type: ignore[no-untyped-def]
    members, frames, _ = hidden.shape
    blocks = sums.shape[1]
    for part in numba.prange(members * blocks):
        m, block = part // blocks, part % blocks
        for b in range(block * _ROWS, min((block + 1) * _ROWS, frames)):
            _pass_back(gradient[m, b], hidden[m, b], kept, of_products[m, b], sums[m, block])


# of whole arrays, without places in them that could be negative: so they run on vectors


@compiled()
def _above_zero(number):  # type: ignore[no-untyped-def]
    return np.float32(0.0) if number <= 0 else number  # NaN stays NaN, so that a net that diverged shows it


@compiled()
def _rectify(products, bias, hidden):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        hidden[k] = narrowed(_above_zero(widened(products[k]) + bias[k]))


@compiled()
def _rectify_masked(products, bias, mask, hidden):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        hidden[k] = narrowed(_above_zero(widened(products[k]) + bias[k]) * widened(mask[k]))


@compiled()
def _pass_back(gradient, hidden, kept, of_products, sums):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        # a unit is above 0 where its sum is and it was not dropped
        bits = narrowed(widened(gradient[k]) * kept) if hidden[k] else np.uint16(0)
        of_products[k] = bits
        sums[k] += widened(bits)

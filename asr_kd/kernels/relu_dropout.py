"""What follows a hidden layer's product: bias, ReLU, dropout; on the CPU in one pass each way.

torch takes a pass over all hidden units for each of the three, and four on the way back.

Shapes:  M members, B frames in a batch, H hidden units.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_kd.kernels.bfloat16 import as_float32, as_kept, memory_of
from asr_kd.kernels.numba_utils import compiled, use_torchs_threads

_ROWS = 32  # frames that a thread takes at a time; sums are taken block by block, so that they do not depend on threads


class Activation(torch.autograd.Function):
    """relu(products + bias) * mask.

    Arguments: (M, B, H) products, float32 or bfloat16; (M, 1, H) float32 biases; a mask of the products' shape and
    type, 0 or `kept` in each place, or None; `kept`, above 0, or 1 where there is no mask. Returns (M, B, H) of the
    products' type, contiguous.
    """

    @staticmethod
    def forward(ctx: Any, products: Tensor, bias: Tensor, mask: Tensor | None, kept: float) -> Tensor:
        use_torchs_threads()
        hidden = torch.empty_like(products, memory_format=torch.contiguous_format)
        ctx.frame_first = not products.is_contiguous() and products.transpose(0, 1).is_contiguous()
        laid_out = products.transpose(0, 1) if ctx.frame_first else products.contiguous()
        masks = memory_of(hidden[:0] if mask is None else mask)
        _forward(memory_of(laid_out), ctx.frame_first, bias.detach().numpy(), masks, memory_of(hidden))
        ctx.save_for_backward(hidden)
        ctx.kept = kept
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        use_torchs_threads()
        (hidden,), gradient = ctx.saved_tensors, of_outputs[0].contiguous()
        members, frames, units = hidden.shape
        # laid out as the products are: what they came from takes it so without copying it
        of_products = gradient.new_empty((frames, members, units) if ctx.frame_first else hidden.shape)
        sums = np.zeros((members, -(-frames // _ROWS), units), np.float32)
        arrays = memory_of(gradient), memory_of(hidden)
        _backward(*arrays, np.float32(ctx.kept), memory_of(of_products), ctx.frame_first, sums)
        of_products = of_products.transpose(0, 1) if ctx.frame_first else of_products
        return of_products, torch.from_numpy(sums.sum(1, keepdims=True)), None, None


@compiled(parallel=True)
def _forward(products, frame_first, bias, masks, hidden):  # type: ignore[no-untyped-def]
    members, frames, _ = hidden.shape
    for row in numba.prange(members * frames):
        m, b = row // frames, row % frames
        here = products[b, m] if frame_first else products[m, b]
        if masks.size:
            _rectify_masked(here, bias[m, 0], masks[m, b], hidden[m, b])
        else:
            _rectify(here, bias[m, 0], hidden[m, b])


@compiled(parallel=True)
def _backward(gradient, hidden, kept, of_products, frame_first, sums):  # type: ignore[no-untyped-def]
    members, frames, _ = hidden.shape
    blocks = sums.shape[1]
    for part in numba.prange(members * blocks):
        m, block = part // blocks, part % blocks
        for b in range(block * _ROWS, min((block + 1) * _ROWS, frames)):
            here = of_products[b, m] if frame_first else of_products[m, b]
            _pass_back(gradient[m, b], hidden[m, b], kept, here, sums[m, block])


# of whole arrays, without places in them that could be negative: so they run on vectors


@compiled()
def _above_zero(number):  # type: ignore[no-untyped-def]
    return np.float32(0.0) if number <= 0 else number  # NaN stays NaN, so that a net that diverged shows it


@compiled()
def _rectify(products, bias, hidden):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        hidden[k] = as_kept(_above_zero(as_float32(products[k]) + bias[k]), hidden)


@compiled()
def _rectify_masked(products, bias, mask, hidden):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        hidden[k] = as_kept(_above_zero(as_float32(products[k]) + bias[k]) * as_float32(mask[k]), hidden)


@compiled()
def _pass_back(gradient, hidden, kept, of_products, sums):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        number = as_kept(as_float32(gradient[k]) * kept if hidden[k] != 0 else np.float32(0.0), of_products)
        of_products[k] = number
        sums[k] += as_float32(number)

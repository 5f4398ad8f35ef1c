"""What follows a hidden layer's product: bias, ReLU, dropout; in numba in one pass each way.

torch takes a pass over all hidden units for each of the three, and four on the way back.

Shapes:  M members, B frames in a batch, H hidden units.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_kd.kernels.bfloat16 import memory_of
from asr_kd.kernels.numba_utils import compiled, use_torchs_threads
from asr_kd.kernels.switch import use_numba

_ROWS = 32  # frames that a thread takes at a time; sums are taken block by block, so that they do not depend on threads


def relu_dropout(products: Tensor, bias: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """relu(products + bias) * mask, (M, B, H) of the products' type, contiguous.

    Args:
      products: (M, B, H); in numba float32 or bfloat16.
      bias: (M, 1, H) float32.
      mask: (M, B, H) of the products' type, 0 or `scale` in each place; None: no dropout, and `scale` is 1.
      scale: above 0; `dropout_scale` of the mask.
    """
    if use_numba("relu_dropout", products, bfloat16=True) and bias.dtype == torch.float32:
        hidden: Tensor = _ReluDropout.apply(products, bias, mask, scale)
        return hidden
    return torch_relu_dropout(products, bias, mask)


def torch_relu_dropout(products: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
    """The reference of `relu_dropout`."""
    hidden = torch.relu(products + bias.to(products.dtype)).contiguous()
    return hidden if mask is None else hidden * mask


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, products: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        use_torchs_threads()
        hidden = torch.empty_like(products, memory_format=torch.contiguous_format)
        ctx.frame_first = not products.is_contiguous() and products.transpose(0, 1).is_contiguous()
        laid_out = products.transpose(0, 1) if ctx.frame_first else products.contiguous()
        masks = memory_of(hidden[:0] if mask is None else mask.contiguous())
        _forward(memory_of(laid_out), ctx.frame_first, bias.detach().numpy(), masks, memory_of(hidden))
        ctx.save_for_backward(hidden)
        ctx.scale = scale
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        use_torchs_threads()
        (hidden,), gradient = ctx.saved_tensors, of_outputs[0].contiguous()
        members, frames, units = hidden.shape
        # laid out as the products are: their own backward pass need not copy it
        of_products = gradient.new_empty((frames, members, units) if ctx.frame_first else hidden.shape)
        sums = np.zeros((members, -(-frames // _ROWS), units), np.float32)
        arrays = memory_of(gradient), memory_of(hidden)
        _backward(*arrays, np.float32(ctx.scale), memory_of(of_products), ctx.frame_first, sums)
        of_products = of_products.transpose(0, 1) if ctx.frame_first else of_products
        return of_products, torch.from_numpy(sums.sum(1, keepdims=True)), None, None


@compiled()
def _widened(bits):  # type: ignore[no-untyped-def]
    """The float32 of the bits of a bfloat16."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled()
def _narrowed(number):  # type: ignore[no-untyped-def]
    """The bits of the nearest bfloat16 of a float32; ties to even, as torch rounds."""
    if number != number:
        return np.uint16(0x7FC0)  # rounding could carry into the sign
    bits = np.float32(number).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def _as_float32(number):  # type: ignore[no-untyped-def]
    """In compiled code: the float32 of a number of an array that `memory_of` returned."""
    raise NotImplementedError


def _as_stored(number, memory):  # type: ignore[no-untyped-def]
    """In compiled code: a float32 as this array of `memory_of` stores it."""
    raise NotImplementedError


@overload(_as_float32)
def _overload_float32(number):  # type: ignore[no-untyped-def]  # numba wants the signature of what it returns
    return (lambda number: _widened(number)) if number == types.uint16 else (lambda number: number)


@overload(_as_stored)
def _overload_stored(number, memory):  # type: ignore[no-untyped-def]
    if memory.dtype == types.uint16:
        return lambda number, memory: _narrowed(number)
    return lambda number, memory: number


@compiled(parallel=True)
def _forward(products, frame_first, bias, masks, hidden):  # type: ignore[no-untyped-def]
    members, frames, _ = hidden.shape
    for part in numba.prange(members * frames):
        m, b = part // frames, part % frames
        row = products[b, m] if frame_first else products[m, b]
        if masks.size:
            _rectify_masked(row, bias[m, 0], masks[m, b], hidden[m, b])
        else:
            _rectify(row, bias[m, 0], hidden[m, b])


@compiled(parallel=True)
def _backward(gradient, hidden, scale, of_products, frame_first, sums):  # type: ignore[no-untyped-def]
    members, frames, _ = hidden.shape
    blocks = sums.shape[1]
    for part in numba.prange(members * blocks):
        m, block = part // blocks, part % blocks
        for b in range(block * _ROWS, min((block + 1) * _ROWS, frames)):
            row = of_products[b, m] if frame_first else of_products[m, b]
            _pass_back(gradient[m, b], hidden[m, b], scale, row, sums[m, block])


# Loops over whole arrays, without index arithmetic: numba vectorises them because no index can be negative.


@compiled()
def _above_zero(number):  # type: ignore[no-untyped-def]
    return np.float32(0.0) if number <= 0 else number  # NaN stays NaN, so that divergence shows


@compiled()
def _rectify(products, bias, hidden):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        hidden[k] = _as_stored(_above_zero(_as_float32(products[k]) + bias[k]), hidden)


@compiled()
def _rectify_masked(products, bias, mask, hidden):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        hidden[k] = _as_stored(_above_zero(_as_float32(products[k]) + bias[k]) * _as_float32(mask[k]), hidden)


@compiled()
def _pass_back(gradient, hidden, scale, of_products, sums):  # type: ignore[no-untyped-def]
    for k in range(len(hidden)):
        number = _as_stored(_as_float32(gradient[k]) * scale if hidden[k] != 0 else np.float32(0.0), of_products)
        of_products[k] = number
        sums[k] += _as_float32(number)

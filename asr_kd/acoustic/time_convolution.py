"""Convolutions along time for several members side by side, whole or as the product of two narrow ones.

The channels of a frame lie side by side in memory, in layers and in gradients. Convolutions run as two-dimensional
ones of height 1 on them, which oneDNN computes up to twice as fast as one-dimensional ones. The members are groups of
channels.

Shapes:  M members, K chunks, S frames in a layer.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from asr_kd.acoustic.member_linear import bmm
from asr_kd.acoustic.model import member_slice
from asr_kd.kernels.process import cpu_flags


@torch.no_grad()
def initialise_member(weight: Tensor, member: int, members: int, generator: torch.Generator) -> None:
    """Draws a member's (out, in, ...) part of a weight as He et al. (2015) do."""
    part = member_slice(weight, member, members)
    part.normal_(0.0, math.sqrt(2.0 / part[0].numel()), generator=generator)


class TimeConvolution(nn.Module):
    """M convolutions along time, without bias.

    Args:
      shared_inputs: the members get the same channels; else each its own.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        members: int,
        *,
        taps: int,
        dilation: int = 1,
        shared_inputs: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members * num_outputs, num_inputs, 1, taps))
        self._dilation, self._groups = dilation, 1 if shared_inputs else members

    def initialise(self, member: int, members: int, generator: torch.Generator) -> None:
        """Draws the weights of a member."""
        initialise_member(self.weight, member, members, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """(K, S, M * in), or (K, S, in) shared, -> (K, S - (taps - 1) * dilation, M * out)."""
        weight = self.weight.to(inputs.dtype)
        if inputs.device.type == "cpu" and inputs.dtype != torch.bfloat16 and not _has_avx512():
            return _Convolution.apply(inputs, weight, self._dilation, self._groups)
        return _convolved(inputs, weight, self._dilation, self._groups)


@functools.cache
def _has_avx512() -> bool:
    return "avx512f" in cpu_flags()


def _convolved(inputs: Tensor, weight: Tensor, dilation: int, groups: int, padding: int = 0) -> Tensor:
    images = inputs.transpose(1, 2).unsqueeze(2)
    outputs = F.conv2d(images, weight, dilation=(1, dilation), padding=(0, padding), groups=groups)
    return outputs.squeeze(2).transpose(1, 2)


class _Convolution(torch.autograd.Function):
    """The same with gradients of its own, for float32 with AVX2: oneDNN's take a quarter longer there.

    The gradient of the inputs is a convolution of the outputs' gradient with the weights turned round in time; that of
    each tap's weights is one product of matrices for each member. With AVX-512 oneDNN's convolutions are several times
    as fast as such products, so its own gradients stay.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.dilation, ctx.groups = dilation, groups
        return _convolved(inputs, weight, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, weight), (gradient,) = ctx.saved_tensors, output_gradients
        groups, dilation, (outputs, size, _, taps) = ctx.groups, ctx.dilation, weight.shape
        input_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            turned = weight.view(groups, outputs // groups, size, 1, taps).transpose(1, 2).flip(4).flatten(0, 1)
            input_gradient = _convolved(gradient, turned, dilation, groups, padding=(taps - 1) * dilation)
        if ctx.needs_input_grad[1]:
            frames = gradient.shape[1]
            by_group = gradient.reshape(-1, groups, outputs // groups).permute(1, 2, 0)
            products = weight.new_empty(taps, groups, outputs // groups, size)
            for tap in range(taps):
                seen = inputs[:, tap * dilation : tap * dilation + frames].reshape(-1, groups, size)
                products[tap] = bmm(by_group, seen.transpose(0, 1))
            weight_gradient = products.flatten(1, 2).permute(1, 2, 0).reshape(weight.shape)
        return input_gradient, weight_gradient, None, None


class FactoredConvolution(nn.Module):
    """M convolutions over three frames as products of two over two frames, through few channels: TDNN-F.

    `constrain` holds the first one's matrix near a multiple of a semi-orthogonal one (Povey et al. 2018,
    "Semi-orthogonal low-rank matrix factorization for deep neural networks", INTERSPEECH). Nothing lies between the
    two, neither a bias nor a norm nor ReLU: their product is a convolution of low rank.
    """

    def __init__(self, width: int, bottleneck: int, members: int, *, dilation: int) -> None:
        super().__init__()
        self.narrow = TimeConvolution(width, bottleneck, members, taps=2, dilation=dilation)
        self.wide = TimeConvolution(bottleneck, width, members, taps=2, dilation=dilation)
        self._members = members

    def initialise(self, member: int, members: int, generator: torch.Generator) -> None:
        """Draws the weights of a member."""
        self.narrow.initialise(member, members, generator)
        self.wide.initialise(member, members, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """(K, S, M * width) -> (K, S - 2 * dilation, M * width)."""
        return self.wide(self.narrow(inputs))

    @torch.no_grad()
    def constrain(self) -> None:
        """Moves each member's first matrix towards the nearest semi-orthogonal one times any factor."""
        weight = self.narrow.weight
        weight.copy_(nearer_semi_orthogonal(weight.view(self._members, -1, weight[0].numel())).view(weight.shape))


def nearer_semi_orthogonal(matrices: Tensor) -> Tensor:
    """One step towards W W^T = a^2 I, a free: W - (P - a^2 I) W / (2 a^2), P = W W^T, a^2 = tr(P P^T) / tr(P).

    Povey et al. (2018), section 2.2. Repeated, it converges quadratically where the eigenvalues of P are below 5 a^2.
    Those of matrices with normally distributed entries are below 2 a^2, and a training step changes them little.

    Args:
      matrices: (M, R, Q) with R <= Q.

    Returns:
      (M, R, Q).

    >>> matrices = torch.tensor([[[2.0, 0.1], [0.1, 1.8]]])
    >>> for _ in range(4):
    ...     matrices = nearer_semi_orthogonal(matrices)
    >>> products = matrices @ matrices.transpose(1, 2)
    >>> bool(products[0, 0, 1].abs() < 1e-5), bool((products[0, 0, 0] - products[0, 1, 1]).abs() < 1e-5)
    (True, True)
    """
    products = matrices @ matrices.transpose(1, 2)
    traces = products.diagonal(dim1=1, dim2=2).sum(1)
    square = (products.square().sum((1, 2)) / traces.clamp_min(1e-20)).view(-1, 1, 1).clamp_min(1e-20)
    return 1.5 * matrices - 0.5 * (products / square) @ matrices

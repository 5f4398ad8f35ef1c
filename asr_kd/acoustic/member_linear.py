"""Affine maps of several members side by side, and the copies of their weights that training computes with.

Shapes:  M members, B frames in a batch.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn


def bmm(left: Tensor, right: Tensor) -> Tensor:
    """`torch.bmm`; with more members than threads, the last ones alone where they would leave threads idle.

    MKL gives each thread whole products in float32.
    """
    members, threads = len(left), torch.get_num_threads()
    together = members - members % threads
    if left.dtype != torch.float32 or left.device.type != "cpu" or together in (0, members):
        return torch.bmm(left, right)
    products = left.new_empty(members, left.shape[1], right.shape[2])
    torch.bmm(left[:together], right[:together], out=products[:together])
    for member in range(together, members):
        torch.mm(left[member], right[member], out=products[member])
    return products


class _Products(torch.autograd.Function):
    """`torch.bmm`; oneDNN computes its gradient a sixth faster in bfloat16 where the transposed inputs are copied."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return bmm(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (inputs, weight), (gradient,) = ctx.saved_tensors, output_gradients
        input_gradient = bmm(gradient, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        transposed = inputs.transpose(1, 2)
        if transposed.dtype == torch.bfloat16 and transposed.device.type == "cpu":
            transposed = transposed.contiguous()
        return input_gradient, bmm(transposed, gradient) if ctx.needs_input_grad[1] else None


class MemberLinear(nn.Module):
    """M affine maps side by side.

    Args:
      shared_inputs: all members get the same inputs. The weights are laid out (in, M, out) then, as one wide product
        takes them and gives their gradient: else each step would copy them, and their gradient back.

    Attributes:
      shadow: the weight in the number format of the products, which training computes with (`ShadowWeights`).
    """

    def __init__(self, members: int, num_inputs: int, num_outputs: int, *, shared_inputs: bool = False) -> None:
        super().__init__()
        wide = torch.empty(num_inputs, members, num_outputs).transpose(0, 1)
        self.weight = nn.Parameter(wide if shared_inputs else wide.contiguous())
        self.bias = nn.Parameter(torch.zeros(members, 1, num_outputs))
        self.shadow: Tensor | None = None

    @torch.no_grad()
    def initialise(self, member: int, generator: torch.Generator, scale: float) -> None:
        """Draws a member's weights from the normal distribution with standard deviation `scale`."""
        # drawn into a tensor of its own: what is drawn depends on how memory is laid out
        weight = torch.empty(self.weight.shape[1:])
        self.weight[member] = weight.normal_(0.0, scale, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, B, in), or (B, in) that all members share, -> (M, B, out), both in the type of `inputs`."""
        return self.products(inputs).add_(self.bias.to(inputs.dtype))

    def products(self, inputs: Tensor) -> Tensor:
        """The same without the biases."""
        weight = self.shadow if self.shadow is not None and self.training else self.weight.to(inputs.dtype)
        if inputs.dim() == 3:
            return _Products.apply(inputs, weight)
        # one wide product: a batched one would copy the inputs for every member, forwards and backwards
        members, _, outputs = weight.shape
        wide = inputs @ weight.transpose(0, 1).flatten(1)
        return wide.view(-1, members, outputs).transpose(0, 1)


class ShadowWeights:
    """Copies of the weights of `MemberLinear` layers, with which a model trains within the `with` block.

    The copies are in the number format of the products and get the gradients; what changes a weight changes its copy
    too. There are none where the products are in another format than bfloat16, or not on a CPU.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, MemberLinear)]
        self._dtype = dtype
        self.copies: dict[nn.Parameter, Tensor] = {}

    def __enter__(self) -> ShadowWeights:
        if self._dtype == torch.bfloat16:
            for layer in self._layers:
                if layer.weight.device.type == "cpu":
                    layer.shadow = layer.weight.detach().to(self._dtype).requires_grad_()
                    self.copies[layer.weight] = layer.shadow
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the weights again, after they were loaded."""
        for weight, copy in self.copies.items():
            copy.copy_(weight)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for layer in self._layers:
            layer.shadow = None

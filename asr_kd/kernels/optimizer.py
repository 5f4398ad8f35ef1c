"""AdamW (Loshchilov, Hutter 2019); in numba in one pass over memory.

torch 1.13 takes about twenty passes over arrays of the size of the weights (one for each elementary operation), which
cost as much as the matrix products of a step where batches are small. The kernel reads and writes each number once.
Where products run in bfloat16 the same pass reads the bfloat16 gradient and writes the bfloat16 copy of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn

from asr_kd.kernels import compiled
from asr_kd.kernels.switch import use_numba, use_torchs_threads

_TINY = np.float32(1e-36)


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
    copies: Mapping[nn.Parameter, Tensor] | None = None,
) -> torch.optim.Optimizer:
    """AdamW with torch's default betas and eps; its state has the same names in numba and in torch.

    Args:
      parameters: float32 tensors; in numba contiguous, or contiguous with their first two axes swapped.
      copies: of some parameters a copy in the number format of the products, with which the net computes in their
        place: the gradient is taken from the copy, and each step writes both.
    """
    parameters = list(parameters)
    kind = FusedAdamW if use_numba("adamw", *parameters) else TorchAdamW
    return kind(parameters, copies, lr=lr, weight_decay=weight_decay)


class TorchAdamW(torch.optim.AdamW):
    """The reference of `FusedAdamW`: torch's own, with copies as for `adamw`."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], copies: Mapping[nn.Parameter, Tensor] | None = None, **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self._copies = dict(copies or {})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients, those of the copies too."""
        super().zero_grad(set_to_none)
        for copy in self._copies.values():
            copy.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Takes one step with the present gradients."""
        for parameter, copy in self._copies.items():
            parameter.grad = None if copy.grad is None else copy.grad.to(parameter.dtype)
        super().step(closure)
        for parameter, copy in self._copies.items():
            copy.copy_(parameter)


class FusedAdamW(TorchAdamW):
    """The same to rounding, for float32 parameters on the CPU; copies are of bfloat16."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cache: dict[nn.Parameter, tuple[list[int], list[np.ndarray]]] = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state as torch's optimiser does; lays out the moments in memory as the weights are now."""
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = _laid_out_as(parameter, state[name])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Takes one step with the present gradients."""
        assert closure is None, "the training loop computes the loss itself"
        use_torchs_threads()
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                copy = self._copies.get(parameter)
                gradient = parameter.grad if copy is None else copy.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = float(state["step"])
                arrays = self._arrays(parameter, state, copy)
                numbers = (
                    1 - group["lr"] * group["weight_decay"],
                    group["lr"] / (1 - first**count),
                    first,
                    second,
                    (1 - second**count) ** -0.5,
                    group["eps"],
                )
                settings = tuple(map(np.float32, numbers))
                flat = _in_memory(_laid_out_as(parameter, gradient))
                if copy is None:
                    _update(*arrays, flat.numpy(), settings)
                else:
                    _update_with_copy(*arrays, _bits_of(flat), settings)

    def _arrays(self, parameter: nn.Parameter, state: Mapping[str, Tensor], copy: Tensor | None) -> list[np.ndarray]:
        """Weights, moments and the copy's bits as numpy arrays; cached, because to build them takes 0.1 ms."""
        tensors = [parameter, state["exp_avg"], state["exp_avg_sq"]] + ([] if copy is None else [copy])
        places = [tensor.data_ptr() for tensor in tensors]
        cached = self._cache.get(parameter)
        if cached is None or cached[0] != places:
            arrays = [_in_memory(tensor.detach()).numpy() for tensor in tensors[:3]]
            arrays += [_bits_of(_in_memory(tensor)) for tensor in tensors[3:]]
            cached = self._cache[parameter] = (places, arrays)
        return cached[1]


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor itself where it is laid out in memory as the parameter is, else a copy that is."""
    alike = tensor.stride() == parameter.stride() or (tensor.is_contiguous() and parameter.is_contiguous())
    return tensor if alike else torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def _in_memory(tensor: Tensor) -> Tensor:
    """(N,) the tensor's own memory in its order."""
    return tensor.view(-1) if tensor.is_contiguous() else tensor.transpose(0, 1).view(-1)


def _bits_of(tensor: Tensor) -> np.ndarray:
    """The memory of a contiguous bfloat16 tensor as uint16, as numba has no such type; a view."""
    return tensor.detach().view(torch.int16).numpy().view(np.uint16)


@compiled(parallel=True, error_model="numpy")
def _update(weight, mean, square, gradient, settings):  # type: ignore[no-untyped-def]
    for i in numba.prange(weight.size):
        weight[i], mean[i], square[i] = _moved(weight[i], mean[i], square[i], gradient[i], settings)


@compiled(parallel=True, error_model="numpy")
def _update_with_copy(weight, mean, square, copy, gradient, settings):  # type: ignore[no-untyped-def]
    for i in numba.prange(weight.size):
        w, m, s = _moved(weight[i], mean[i], square[i], _widened(gradient[i]), settings)
        weight[i], mean[i], square[i], copy[i] = w, m, s, _narrowed(w)


@compiled(error_model="numpy")
def _moved(weight, mean, square, gradient, settings):  # type: ignore[no-untyped-def]
    decay, rate, first, second, correction, eps = settings
    one, zero = np.float32(1.0), np.float32(0.0)
    m = first * mean + (one - first) * gradient
    s = second * square + (one - second) * gradient * gradient
    # the moments of a weight without gradient (a dead unit, a pixel that is always background) would shrink to
    # denormal numbers, which slow the processor down, and stay there; next to eps they have no effect. NaN stays NaN
    m = zero if abs(m) <= _TINY else m
    s = zero if s <= _TINY else s
    return decay * weight - rate * m / (np.sqrt(s) * correction + eps), m, s


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

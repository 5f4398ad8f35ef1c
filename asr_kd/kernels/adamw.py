"""AdamW (Loshchilov, Hutter 2019) on the CPU in one pass over memory.

torch's own takes about twenty passes over arrays of the size of the weights (one for each elementary operation), which
costs as much as the matrix products of a step where batches are small. Here each number is read and written once. Where
the products run in bfloat16 the same pass takes the gradient as they leave it and writes the weights as they want them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn

from asr_kd.kernels.bfloat16 import bits_of, narrowed, widened
from asr_kd.kernels.numba_utils import compiled, use_torchs_threads

_TINY = np.float32(1e-36)


class FusedAdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW` for float32 parameters on the CPU, to rounding; its state has the same names.

    Args:
      parameters: float32 CPU tensors, contiguous, or so with their first two axes swapped.
      copies: of some parameters a bfloat16 copy that the net computes with in their place: the gradient is taken from
        it, and each step writes both.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        copies: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._copies = dict(copies or {})
        self._seen: dict[nn.Parameter, tuple[list[int], list[np.ndarray]]] = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; what an earlier version wrote may be laid out otherwise than the weights are now."""
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = _laid_out_as(parameter, state[name])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, those of the copies too."""
        super().zero_grad(set_to_none)
        for copy in self._copies.values():
            copy.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Takes one step with the gradients that are there."""
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
                    _update_with_copy(*arrays, bits_of(flat), settings)

    def _arrays(self, parameter: nn.Parameter, state: Mapping[str, Tensor], copy: Tensor | None) -> list[np.ndarray]:
        """Weights, moments and the copy's bits as numpy sees them; kept, as making them anew costs a tenth of a ms."""
        tensors = [parameter, state["exp_avg"], state["exp_avg_sq"]] + ([] if copy is None else [copy])
        places = [tensor.data_ptr() for tensor in tensors]
        known = self._seen.get(parameter)
        if known is None or known[0] != places:
            arrays = [_in_memory(tensor.detach()).numpy() for tensor in tensors[:3]]
            arrays += [bits_of(_in_memory(tensor)) for tensor in tensors[3:]]
            known = self._seen[parameter] = (places, arrays)
        return known[1]


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor itself where its numbers lie in memory as the parameter's do, else a copy that does."""
    alike = tensor.stride() == parameter.stride() or (tensor.is_contiguous() and parameter.is_contiguous())
    return tensor if alike else torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def _in_memory(tensor: Tensor) -> Tensor:
    """(N,), the tensor's own numbers one after the other."""
    return tensor.view(-1) if tensor.is_contiguous() else tensor.transpose(0, 1).view(-1)


@compiled(parallel=True, error_model="numpy")
def _update(weight, mean, square, gradient, settings):  # type: ignore[no-untyped-def]
    for i in numba.prange(weight.size):
        weight[i], mean[i], square[i] = _moved(weight[i], mean[i], square[i], gradient[i], settings)


@compiled(parallel=True, error_model="numpy")
def _update_with_copy(weight, mean, square, copy, gradient, settings):  # type: ignore[no-untyped-def]
    for i in numba.prange(weight.size):
        w, m, s = _moved(weight[i], mean[i], square[i], widened(gradient[i]), settings)
        weight[i], mean[i], square[i], copy[i] = w, m, s, narrowed(w)


@compiled(error_model="numpy")
def _moved(weight, mean, square, gradient, settings):  # type: ignore[no-untyped-def]
    kept, rate, first, second, correction, eps = settings
    one, nothing = np.float32(1.0), np.float32(0.0)
    m = first * mean + (one - first) * gradient
    s = second * square + (one - second) * gradient * gradient
    # the moments of a weight without gradient (a dead unit, a pixel that is always background) would shrink into
    # denormal numbers, with which processors are slow, and stay there; beside eps they have no effect
    m = m if abs(m) > _TINY else nothing
    s = s if s > _TINY else nothing
    return kept * weight - rate * m / (np.sqrt(s) * correction + eps), m, s

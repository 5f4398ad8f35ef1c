"""AdamW (Loshchilov, Hutter 2019) on the CPU in one pass over memory.

torch's own takes about twenty passes over arrays of the size of the weights (one for each elementary operation), which
costs as much as the matrix products of a step where batches are small. Here each number is read and written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numba
import numpy as np
import torch
from torch import nn

from asr_kd.compiled import compiled, use_torchs_threads

_TINY = np.float32(1e-36)


class FusedAdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW` for float32 parameters on the CPU, to rounding; its state has the same names.

    Args:
      parameters: contiguous float32 CPU tensors.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Takes one step with the gradients that are there."""
        assert closure is None, "the training loop computes the loss itself"
        use_torchs_threads()
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = float(state["step"])
                arrays = (parameter, parameter.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"])
                numbers = (
                    1 - group["lr"] * group["weight_decay"],
                    group["lr"] / (1 - first**count),
                    first,
                    second,
                    (1 - second**count) ** -0.5,
                    group["eps"],
                )
                _update(*(a.view(-1).numpy() for a in arrays), *map(np.float32, numbers))


@compiled(parallel=True, error_model="numpy")
def _update(weight, gradient, mean, square, kept, rate, first, second, correction, eps):  # type: ignore[no-untyped-def]
    one, nothing = np.float32(1.0), np.float32(0.0)
    for i in numba.prange(weight.size):
        g = gradient[i]
        m = first * mean[i] + (one - first) * g
        s = second * square[i] + (one - second) * g * g
        # the moments of a weight without gradient (a dead unit, a pixel that is always background) would shrink into
        # denormal numbers, with which processors are slow, and stay there; beside eps they have no effect
        m = m if abs(m) > _TINY else nothing
        s = s if s > _TINY else nothing
        mean[i] = m
        square[i] = s
        weight[i] = kept * weight[i] - rate * m / (np.sqrt(s) * correction + eps)

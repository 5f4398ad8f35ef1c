"""Factors that keep the gradients of float16 products within the range of that format.

Micikevicius et al. (2018), "Mixed precision training", ICLR, section 3.2: the loss is multiplied by a factor before its
gradient is taken, and the gradient divided by it after. Shapes:  M members.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_FIRST = 2.0**16
_INTERVAL = 2000  # steps without overflow after which a factor is doubled


class LossScale:
    """A power of two for each member; nothing changes where products are in another format than float16.

    The gradient of a member that overflows counts as zero in that step, and its factor is halved; after `interval`
    steps without that it is doubled. Members do not depend on each other, and nothing waits for the device.

    Args:
      dtype: of the products.

    >>> scale = LossScale(2, torch.float16, torch.device("cpu"), first=4.0)
    >>> weight = torch.zeros(2, 3, requires_grad=True)
    >>> scale.scaled((weight * torch.tensor([[1.0], [float("inf")]])).sum(1)).sum().backward()
    >>> scale.unscale([weight.grad])
    >>> weight.grad.tolist(), scale.state()[0].tolist()
    ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [4.0, 2.0])
    """

    def __init__(
        self,
        members: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        first: float = _FIRST,
        interval: int = _INTERVAL,
    ) -> None:
        self.active, self._interval = dtype == torch.float16, interval
        self._factors = torch.full((members,), first, device=device)
        self._good_steps = torch.zeros(members, device=device)  # since the factor was last changed

    def scaled(self, loss: Tensor) -> Tensor:
        """(M,) losses -> what the gradient is taken of."""
        return loss * self._factors if self.active else loss

    @torch.no_grad()
    def unscale(self, gradients: Iterable[Tensor | None]) -> None:
        """Divides the gradients in place, which have the members on their first axis; then the factors change."""
        if not self.active:
            return
        members = len(self._factors)
        parts = [gradient.unflatten(0, (members, -1)) for gradient in gradients if gradient is not None]
        finite = torch.stack([torch.isfinite(part.flatten(1)).all(1) for part in parts]).all(0)
        for part in parts:
            shape = (members, *[1] * (part.dim() - 1))
            part.mul_(self._factors.reciprocal().view(shape)).masked_fill_(~finite.view(shape), 0.0)
        self._good_steps = torch.where(finite, self._good_steps + 1, 0.0)
        doubled = self._good_steps >= self._interval
        factors = torch.where(finite, self._factors * (1 + doubled), self._factors / 2)
        self._factors = factors.clamp(1.0, 2.0**24)
        self._good_steps.masked_fill_(doubled, 0.0)

    def state(self) -> Tensor:
        """(2, M): the factors, and the steps since they were last changed."""
        return torch.stack([self._factors, self._good_steps])

    def restore(self, state: Tensor) -> None:
        """Continues from what `state` returned."""
        self._factors, self._good_steps = state.to(self._factors.device).unbind()

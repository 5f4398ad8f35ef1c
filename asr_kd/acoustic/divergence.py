"""Stops a training run whose loss or weights are no longer finite, before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from asr_kd.errors import UserError

_NEVER = torch.iinfo(torch.int64).max


class DivergedError(UserError):
    """A loss or a weight became infinite or NaN."""


class DivergenceWatch:
    """Notes the first step at which the loss of each member is not finite.

    On a CPU `note` raises at once. An accelerator would have to be waited for: there the step is noted on the device,
    and `check`, before a checkpoint and at the end of an epoch, raises.
    """

    def __init__(self, members: int, device: torch.device) -> None:
        self._first_bad = torch.full((members,), _NEVER, dtype=torch.int64, device=device)
        self._rates: dict[int, float] = {}  # by step, since the last check

    def note(self, loss: Tensor, step: int, rate: float) -> None:
        """Looks at the (M,) losses of a step, counted from 0, before its gradient is taken."""
        at_once = _reads_at_once(loss.device)
        if at_once:
            self._rates.clear()
        self._rates[step] = rate
        is_new = ~torch.isfinite(loss.detach()) & (self._first_bad == _NEVER)
        self._first_bad.masked_fill_(is_new, step)
        if at_once:
            self._check_losses()

    def check(self, weights: Iterable[Tensor]) -> None:
        """Raises DivergedError where a loss since the last check, or a weight, is not finite."""
        self._check_losses()
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            step, rate = max(self._rates.items(), default=(-1, 0.0))
            raise DivergedError(f"a weight is not finite after step {step + 1} (learning rate {rate:.3g})")
        self._rates.clear()

    def _check_losses(self) -> None:
        step = int(self._first_bad.min())
        if step != _NEVER:
            member = int(self._first_bad.argmin())
            at = f"step {step + 1} (learning rate {self._rates[step]:.3g})"
            raise DivergedError(f"the loss of model {member} is not finite at {at}")


def _reads_at_once(device: torch.device) -> bool:
    return device.type == "cpu"

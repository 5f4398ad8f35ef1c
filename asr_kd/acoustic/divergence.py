"""Stops a training run whose loss or weights are no longer finite, before anything is made of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from asr_kd.errors import UserError
from asr_kd.kernels.transfer import is_accelerator

_NEVER = torch.iinfo(torch.int64).max


class DivergedError(UserError):
    """A loss or a weight became infinite or NaN."""


@contextlib.contextmanager
def diverged_in(folder: Path, advice: str) -> Iterator[None]:
    """Adds to a DivergedError the folder of the models, and what to do."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"{folder}: training diverged: {error}; {advice}.") from None


class DivergenceWatch:
    """Notes the first step at which the loss of each member is not finite.

    On a CPU `note` raises at once. An accelerator would have to be waited for: there the step is noted on the device,
    and `check`, before a checkpoint and at the end of an epoch, raises.

    Args:
      rate_at: step -> its learning rate, for messages.
    """

    def __init__(self, members: int, device: torch.device, rate_at: Callable[[int], float]) -> None:
        self._first_bad = torch.full((members,), _NEVER, dtype=torch.int64, device=device)
        self._rate_at = rate_at

    def note(self, loss: Tensor, step: int) -> None:
        """Looks at the (M,) losses of a step, counted from 0, before its gradient is taken."""
        is_bad = ~torch.isfinite(loss.detach())
        at_once = not is_accelerator(loss.device)
        if at_once and not bool(is_bad.any()):
            return
        self._first_bad.masked_fill_(is_bad & (self._first_bad == _NEVER), step)
        if at_once:
            self._check_losses()

    def check(self, weights: Iterable[Tensor], steps: int) -> None:
        """Raises DivergedError where a loss so far, or a weight after so many steps, is not finite."""
        self._check_losses()
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise DivergedError(f"a weight is not finite after {self._place(steps - 1)}")

    def _check_losses(self) -> None:
        step = int(self._first_bad.min())
        if step != _NEVER:
            member = int(self._first_bad.argmin())
            raise DivergedError(f"the loss of model {member} is not finite at {self._place(step)}")

    def _place(self, step: int) -> str:
        return f"step {step + 1} (learning rate {self._rate_at(step):.3g})"

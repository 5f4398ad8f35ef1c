"""The random numbers of training steps: dropout masks and shifts, functions of (seed, step) alone."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

_BYTE_VALUES = 256


@functools.cache
def kept_scale(rate: float, dtype: torch.dtype) -> float:
    """What a mask of this rate (in steps of 1/256) and type has where nothing is dropped."""
    return float(torch.tensor(_BYTE_VALUES / (_BYTE_VALUES - round(rate * _BYTE_VALUES)), dtype=dtype))


class StepRng:
    """Random numbers of a training step: a function of (seed, step) alone, so that a resumed run draws them again."""

    def __init__(self, seed: int, step: int, device: torch.device) -> None:
        self._seed, self._step, self._device = seed, step, device

    # made when they are first asked: many steps ask nothing
    @functools.cached_property
    def _numpy(self) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self._seed, self._step]))

    @functools.cached_property
    def _torch(self) -> torch.Generator:
        return torch.Generator(self._device).manual_seed((self._seed << 32) + self._step)

    def mask(self, shape: tuple[int, ...], rate: float, dtype: torch.dtype) -> Tensor:
        """0 with probability `rate` (in steps of 1/256), else 1 / (1 - rate)."""
        dropped = round(rate * _BYTE_VALUES)
        kept = torch.tensor(kept_scale(rate, dtype), dtype=dtype)
        if self._device.type == "cpu":
            from asr_kd.kernels.dropout import fill_dropout  # here: numba takes half a second to load

            mask = torch.empty(shape, dtype=dtype)
            fill_dropout(mask, kept, dropped, key=int(self._numpy.integers(2**64, dtype=np.uint64)))
            return mask
        noise = torch.randint(_BYTE_VALUES, shape, generator=self._torch, device=self._device, dtype=torch.uint8)
        return noise.ge(dropped).to(dtype).mul_(kept.to(self._device))

    def integers(self, shape: tuple[int, ...], end: int) -> Tensor:
        """int64, uniform over 0 up to `end` (exclusive)."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._numpy.integers(0, end, shape))
        return torch.randint(end, shape, generator=self._torch, device=self._device)

"""The random numbers of training steps (dropout, augmentation): functions of (seed, step) alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames.batches import Share
from asr_kd.kernels.dropout import fill_dropout_mask

_OF_MEMBER = 0xD1B54A32D192ED03  # odd: members' keys are far apart


class StepRng:
    """Random numbers of a training step: a function of (seed, step) alone, so that a resumed run draws them again.

    Args:
      share: the part of the batch that this process has, which gets the numbers that it has in the whole one.
    """

    def __init__(self, seed: int, step: int, device: torch.device, share: Share | None = None) -> None:
        self._seed, self._step, self._device, self.share = seed, step, device, share

    # built on first use: many steps draw nothing
    @functools.cached_property
    def _numpy(self) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self._seed, self._step]))

    @functools.cached_property
    def _torch(self) -> torch.Generator:
        return torch.Generator(self._device).manual_seed((self._seed << 32) + self._step)

    def key(self) -> int:
        """64 random bits, which seed what draws by itself."""
        return int(self._numpy.integers(2**64, dtype=np.uint64))

    def masks(self, members: Sequence[int], shape: tuple[int, ...], rate: float, dtype: torch.dtype) -> Tensor:
        """(M, *shape): 0 with probability `rate` (in steps of 1/256), else 1 / (1 - rate).

        Args:
          members: M seeds; the mask of one does not depend on who is trained beside it.
          shape: of a member's; its first axis is that of the chunks, or of their frames.
        """
        key, masks = self.key(), torch.empty((len(members), *shape), dtype=dtype, device=self._device)
        share, first = self.share, 0
        if share is not None and share.chunks:
            first = share.first * (math.prod(shape) // share.chunks)
        for mask, seed in zip(masks, members, strict=True):
            fill_dropout_mask(mask, rate, key=(key + seed * _OF_MEMBER) % 2**64, first=first)
        return masks

    def integers(self, shape: tuple[int, ...], end: int) -> Tensor:
        """int64, uniform over 0 up to `end` (exclusive)."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._numpy.integers(0, end, shape))
        return torch.randint(end, shape, generator=self._torch, device=self._device)

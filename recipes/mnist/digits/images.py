"""Images as frames of the training loop: all of them on the device, shifted differently each time they are seen.

Shapes:  N images in the set, B in a batch, P = 784 pixels, M members, C = 10 classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from asr_kd import FrameModel
from asr_kd.acoustic.model import ensemble_log_mean
from asr_kd.acoustic.rng import StepRng
from asr_kd.frames.source import Context
from digits.data import SIDE, Digits

IMAGES_AT_ONCE = 2000


class Images:
    """Digits as `asr_kd.frames.windows.Windows`: each image is an utterance of one frame, of pixels from 0 to 1."""

    context = Context(0, 0)

    def __init__(self, digits: Digits, device: torch.device) -> None:
        self._pixels = torch.from_numpy(np.array(digits.images)).to(device)
        self.offsets = np.arange(len(digits) + 1)
        self.labels = digits.labels
        self.device = device

    def inputs(self, frames: Tensor, length: int = 1) -> Tensor:
        """(B,) int64 numbers of images -> (B, 1, P) float32."""
        assert length == 1, "an image has one frame"
        return self._pixels.index_select(0, frames.to(self.device)).float().div_(255).unsqueeze(1)

    def batches(self) -> Iterator[Tensor]:
        """All images in order, as inputs of a model."""
        for numbers in torch.arange(len(self.labels)).split(IMAGES_AT_ONCE):
            yield self.inputs(numbers)


class Shift:
    """Moves each image by up to `pixels` in both directions, every shift as likely; what moves in is background."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._padded = torch.empty(0)

    def __call__(self, inputs: Tensor, rng: StepRng) -> Tensor:
        """(B, 1, P) -> (B, 1, P)."""
        steps: Tensor = rng.integers((len(inputs), 2), 2 * self.pixels + 1).sub(self.pixels)
        return self.by(inputs, steps)

    def by(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Moves image b of (B, 1, P) by steps[b] = (down, right), int64 within +-pixels."""
        reach, side = 2 * self.pixels + 1, SIDE + 2 * self.pixels
        padded = self._padded
        if padded.shape != (len(inputs), side, side) or (padded.dtype, padded.device) != (inputs.dtype, inputs.device):
            # reused from batch to batch: the border around the images stays background
            padded = self._padded = inputs.new_zeros(len(inputs), side, side)
        padded[:, self.pixels : -self.pixels or None, self.pixels : -self.pixels or None] = inputs.view(-1, SIDE, SIDE)
        # one view that holds every shifted copy, of which one is gathered: image, corner's row and column, row, column
        views = padded.as_strided((len(inputs), reach, reach, SIDE, SIDE), (side * side, side, 1, side, 1))
        corners: Tensor = steps.neg().add(self.pixels)
        moved = views[torch.arange(len(inputs), device=inputs.device), corners[:, 0], corners[:, 1]]
        return moved.reshape(inputs.shape)

    def every(self) -> Tensor:
        """(S, 2) int64: all shifts."""
        reach = torch.arange(-self.pixels, self.pixels + 1)
        return torch.cartesian_prod(reach, reach)


@torch.no_grad()
def log_posteriors(model: FrameModel, images: Images) -> Tensor:
    """(M, N, C) float32 on the CPU."""
    return torch.cat([model(inputs).log_softmax(-1).cpu() for inputs in images.batches()], dim=1)


@torch.no_grad()
def tempered_mean(model: FrameModel, images: Images, temperature: float, shift: Shift | None = None) -> Tensor:
    """(N, C) float32 log of the members' mean distribution at a temperature; with `shift` also the mean over shifts."""
    steps = torch.zeros(1, 2, dtype=torch.int64) if shift is None else shift.every()
    parts = []
    for inputs in images.batches():
        views = []
        for step in steps.to(inputs.device):
            view = inputs if shift is None else shift.by(inputs, step.expand(len(inputs), 2))
            views.append(model(view).div(temperature).log_softmax(-1))
        parts.append(ensemble_log_mean(torch.cat(views)).cpu())
    return torch.cat(parts)


def errors(posteriors: Tensor | np.ndarray, labels: np.ndarray) -> list[int]:
    """(M, N, C) log posteriors -> how many images each member gets wrong."""
    decided = np.asarray(posteriors).argmax(-1)
    return [int(count) for count in (decided != labels).sum(-1)]

"""Images as the training loop's examples: all of them on the device, shifted anew each time they are seen.

Shapes:  N images in the set, B in a batch, P = 784 pixels, M members, C = 10 classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.inference import ensemble_log_mean
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.rng import StepRng
from asr_kd.mnist.data import SIDE, Digits

IMAGES_AT_ONCE = 2000


class Images:
    """`asr_kd.acoustic.training.Examples` of digits: pixels from 0 to 1."""

    def __init__(self, digits: Digits, device: torch.device) -> None:
        self._pixels = torch.from_numpy(np.array(digits.images)).to(device)
        self.num_frames, self.num_inputs = self._pixels.shape
        self.labels = digits.labels
        self.device = device

    def inputs(self, frames: Tensor) -> Tensor:
        """(B,) int64 numbers of images -> (B, P) float32."""
        return self._pixels.index_select(0, frames).float().div_(255)


class Shift:
    """Moves each image by up to `pixels` in both directions, every shift as likely; what moves in is background."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._padded = torch.empty(0)

    def __call__(self, inputs: Tensor, noise: StepRng) -> Tensor:
        """(B, P) -> (B, P)."""
        steps: Tensor = noise.integers((len(inputs), 2), 2 * self.pixels + 1).sub(self.pixels)
        return self.by(inputs, steps)

    def by(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Moves image b by steps[b] = (down, right), int64 within +-pixels."""
        reach, side = 2 * self.pixels + 1, SIDE + 2 * self.pixels
        padded = self._padded
        if padded.shape != (len(inputs), side, side) or (padded.dtype, padded.device) != (inputs.dtype, inputs.device):
            # kept from batch to batch: what is around the images stays background
            padded = self._padded = inputs.new_zeros(len(inputs), side, side)
        padded[:, self.pixels : -self.pixels or None, self.pixels : -self.pixels or None] = inputs.view(-1, SIDE, SIDE)
        # one view that holds every shifted copy, of which one is gathered: image, corner's row and column, row, column
        views = padded.as_strided((len(inputs), reach, reach, SIDE, SIDE), (side * side, side, 1, side, 1))
        corners: Tensor = steps.neg().add(self.pixels)
        moved = views[torch.arange(len(inputs), device=inputs.device), corners[:, 0], corners[:, 1]]
        return moved.reshape(len(inputs), -1)

    def every(self) -> Tensor:
        """(S, 2) int64: all shifts."""
        reach = torch.arange(-self.pixels, self.pixels + 1)
        return torch.cartesian_prod(reach, reach)


@torch.no_grad()
def log_posteriors(model: AcousticModel, images: Images) -> Tensor:
    """(M, N, C) float32 on the CPU."""
    numbers = torch.arange(images.num_frames, device=images.device).split(IMAGES_AT_ONCE)
    return torch.cat([model.log_probabilities(images.inputs(part)).cpu() for part in numbers], dim=1)


@torch.no_grad()
def tempered_mean(model: AcousticModel, images: Images, temperature: float, shift: Shift | None = None) -> Tensor:
    """(N, C) float32 log of the members' mean distribution at a temperature; with `shift` also the mean over shifts."""
    steps = torch.zeros(1, 2, dtype=torch.int64) if shift is None else shift.every()
    parts = []
    for numbers in torch.arange(images.num_frames, device=images.device).split(IMAGES_AT_ONCE):
        inputs = images.inputs(numbers)
        views = []
        for step in steps.to(inputs.device):
            moved = inputs if shift is None else shift.by(inputs, step.expand(len(inputs), 2))
            views.append(model(moved).div(temperature).log_softmax(-1))
        parts.append(ensemble_log_mean(torch.cat(views)).cpu())
    return torch.cat(parts)


def errors(posteriors: Tensor | np.ndarray, labels: np.ndarray) -> list[int]:
    """(M, N, C) log posteriors -> how many images each member gets wrong."""
    decided = np.asarray(posteriors).argmax(-1)
    return [int(count) for count in (decided != labels).sum(-1)]

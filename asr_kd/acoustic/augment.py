"""Altered copies of the frames in each training step: SpecAugment (Park et al. 2019).

Shapes:  K chunks of S frames, context included, D dimensions of a frame.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import AugmentConfig
from asr_kd.kernels.transfer import on_device

Augment = Callable[[Tensor, StepRng], Tensor]  # (K, S, D) inputs -> altered ones of the same shape


class SpecAugment:
    """Masks of the settings, drawn for each chunk of a batch (an `Augment`).

    What is masked becomes 0, the mean of normalised frames. The masks are a function of the seed and the step, the same
    on every device.

    >>> masked = SpecAugment(AugmentConfig(freq_masks=1, freq_width=3))
    >>> inputs = torch.ones(2, 5, 40)
    >>> outputs = masked(inputs, StepRng(seed=1, step=0, device=inputs.device))
    >>> outputs.shape, bool((outputs.sum(2) >= 37).all())
    (torch.Size([2, 5, 40]), True)
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config

    def __call__(self, inputs: Tensor, rng: StepRng) -> Tensor:
        """(K, S, D) normalised frames -> the same with masks, in new memory."""
        own, frames, dims = inputs.shape
        chunks = rng.share.of_all if rng.share else own
        config, key = self._config, rng.key()
        run = min(config.time_width, int(config.time_share * frames))
        # torchaudio draws from torch's global generator, which others may use too
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key)
            # factors of 0 and 1: to mask the inputs themselves copies them once for every mask
            bands = _masked(torch.ones(chunks, 1, dims), config.freq_masks, min(config.freq_width, dims), axis=3)
            runs = _masked(torch.ones(chunks, frames, 1), config.time_masks, run, axis=2)
        if rng.share:  # the masks that its chunks have in the whole batch
            first = min(rng.share.first, chunks - own)
            bands, runs = bands[first : first + own], runs[first : first + own]
        device = inputs.device
        altered = inputs * on_device(bands, device)
        return altered.mul_(on_device(runs, device)) if config.time_masks else altered


def _masked(factors: Tensor, count: int, width: int, *, axis: int) -> Tensor:
    """(K, S, D) factors, of which runs along an axis (2: frames, 3: dimensions) of up to `width` become 0."""
    factors = factors.unsqueeze(1)  # torchaudio counts axes with one for channels
    for _ in range(count):
        factors = mask_along_axis_iid(factors, width + 1, 0.0, axis)  # draws widths below its bound
    return factors.squeeze(1)


def in_turn(*steps: Augment | None) -> Augment | None:
    """Returns an alteration that applies all of these, one after the other; None where there are none."""
    chosen = [step for step in steps if step is not None]
    if not chosen:
        return None

    def apply(inputs: Tensor, rng: StepRng) -> Tensor:
        for step in chosen:
            inputs = step(inputs, rng)
        return inputs

    return apply

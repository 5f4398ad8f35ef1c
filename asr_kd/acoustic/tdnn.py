"""The residual time-delay net (TDNN): convolutions along time, whose work neighbouring frames share.

A convolution over `kernel` frames, then blocks x -> scale * x + dropout(relu(norm(conv(x)))) with dilated convolutions
over three frames (Waibel et al. 1989; Peddinti, Povey, Khudanpur 2015), then softmax over the senones. A front end of
convolutions over time and frequency may come first; the blocks' convolutions may be factored (Povey et al. 2018).
Nothing is padded between layers: L frames and their context go in, L come out, and chunks of any length get the same
logits for the same frame.

Shapes:  M members, K chunks of L frames, S frames in a layer, D dimensions of a frame, H channels, C senones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.acoustic.member_linear import MemberLinear
from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.ranks import ALONE
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import TdnnConfig
from asr_kd.acoustic.time_convolution import FactoredConvolution, TimeConvolution, initialise_member

_TAPS = 3  # frames that a block's convolution sees
EPSILON = 1e-5  # added to variances


class Tdnn(FrameModel):
    """See `FrameModel`. It is trained on chunks of `settings.chunk_frames` frames.

    Batch normalisation takes its statistics from all frames of a batch, those of the context among them. A chunk of an
    utterance that is shorter than `chunk_frames` repeats the last frame, which counts in these statistics (but not in
    the loss).
    """

    settings: TdnnConfig

    def __init__(self, settings: TdnnConfig, *, num_dims: int, num_senones: int, seeds: Sequence[int]) -> None:
        super().__init__(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds)
        members, width = self.members, settings.width
        front = settings.front.channels
        self.front = _Front(front, num_dims, members, settings.norm) if front else None
        num_inputs = num_dims if self.front is None else self.front.num_outputs
        self.input = TimeConvolution(num_inputs, width, members, taps=settings.kernel, shared_inputs=self.front is None)
        self.input_norm = _norm(settings.norm, width, members)
        self.blocks = nn.ModuleList(_block(settings, members, dilation) for dilation in settings.dilations)
        self.norms = nn.ModuleList(_norm(settings.norm, width, members) for _ in settings.dilations)
        self.output = MemberLinear(members, width, num_senones)
        for member, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            if self.front is not None:
                self.front.initialise(member, generator)
            for convolution in (self.input, *self.blocks):
                convolution.initialise(member, members, generator)
            self.output.initialise(member, generator, 0.1 * math.sqrt(2.0 / width))

    def forward(self, frames: Tensor, rng: StepRng | None = None) -> Tensor:
        """See `FrameModel.forward`."""
        settings, chunks = self.settings, len(frames)
        inputs = frames.to(self.compute_dtype)
        inputs = inputs if self.front is None else self.front(inputs)
        hidden = self.input_norm(self.input(inputs))  # (K, S, M * H)
        for convolution, norm, dilation in zip(self.blocks, self.norms, settings.dilations, strict=True):
            new = norm(convolution(hidden))
            if rng is not None and settings.dropout:
                masks = rng.masks(self.seeds, (chunks, settings.width), settings.dropout, new.dtype)
                new = new * masks.transpose(0, 1).reshape(chunks, 1, -1)
            hidden = new.add(hidden[:, dilation:-dilation], alpha=settings.residual_scale)
        # (K, L, M * H) -> (M, K * L, H)
        return self.output(hidden.reshape(-1, self.members, settings.width).transpose(0, 1)).float()

    @property
    def products_per_frame(self) -> int:
        """See `FrameModel`: the weights of the front end are used in each band of frequencies."""
        if self.front is None:
            return super().products_per_frame
        weights = sum(weight.numel() for weight in self.front.weights) // self.members
        return super().products_per_frame - weights + self.front.products_per_frame

    def apply_constraints(self) -> None:
        """See `FrameModel`: those of factored convolutions."""
        for block in self.blocks:
            if isinstance(block, FactoredConvolution):
                block.constrain()


def _block(settings: TdnnConfig, members: int, dilation: int) -> nn.Module:
    width = settings.width
    if settings.bottleneck:
        return FactoredConvolution(width, settings.bottleneck, members, dilation=dilation)
    return TimeConvolution(width, width, members, taps=_TAPS, dilation=dilation)


class _Front(nn.Module):
    """Convolutions over three frames and three bands of frequencies; each after the first has half the bands.

    Beyond the lowest and the highest band there are zeros, the mean.
    """

    def __init__(self, channels: Sequence[int], num_dims: int, members: int, norm: str) -> None:
        super().__init__()
        self._members, sizes = members, [1, *channels]
        self.weights = nn.ParameterList(
            torch.empty(members * after, before, _TAPS, _TAPS) for before, after in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(_norm(norm, size, members) for size in channels)
        self.bands = [num_dims]  # of the inputs, and after each convolution
        for number in range(len(channels)):
            self.bands.append(self.bands[-1] if number == 0 else -(-self.bands[-1] // 2))
        self.num_outputs = self.bands[-1] * channels[-1]

    @property
    def products_per_frame(self) -> int:
        """Multiplications of a member for a frame."""
        weights = zip(self.weights, self.bands[1:], strict=True)
        return sum(weight.numel() // self._members * bands for weight, bands in weights)

    def initialise(self, member: int, generator: torch.Generator) -> None:
        """Draws the weights of a member."""
        for weight in self.weights:
            initialise_member(weight, member, self._members, generator)

    def forward(self, frames: Tensor) -> Tensor:
        """(K, S, D) -> (K, S - 2 * convolutions, M * num_outputs)."""
        images = frames.unsqueeze(1)  # (K, M * channels, S, bands), channels last in memory
        for number, (weight, norm) in enumerate(zip(self.weights, self.norms, strict=True)):
            stride, groups = (1, 2 if number else 1), self._members if number else 1
            images = F.conv2d(images, weight.to(images.dtype), stride=stride, padding=(0, 1), groups=groups)
            images = norm(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        chunks, channels, length, bands = images.shape
        by_member = images.view(chunks, self._members, channels // self._members, length, bands)
        return by_member.permute(0, 3, 1, 4, 2).reshape(chunks, length, self._members * self.num_outputs)


def _norm(kind: str, width: int, members: int) -> nn.Module:
    # with ReLU, which may alter what only it has seen: a pass over memory less
    return _BatchNorm(width * members) if kind == "batch" else _LayerNorm(width, members)


class _BatchNorm(nn.Module):
    """Each channel of each member has mean 0 and variance 1 over a batch's frames; a scale, an offset, then ReLU.

    Attributes:
      ranks: the processes over whose parts of the batch the statistics are taken.
    """

    running_mean: Tensor
    running_var: Tensor
    ranks = ALONE

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., M * H) -> the same shape."""
        statistics, frames = (self.running_mean, self.running_var), inputs.reshape(-1, inputs.shape[-1])
        if self.training and not self.ranks.alone:
            return self._of_all_ranks(frames).relu_().view(inputs.shape)
        normed = F.batch_norm(frames, *statistics, self.weight, self.bias, self.training, momentum=0.1, eps=EPSILON)
        return normed.relu_().view(inputs.shape)

    def _of_all_ranks(self, frames: Tensor) -> Tensor:
        """(frames, M * H) normalised by the statistics of all processes (torch's own synchronised norm needs a GPU)."""
        exact, weight = frames.float(), float(self.ranks.counts)
        sums = self.ranks.sum(torch.cat([exact.sum(0), exact.new_full((1,), len(frames))]).mul(weight))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = exact - mean
        variance = self.ranks.sum(centred.square().sum(0).mul(weight)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.1)
            self.running_var.lerp_(variance * (count / (count - 1).clamp_min(1.0)), 0.1)
        normed = centred * torch.rsqrt(variance + EPSILON) * self.weight + self.bias
        return normed.to(frames.dtype)


class _LayerNorm(nn.Module):
    """The channels of a frame of a member have mean 0 and variance 1; a scale and an offset of each, then ReLU."""

    def __init__(self, width: int, members: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(members, width)), nn.Parameter(torch.zeros(members, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., M * H) -> the same shape."""
        by_member = inputs.reshape(*inputs.shape[:-1], *self.weight.shape)
        normed = F.layer_norm(by_member, self.weight.shape[-1:], eps=EPSILON)
        return (normed * self.weight.to(normed.dtype) + self.bias.to(normed.dtype)).relu_().view(inputs.shape)

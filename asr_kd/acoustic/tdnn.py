"""The residual time-delay net (TDNN): convolutions along time, whose work neighbouring frames share.

A convolution over the first `kernel` frames, then blocks x -> scale * x + dropout(relu(norm(conv(x)))) with dilated
convolutions over three frames (Waibel et al. 1989; Peddinti, Povey, Khudanpur 2015), then softmax over the senones.
Nothing is padded between layers: L frames and their context go in, L come out, and chunks of any length get the same
logits for the same frame.

Convolutions run as two-dimensional ones of height 1 with channels last, which oneDNN computes up to twice as fast as
one-dimensional ones. The members are groups of channels.

Shapes:  M members, K chunks of L frames, S frames in a layer, D dimensions of a frame, H channels, C senones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.acoustic.member_linear import MemberLinear
from asr_kd.acoustic.model import FrameModel, member_slice
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import TdnnConfig

_TAPS = 3  # frames that a block's convolution sees
_EPSILON = 1e-5  # added to variances


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
        self.input = _TimeConvolution(num_dims, width, members, taps=settings.kernel, shared_inputs=True)
        self.input_norm = _norm(settings.norm, width, members)
        self.blocks = nn.ModuleList(
            _TimeConvolution(width, width, members, taps=_TAPS, dilation=dilation) for dilation in settings.dilations
        )
        self.norms = nn.ModuleList(_norm(settings.norm, width, members) for _ in settings.dilations)
        self.output = MemberLinear(members, width, num_senones)
        for member, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for convolution in (self.input, *self.blocks):
                convolution.initialise(member, members, generator)
            self.output.initialise(member, generator, 0.1 * math.sqrt(2.0 / width))

    def forward(self, frames: Tensor, rng: StepRng | None = None) -> Tensor:
        """See `FrameModel.forward`."""
        settings, chunks = self.settings, len(frames)
        inputs = frames.to(self.compute_dtype).transpose(1, 2).unsqueeze(2)  # (K, D, 1, S), channels last
        hidden = torch.relu(self.input_norm(self.input(inputs)))
        for convolution, norm, dilation in zip(self.blocks, self.norms, settings.dilations, strict=True):
            new = torch.relu(norm(convolution(hidden)))
            if rng is not None and settings.dropout:
                new = new * rng.mask((chunks, new.shape[1], 1, 1), settings.dropout, new.dtype)
            hidden = new.add(hidden[..., dilation:-dilation], alpha=settings.residual_scale)
        # (K, M * H, 1, L) -> (M, K * L, H)
        hidden = hidden.permute(0, 2, 3, 1).reshape(-1, self.members, settings.width).transpose(0, 1)
        return self.output(hidden).float()


class _TimeConvolution(nn.Module):
    """M convolutions along time, without bias.

    Args:
      shared_inputs: the members get the same channels; else each its own.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        members: int,
        *,
        taps: int,
        dilation: int = 1,
        shared_inputs: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members * num_outputs, num_inputs, 1, taps))
        self._dilation, self._groups = dilation, 1 if shared_inputs else members

    @torch.no_grad()
    def initialise(self, member: int, members: int, generator: torch.Generator) -> None:
        """He et al. (2015)."""
        weight = member_slice(self.weight, member, members)
        weight.normal_(0.0, math.sqrt(2.0 / weight[0].numel()), generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """(K, M * in, 1, S), or (K, in, 1, S) shared, -> (K, M * out, 1, S - (taps - 1) * dilation)."""
        weight = self.weight.to(inputs.dtype)
        return F.conv2d(inputs, weight, dilation=(1, self._dilation), groups=self._groups)


def _norm(kind: str, width: int, members: int) -> nn.Module:
    return _BatchNorm(width * members) if kind == "batch" else _LayerNorm(width, members)


class _BatchNorm(nn.Module):
    """Each channel of each member has mean 0 and variance 1 over the frames of a batch, then a scale and an offset."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """(K, M * H, 1, S) -> the same shape."""
        statistics = self.running_mean, self.running_var
        return F.batch_norm(inputs, *statistics, self.weight, self.bias, self.training, momentum=0.1, eps=_EPSILON)


class _LayerNorm(nn.Module):
    """The channels of a frame of a member have mean 0 and variance 1, then a scale and an offset each."""

    def __init__(self, width: int, members: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(members, width)), nn.Parameter(torch.zeros(members, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """(K, M * H, 1, S) -> the same shape."""
        channels = inputs.permute(0, 2, 3, 1)
        by_member = channels.reshape(*channels.shape[:-1], *self.weight.shape)
        normed = F.layer_norm(by_member, self.weight.shape[-1:], eps=_EPSILON)
        scaled = normed * self.weight.to(normed.dtype) + self.bias.to(normed.dtype)
        return scaled.reshape(channels.shape).permute(0, 3, 1, 2)

"""The fully connected model: a window of frames in, hidden layers of ReLUs, softmax over the senones.

Shapes:  M members, K chunks of L frames, W frames of a window, D dimensions of a frame, H hidden units, C senones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from asr_kd.acoustic.lda import InputTransform
from asr_kd.acoustic.member_linear import MemberLinear
from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import DnnConfig


class Dnn(FrameModel):
    """See `FrameModel`. Single frames are drawn in training (L = 1); each is labelled from its own window.

    Args:
      transform: of the W * D numbers of a window, in float32, to what the first layer takes while the model is trained;
        it is no part of the state, and `fold_input_transform` takes it into the first layer.
    """

    settings: DnnConfig
    _weight: Tensor | None  # of the transform
    _offset: Tensor | None

    def __init__(
        self,
        settings: DnnConfig,
        *,
        num_dims: int,
        num_senones: int,
        seeds: Sequence[int],
        transform: InputTransform | None = None,
    ) -> None:
        super().__init__(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds)
        self.register_buffer("_weight", None if transform is None else transform.weight, persistent=False)
        self.register_buffer("_offset", None if transform is None else transform.offset, persistent=False)
        num_inputs = self.context.width * num_dims if transform is None else transform.weight.shape[1]
        sizes = [num_inputs] + [settings.width] * settings.layers + [num_senones]
        self.layers = nn.ModuleList(
            MemberLinear(self.members, before, after, shared_inputs=number == 0 and not settings.input_dropout)
            for number, (before, after) in enumerate(itertools.pairwise(sizes))
        )
        for member, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for layer in self.layers:
                # He et al. (2015); the output layer starts near the uniform distribution
                scale = 0.1 if layer is self.layers[-1] else 1.0
                layer.initialise(member, generator, scale * math.sqrt(2.0 / layer.weight.shape[1]))

    @property
    def _transform(self) -> InputTransform | None:
        return None if self._weight is None or self._offset is None else InputTransform(self._weight, self._offset)

    def forward(self, frames: Tensor, rng: StepRng | None = None) -> Tensor:
        """See `FrameModel.forward`."""
        dtype, transform, rate = self.compute_dtype, self._transform, self.settings.hidden_dropout
        inputs = _windows(frames, self.context.width)
        hidden = (inputs if transform is None else inputs @ transform.weight - transform.offset).to(dtype)
        if rng is not None and self.settings.input_dropout:
            hidden = hidden * rng.masks(self.seeds, tuple(hidden.shape[-2:]), self.settings.input_dropout, dtype)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden)).contiguous()  # the products of the next layer take it so
            if rng is not None and rate:
                hidden = hidden * rng.masks(self.seeds, tuple(hidden.shape[1:]), rate, dtype)
        return self.layers[-1](hidden).float()

    def _options(self) -> dict[str, InputTransform | None]:
        return {"transform": self._transform}

    @torch.no_grad()
    def fold_input_transform(self) -> Dnn:
        """The same map without a transform: as one affine map with the first layer, computed in float64."""
        transform = self._transform
        if transform is None:
            return self
        settings = replace(self.settings, lda_dims=0)
        model = Dnn(settings, num_dims=self.num_dims, num_senones=self.num_senones, seeds=self.seeds)
        state = self.state_dict()
        weight, bias = state["layers.0.weight"].double(), state["layers.0.bias"].double()
        map_, offset = transform.weight.double(), transform.offset.double()
        # member by member: what one becomes does not depend on the others
        state["layers.0.weight"] = torch.stack([map_ @ of_member for of_member in weight])
        state["layers.0.bias"] = bias - torch.stack([(offset @ of_member)[None] for of_member in weight])
        model.load_state_dict(state)
        model.precision = self.precision
        return model.to(self.device).eval()

    @torch.no_grad()
    def apply_constraints(self) -> None:
        """See `FrameModel`: each hidden unit's incoming weights are scaled back onto the ball where they left it."""
        limit = self.settings.max_norm
        if not limit:
            return
        for layer in self.layers[:-1]:
            norms = layer.weight.norm(dim=1, keepdim=True)
            layer.weight.mul_((limit / norms.clamp_min(1e-12)).clamp_max(1.0))
            if layer.shadow is not None:
                layer.shadow.copy_(layer.weight)


def _windows(frames: Tensor, width: int) -> Tensor:
    """(K, L + W - 1, D) -> (K * L, W * D): the window of each frame; for L = 1 without a copy."""
    if frames.shape[1] == width:
        return frames.reshape(len(frames), -1)
    chunks, rows, dims = frames.shape
    strides = (rows * dims, dims, 1)
    windows = frames.contiguous().as_strided((chunks, rows - width + 1, width * dims), strides)
    return windows.reshape(-1, width * dims)

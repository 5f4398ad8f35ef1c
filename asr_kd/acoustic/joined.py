"""Models of different kinds, contexts and sizes as one ensemble, whose members are all of theirs.

Shapes:  M members of all parts, K chunks of L frames, D dimensions of a frame, C senones.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import ModelConfig
from asr_kd.frames.source import Context


class JoinedModels(FrameModel):
    """See `FrameModel`: for running, not for training. Each part has its own precision.

    >>> from asr_kd.acoustic.model import build_model
    >>> from asr_kd.acoustic.settings import DnnConfig, TdnnConfig
    >>> kinds = DnnConfig(left_context=20, right_context=5), TdnnConfig(dilations=(1, 2))
    >>> ensemble = JoinedModels([build_model(kind, num_dims=40, num_senones=100, seeds=[1, 2]) for kind in kinds])
    >>> ensemble.context, ensemble(torch.zeros(8, 20 + 1 + 5, 40)).shape
    (Context(left=20, right=5), torch.Size([4, 8, 100]))

    Args:
      parts: at least one, of the same dimensions and senones; their members are numbered in this order.

    Raises:
      ValueError: no part, or parts whose dimensions or senones differ.
    """

    def __init__(self, parts: Sequence[FrameModel]) -> None:
        sizes = {(part.num_dims, part.num_senones) for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"models of one ensemble must have the same dimensions and senones, not {sorted(sizes)}")
        seeds = [seed for part in parts for seed in part.seeds]
        num_dims, num_senones = sizes.pop()
        super().__init__(ModelConfig(kind="joined"), num_dims=num_dims, num_senones=num_senones, seeds=seeds)
        self.parts = nn.ModuleList(parts)
        self._context = functools.reduce(operator.or_, [part.context for part in parts])

    def forward(self, frames: Tensor, rng: StepRng | None = None) -> Tensor:
        """See `FrameModel.forward`; each part sees its own context of the frames."""
        return torch.cat([part(frames[:, part.context.frames_within(self._context)], rng) for part in self.models])

    @property
    def models(self) -> list[FrameModel]:
        """The parts."""
        return list(self.parts)

    @property
    def context(self) -> Context:
        """The smallest that has the frames of all parts."""
        return self._context

    @property
    def member_parameters(self) -> list[int]:
        """See `FrameModel.member_parameters`."""
        return [count for part in self.models for count in part.member_parameters]

    def select_members(self, members: Sequence[int]) -> FrameModel:
        """See `FrameModel.select_members`; members of a single part are a model of its kind and context."""
        places = [(number, k) for number, part in enumerate(self.models) for k in range(part.members)]
        runs = groupby((places[member] for member in members), key=lambda place: place[0])
        parts = [self.models[number].select_members([k for _, k in run]) for number, run in runs]
        return parts[0] if len(parts) == 1 else JoinedModels(parts).eval()

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Raises ValueError: a state is of one kind of model; each part has its own."""
        raise ValueError("models of several kinds have no state in common; use that of each of the parts")

"""Labelled points in memory, in place of windows of speech, and one sequence of frames whose labels lie in its past."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.model import FrameModel, build_model
from asr_kd.acoustic.settings import DnnConfig
from asr_kd.frames.source import Context

CPU = torch.device("cpu")


class Points:
    """Single frames without context (`asr_kd.frames.windows.Windows`)."""

    context = Context(0, 0)

    def __init__(self, num_frames: int = 200, dims: int = 6, senones: int = 4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, senones, num_frames)
        centres = np.random.default_rng(99).normal(0, 1.5, (senones, dims))
        self.data = torch.from_numpy((centres[self.labels] + rng.normal(0, 1, (num_frames, dims))).astype(np.float32))
        self.offsets, self.dims, self.senones = np.array([0, num_frames]), dims, senones

    def inputs(self, frames: Tensor, length: int = 1) -> Tensor:
        assert length == 1
        return self.data[frames].unsqueeze(1)


def dnn_of(points: Points, settings: DnnConfig, seeds: tuple[int, ...] = (1, 2, 3)) -> FrameModel:
    model = build_model(settings, num_dims=points.dims, num_senones=points.senones, seeds=seeds)
    model.precision = "float32"
    return model

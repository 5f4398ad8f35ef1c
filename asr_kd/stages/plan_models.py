"""What the systems of a config cost: parameters, FLOPs, memory, and how fast this machine trains them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from asr_kd.acoustic.criteria import HardTargets
from asr_kd.acoustic.lda import random_transform
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.settings import DnnConfig, ModelConfig
from asr_kd.acoustic.training import RunControl, TrainingData, fit
from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.frames.source import ArrayFrames
from asr_kd.frames.windows import windows_of
from asr_kd.lang.lexicon import make_lang
from asr_kd.workspace.config import Config, SystemConfig

# Measured on 3.5 hours of speech (notes/2026-11-27-version-0.1.md of recipes/librispeech): a process with torch and
# numba loaded; a frame's label in training, once as numpy, once as torch; an utterance of an open FrameStore.
PROCESS, LABEL, UTTERANCE = 0.6e9, 17.0, 1.2e3
BYTES_PER_WEIGHT = 22  # weight, gradient, two moments and the best so far in float32, and a copy in bf16
_HMM_STATES = 3  # of a phone
_MEASURED_BATCHES = (32, 128)
_STEPS, _TIMES = 3, 3


@dataclass(frozen=True)
class Costs:
    """The parameters, the FLOPs and the memory of one model.

    Attributes:
      forward_flops: of a frame.
      training_flops: of a frame: forward, and the gradients of weights and activations.
      activation_bytes: of a frame, kept from the forward pass for the backward pass.
    """

    parameters: int
    forward_flops: float
    training_flops: float
    activation_bytes: float


@dataclass(frozen=True)
class SystemPlan:
    """A training job: the models of one system, side by side."""

    name: str
    system: SystemConfig
    num_dims: int
    num_senones: int

    @property
    def num_inputs(self) -> int:
        """Numbers in a window."""
        return self.system.model.context.width * self.num_dims

    @cached_property
    def costs(self) -> Costs:
        model = self.system.model
        if isinstance(model, DnnConfig):
            return dnn_costs(model, self.num_inputs, self.num_senones, self.system.num_models)
        return built_costs(model, self.num_dims, self.num_senones)

    @property
    def forward_flops(self) -> float:
        """The FLOPs of a frame's forward pass through all models."""
        return self.costs.forward_flops * self.system.num_models

    @property
    def weights(self) -> float:
        """Bytes of all models' parameters."""
        return 4.0 * self.costs.parameters * self.system.num_models

    def memory(self, frames: int) -> float:
        """Bytes: weights with all that training keeps of them, a batch's activations, the set's frames and labels.

        Files that are mapped (features, soft targets) use free memory as a cache on top of that; they need none.
        """
        activations = self.system.training.batch_size * self.costs.activation_bytes
        models = self.system.num_models * (self.costs.parameters * BYTES_PER_WEIGHT + activations)
        return PROCESS + models + windows_bytes(frames, self.num_dims) + LABEL * frames


def dnn_costs(settings: DnnConfig, num_inputs: int, num_senones: int, num_models: int) -> Costs:
    """The gradient of the first layer's input is not computed.

    Models that learn from linear discriminants have a smaller first layer while they train, and share these.
    """
    sizes = [num_inputs, *[settings.width] * settings.layers, num_senones]
    forward = sum(2.0 * a * b for a, b in itertools.pairwise(sizes))
    training = 3 * forward - 2.0 * num_inputs * sizes[1]
    if settings.lda_dims:
        training -= 4.0 * (num_inputs - settings.lda_dims) * sizes[1]
        training += 2.0 * num_inputs * settings.lda_dims / num_models
    return Costs(
        sum((a + 1) * b for a, b in itertools.pairwise(sizes)), forward, training, 8.0 * (sum(sizes) + 2 * num_senones)
    )


def built_costs(settings: ModelConfig, num_dims: int, num_senones: int) -> Costs:
    """Returns the costs of a model of any kind, from one that is built.

    The products of this model count for the context's frames too.
    """
    model = build_model(settings, num_dims=num_dims, num_senones=num_senones, seeds=[1])
    length = settings.chunk_frames
    num_bytes = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal num_bytes
        num_bytes += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.train()(torch.zeros(1, length + settings.context.frames, num_dims))
    weights = 4 * model.parameters_per_member
    forward = 2.0 * model.products_per_frame * (1 + settings.context.frames / length)
    return Costs(model.parameters_per_member, forward, 3 * forward, max(0, num_bytes - weights) / length)


def windows_bytes(frames: int, num_dims: int) -> float:
    """What training holds of a set's features and of the order of its frames.

    Up to BLOCK_FRAMES all of it in float32, beyond that three blocks in float16, with 8 bytes a frame for where its
    window begins; and the numbers of a block's frames, valid ones and shuffled.
    """
    whole = frames <= BLOCK_FRAMES
    held = min(frames, 3 * BLOCK_FRAMES)
    return held * ((4.0 if whole else 2.0) * num_dims + 8) + 16.0 * min(frames, BLOCK_FRAMES)


def plans_of(config: Config) -> Iterator[SystemPlan]:
    """Every system that is trained, in order; an ensemble of systems has their models."""
    monophone = _monophone_senones()
    for name in config.in_training_order():
        system = config.systems[name]
        if system.parts:
            continue
        senones = config.alignment.leaves if system.tree == "tied" else monophone
        yield SystemPlan(name, system, config.features.num_mel_bins, senones)


def aligner_plan(config: Config) -> SystemPlan:
    """The net that labels every frame: of realignment, or where there is none, of the flat start."""
    alignment, bins = config.alignment, config.features.num_mel_bins
    if alignment.realign_rounds:
        system = SystemConfig(model=alignment.realign.model, training=alignment.realign.training)
        return SystemPlan("realign", system, bins, alignment.leaves)
    return SystemPlan("align", SystemConfig(model=alignment.model), bins, _monophone_senones())


def _monophone_senones() -> int:
    return _HMM_STATES * len(make_lang([], {}).phones)


def step_seconds(plan: SystemPlan, batch: int, steps: int = _STEPS) -> float:
    """Times one real training step of one member on this machine's CPU, in seconds.

    The result is the best of some runs of a few steps.
    """
    settings = plan.system.model
    rng = np.random.default_rng(1)
    windows = windows_of(ArrayFrames([rng.normal(size=(batch * steps, plan.num_dims))]), settings.context)
    transform = random_transform(plan.num_inputs, settings.lda_dims) if isinstance(settings, DnnConfig) else None
    model = build_model(settings, num_dims=plan.num_dims, num_senones=plan.num_senones, seeds=[1], transform=transform)
    labels = np.arange(batch * steps) % plan.num_senones
    training = replace(
        plan.system.training, batch_size=batch, epochs=1 + _TIMES, patience=0, learning_rate=1e-6
    )  # the first epoch warms up; no rate may make random frames diverge
    criterion = HardTargets(labels, torch.device("cpu"))
    progress = fit(model, TrainingData(windows), criterion, training, RunControl(seed=1))
    return min(float(row["seconds"]) for row in progress.rows[1:]) / steps


def flops_per_second(plan: SystemPlan) -> float:
    """Returns the FLOP a second of training on this machine's CPU.

    A step takes a time for its weights and a time for each frame; both follow from two sizes of batch.
    """
    chunk, batch = plan.system.model.chunk_frames, plan.system.training.batch_size
    small, large = (frames * max(1, chunk // 8) for frames in _MEASURED_BATCHES)
    first, second = step_seconds(plan, small), step_seconds(plan, large)
    each = max(0.0, second - first) / (large - small) or second / large
    fixed = max(0.0, first - each * small)
    return plan.costs.training_flops * batch / (fixed + each * batch)

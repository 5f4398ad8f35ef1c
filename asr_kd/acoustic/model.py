"""What every acoustic model is: chunks of frames in, logits over the senones out, for all members of an ensemble.

An ensemble is ONE module with a member axis, so that M members train and run together; a single model has M = 1.
Matrix products run in bfloat16 where the processor has it, on GPUs that lack it in float16, else in float32; weights,
losses and optimiser stay float32 in every case.

Shapes:  M members, K chunks of L frames, D dimensions of a frame, C senones, T frames of an utterance.
"""

from __future__ import annotations

import functools
import math
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from asr_kd.acoustic.settings import MODELS, ModelConfig, Precision
from asr_kd.errors import UserError
from asr_kd.frames.source import Context
from asr_kd.kernels.process import cpu_flags

if TYPE_CHECKING:
    from asr_kd.acoustic.lda import InputTransform
    from asr_kd.acoustic.rng import StepRng

FRAMES_AT_ONCE = 4096  # of a long utterance


class FrameModel(nn.Module):
    """M models of one shape.

    A kind of model derives from it, calls its `__init__` and implements `forward`; its class is named in
    `asr_kd.acoustic.settings.MODELS`. Of each tensor of its state the first axis is M times a single model's (or, of a
    tensor without axes, all members share it), in the order of the members.

    Attributes:
      settings: of its kind.
      num_dims: D. num_senones: C.
      seeds: of the members' first weights, which depend on nothing else.
      precision: of the products, as in `TrainingConfig`; saved with the model.
    """

    def __init__(self, settings: ModelConfig, *, num_dims: int, num_senones: int, seeds: Sequence[int]) -> None:
        super().__init__()
        self.settings, self.num_dims, self.num_senones, self.seeds = settings, num_dims, num_senones, list(seeds)
        self.precision: Precision = "auto"

    def forward(self, frames: Tensor, rng: StepRng | None = None) -> Tensor:
        """Logits.

        Args:
          frames: (K, L + left + right, D) normalised frames: L to be labelled, and their context.
          rng: where dropout is drawn from; None: no dropout.

        Returns:
          (M, K * L, C) float32.
        """
        raise NotImplementedError

    @property
    def context(self) -> Context:
        """The frames that it sees before and after the labelled one."""
        return self.settings.context

    @property
    def members(self) -> int:
        """The number of members, M."""
        return len(self.seeds)

    @property
    def parameters_per_member(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters()) // self.members

    @property
    def member_parameters(self) -> list[int]:
        """How many parameters each member has."""
        return [self.parameters_per_member] * self.members

    @property
    def products_per_frame(self) -> int:
        """Multiplications of a member for a frame: each weight once, unless its kind uses some more often."""
        return self.parameters_per_member

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def compute_dtype(self) -> torch.dtype:
        """The number format of the products."""
        return compute_dtype(self.precision, self.device)

    def log_posteriors(self, features: Tensor | np.ndarray) -> Tensor:
        """The log of the members' arithmetic mean.

        Args:
          features: (T, D) normalised frames of an utterance; its first and last frame are repeated beyond the edges.

        Returns:
          (T, C) float32 natural-log posteriors, on the model's device.
        """
        return _log_mean(self._logits(features))

    def log_posteriors_inside(self, padded: Tensor) -> Tensor:
        """(T + left + right, D) normalised frames with their context -> as `log_posteriors`, of those T."""
        return _log_mean(self.chunks_of_logits(padded.to(self.device, torch.float32)))

    def member_log_posteriors(self, features: Tensor | np.ndarray) -> Tensor:
        """(T, D) normalised frames of an utterance -> (M, T, C) float32 natural-log posteriors of each member."""
        return self.member_logits(features).log_softmax(-1)

    def member_logits(self, features: Tensor | np.ndarray) -> Tensor:
        """Returns the (M, T, C) logits of the members: `member_log_posteriors` before the softmax."""
        return torch.cat(list(self._logits(features)), dim=1)

    def _logits(self, features: Tensor | np.ndarray) -> Iterator[Tensor]:
        features = torch.as_tensor(features)
        if features.dim() != 2 or not len(features) or features.shape[1] != self.num_dims:
            raise ValueError(f"features are {tuple(features.shape)}, not (T, {self.num_dims}) with T > 0")
        left, right = self.context.left, self.context.right
        edges = features[:1].expand(left, -1), features[-1:].expand(right, -1)
        # `forward` of chunks of their own, for the edges are repeated as in training
        return self.chunks_of_logits(torch.cat([edges[0], features, edges[1]]).to(self.device, torch.float32))

    @torch.no_grad()
    def chunks_of_logits(self, padded: Tensor) -> Iterator[Tensor]:
        """(T + left + right, D) frames with their context -> (M, L, C) logits, chunk by chunk."""
        around = self.context.left + self.context.right
        for first in range(0, len(padded) - around, FRAMES_AT_ONCE):
            yield self(padded[None, first : first + FRAMES_AT_ONCE + around])

    def select_members(self, members: Sequence[int]) -> FrameModel:
        """Another model with some of the members, to run without the others."""
        model = type(self)(
            self.settings,
            num_dims=self.num_dims,
            num_senones=self.num_senones,
            seeds=[self.seeds[member] for member in members],
            **self._options(),
        )
        model.precision = self.precision
        model.load_member_states([self.member_state(member) for member in members])
        return model.to(self.device).eval()

    def first_members(self, count: int) -> FrameModel:
        """The model of the first members; the model itself where it has no more."""
        return self if count >= self.members else self.select_members(list(range(count)))

    def _options(self) -> dict[str, Any]:
        """Further arguments of `__init__`."""
        return {}

    def member_state(self, member: int) -> dict[str, Tensor]:
        """The state of one member as a model of its own (views)."""
        return {name: member_slice(value, member, self.members) for name, value in self.state_dict().items()}

    def load_member_states(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Loads what `member_state` gave for each member."""
        first = states[0]
        self.load_state_dict(
            {name: torch.cat([s[name] for s in states]) if first[name].dim() else first[name] for name in first}
        )

    def fold_input_transform(self) -> FrameModel:
        """An equal model without an input transform; the model itself where it has none."""
        return self

    def apply_constraints(self) -> None:
        """Brings weights back to what the settings demand of them, after a training step."""


def build_model(
    settings: ModelConfig,
    *,
    num_dims: int,
    num_senones: int,
    seeds: Sequence[int],
    transform: InputTransform | None = None,
) -> FrameModel:
    """A model with random weights, on the CPU, in evaluation mode.

    Args:
      settings: they choose the class, by their `kind`.
      seeds: one per member.
      transform: a fixed map of the input window, applied before the first layer; not every kind accepts one.

    >>> from asr_kd.acoustic.settings import DnnConfig
    >>> model = build_model(DnnConfig(left_context=2, right_context=1), num_dims=40, num_senones=100, seeds=[1, 2])
    >>> model(torch.zeros(8, 1 + 3, 40)).shape, model.log_posteriors(torch.zeros(50, 40)).shape
    (torch.Size([2, 8, 100]), torch.Size([50, 100]))
    """
    if not seeds:
        raise ValueError("a model needs at least one member, with its seed")
    kind = pkgutil.resolve_name(MODELS[settings.kind].model)
    options = {} if transform is None else {"transform": transform}
    model: FrameModel = kind(settings, num_dims=num_dims, num_senones=num_senones, seeds=seeds, **options)
    return model.eval()


def member_slice(value: Tensor, member: int, members: int) -> Tensor:
    """The part of a tensor of the state that belongs to a member: a view, whose shape is a single model's."""
    if value.dim() == 0:
        return value
    size = len(value) // members
    return value[member * size : (member + 1) * size]


def ensemble_log_mean(log_posteriors: Tensor) -> Tensor:
    """(M, B, C) log posteriors -> (B, C) log of the members' arithmetic mean."""
    return torch.logsumexp(log_posteriors, dim=0).sub(math.log(len(log_posteriors)))


def _log_mean(parts: Iterable[Tensor]) -> Tensor:
    """(M, L, C) logits of chunks -> (T, C) natural log of the mean of the members' posteriors."""
    return torch.cat([ensemble_log_mean(part.log_softmax(-1)) for part in parts])


@torch.no_grad()
def first_member_log_posteriors(model: FrameModel, features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(T, D) normalised frames of U utterances -> (T, C) float32 natural-log posteriors, by the first member.

    For many short utterances: a call of its own costs one more than its frames do. They are read as one, each with its
    edges repeated; frames that mix two of them are dropped.
    """
    left, right = model.context.left, model.context.right
    padded = [np.pad(frames, ((left, right), (0, 0)), mode="edge") for frames in features]
    chunks = model.chunks_of_logits(torch.from_numpy(np.concatenate(padded)).to(model.device))
    everything = np.concatenate([logits[0].log_softmax(-1).cpu().numpy() for logits in chunks])
    firsts = np.cumsum([0] + [len(rows) for rows in padded[:-1]])
    return [everything[first : first + len(frames)] for first, frames in zip(firsts, features, strict=True)]


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of products.

    Args:
      precision: as in TrainingConfig. With "float16" a processor computes in float32.
    """
    if precision == "auto":
        return fastest_dtype(device.type)
    if precision == "float16":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


@functools.cache
def fastest_dtype(device_type: str) -> torch.dtype:
    """What the hardware computes products fastest in, of those that training is good for."""
    if has_bfloat16(device_type):
        return torch.bfloat16
    # from Volta on, tensor cores multiply float16
    is_fast = device_type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 7
    return torch.float16 if is_fast else torch.float32


@functools.cache
def has_bfloat16(device_type: str) -> bool:
    """Whether the hardware computes bfloat16 products (emulated, they are slower than float32)."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return not cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
      UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{name!r} is no device; name auto, cpu, cuda or cuda:<number>.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices.")
    return device

"""The training jobs of a config: shapes, parameters, FLOPs, memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from asr_kd.alignment.topology import NUM_HMM_STATES
from asr_kd.frames.sampler import BLOCK_FRAMES
from asr_kd.lang.lexicon import make_lang
from asr_kd.workspace.config import Config, ModelConfig, StudentConfig, TrainingConfig, takes_members

# Measured on 3.5 hours (recipes/librispeech/RESULTS.md): a process with torch and numba loaded; a frame's label in
# training, once as numpy, once as torch; an utterance of an open FrameStore.
PROCESS, LABEL, UTTERANCE = 0.6e9, 17.0, 1.2e3
BYTES_PER_WEIGHT = 22  # weight, gradient, two moments and the best so far in float32, and a copy in bf16


@dataclass(frozen=True)
class NetPlan:
    """A training job: `members` nets of one shape, side by side, on a share of the training frames.

    Attributes:
      taken: they are the ensemble's first ones, so that nothing is trained.
    """

    name: str
    model: ModelConfig
    training: TrainingConfig
    members: int
    num_inputs: int
    num_states: int
    share: float = 1.0
    taken: bool = False

    @property
    def sizes(self) -> list[int]:
        return [self.num_inputs, *[self.model.width] * self.model.layers, self.num_states]

    @property
    def parameters(self) -> int:
        """Of one member."""
        return sum((a + 1) * b for a, b in itertools.pairwise(self.sizes))

    @property
    def forward_flops(self) -> float:
        """Of one member and frame."""
        return sum(2.0 * a * b for a, b in itertools.pairwise(self.sizes))

    @property
    def flops_per_frame(self) -> float:
        """Of one member: forward, gradient of the weights, and of each layer's input but the first's.

        Where the nets learn from linear discriminants, the first layer is smaller, and they share these.
        """
        count, first = self.model.lda_dims, self.sizes[1]
        flops = 3 * self.forward_flops - 2.0 * self.num_inputs * first
        if not count:
            return flops
        return flops - 4.0 * (self.num_inputs - count) * first + 2.0 * self.num_inputs * count / self.members

    def memory(self, frames: int, num_dims: int = 40) -> float:
        """Bytes: weights with all that training keeps of them, a batch's activations, the set's frames and labels.

        Files that are mapped (features, soft targets) come on top as far as there is room; they need none.
        """
        activations = 2 * 4.0 * self.training.batch_size * (sum(self.sizes) + 2 * self.num_states)
        nets = self.members * (self.parameters * BYTES_PER_WEIGHT + activations)
        return PROCESS + nets + windows_bytes(frames, num_dims) + LABEL * frames


def windows_bytes(frames: int, num_dims: int) -> float:
    """What training holds of a set's features and of the order of its frames.

    Up to BLOCK_FRAMES all of it in float32, beyond that two chunks in float16, with 8 bytes a frame for where its
    window begins; and the numbers of a chunk's frames, valid ones and shuffled.
    """
    whole = frames <= BLOCK_FRAMES
    held = frames if whole else 2 * BLOCK_FRAMES
    return held * ((4.0 if whole else 2.0) * num_dims + 8) + 16.0 * min(frames, BLOCK_FRAMES)


def nets_of(config: Config) -> Iterator[NetPlan]:
    """Every training job, in the order of the stages; those of `asr-kd fewshot` last."""

    def net(
        name: str, model: ModelConfig, training: TrainingConfig, members: int, states: int = 0, share: float = 1.0
    ) -> NetPlan:
        inputs = (model.left_context + 1 + model.right_context) * config.features.num_mel_bins
        return NetPlan(name, model, training, members, inputs, states or config.alignment.leaves, share)

    def pair(student: StudentConfig, prefix: str = "", suffix: str = "") -> Iterator[NetPlan]:
        model, seeds, share = student.model, student.seeds, student.share
        direct = net(f"{prefix}train{suffix}", model, student.direct, seeds, share=share)
        yield replace(direct, taken=takes_members(student, config.teacher))
        yield net(f"{prefix}distill{suffix}", student.distilled_model, student.distilled.training, seeds, share=share)

    teacher = config.teacher
    yield net("train --ensemble", teacher.model, teacher.training, teacher.members)
    yield from pair(config.student)
    if config.monophone:
        states = NUM_HMM_STATES * len(make_lang([], {}).phones)
        yield net("train --pair monophone", config.student.model, config.student.direct, 1, states)
    if config.small is not None:
        yield from pair(config.small, suffix=" --pair small")
    if config.few is not None:
        yield from pair(config.few, prefix="fewshot: ")

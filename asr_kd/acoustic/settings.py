"""How a model looks and how it is trained, and the kinds of model that there are."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from asr_kd.frames.source import Context
from asr_kd.settings import (
    STRICT,
    ChosenByName,
    Count,
    Dropout,
    Fraction,
    Natural,
    NotNegative,
    Positive,
    Share,
)

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """What every kind of model has."""

    kind: str = ""

    @property
    def context(self) -> Context:
        """The frames that it sees before and after the one that it labels."""
        raise NotImplementedError

    @property
    def chunk_frames(self) -> int:
        """Consecutive frames of one utterance that are trained on together."""
        return 1


@dataclass(frozen=True, config=STRICT)
class DnnConfig(ModelConfig):
    """The fully connected net: hidden layers x width, ReLU; 20 past and 5 future frames at its input."""

    kind: Literal["dnn"] = "dnn"
    layers: Natural = 2
    width: Count = 256
    left_context: Natural = 20
    right_context: Natural = 5
    input_dropout: Dropout = 0.0
    hidden_dropout: Dropout = 0.0
    max_norm: NotNegative = 0.0  # bound on the norm of each unit's incoming weights; 0: none
    lda_dims: Natural = 0  # learn from so many linear discriminants of the input window; 0: from the window itself

    @property
    def context(self) -> Context:
        return Context(self.left_context, self.right_context)


@dataclass(frozen=True, config=STRICT)
class FrontConfig:
    """Convolutions over three frames and three bands of frequencies, before those over time alone.

    Each after the first has half the bands. The features must be in the order of their frequencies, as log mel energies
    are.
    """

    channels: tuple[Count, ...] = ()  # of each convolution, such as [16, 32]; none: no front end


@dataclass(frozen=True, config=STRICT)
class TdnnConfig(ModelConfig):
    """The residual time-delay net: a convolution over `kernel` frames, then blocks of dilated convolutions over three.

    The defaults see 15 frames to each side; each convolution of the front end adds one.
    """

    kind: Literal["tdnn"] = "tdnn"
    width: Count = 256  # channels
    kernel: Count = 5  # frames of the first convolution; odd
    dilations: tuple[Count, ...] = (1, 1, 2, 3, 3, 3)  # of the blocks: frames between the three that each sees
    residual_scale: NotNegative = 0.66  # of a block's input, before its output is added
    dropout: Dropout = 0.0  # of a block's channels, each for a whole chunk
    norm: Literal["batch", "layer"] = "batch"
    chunk_frames: Count = 100
    bottleneck: Natural = 0  # a block's convolution is two through so many channels (TDNN-F); 0: one, whole
    front: FrontConfig = FrontConfig()

    @property
    def context(self) -> Context:
        side = len(self.front.channels) + self.kernel // 2 + sum(self.dilations)
        return Context(side, side)

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}: as many frames before the labelled one as after")
        if self.bottleneck > self.width:
            raise ValueError(f"bottleneck must be at most the width, {self.width}, not {self.bottleneck}")


@dataclasses.dataclass(frozen=True)
class ModelKind:
    """A kind's settings, and where the code for its models is: "module:name", so that reading a config loads no torch.

    Attributes:
      settings: the class of its settings, a `ModelConfig`, or where it is.
      model: of the class, an `asr_kd.acoustic.model.FrameModel`.
      onnx: of the function that writes such a model as ONNX, an `asr_kd.export.onnx_models.Writer`; "": there is none,
        and such models cannot be exported.
    """

    settings: type[ModelConfig] | str
    model: str
    onnx: str = ""


# What `model.kind` can name. A new kind is a file with its settings and its module, and a line here.
MODELS: dict[str, ModelKind] = {
    "dnn": ModelKind(DnnConfig, "asr_kd.acoustic.dnn:Dnn", "asr_kd.export.onnx_models:write_dnn"),
    "tdnn": ModelKind(TdnnConfig, "asr_kd.acoustic.tdnn:Tdnn", "asr_kd.export.onnx_models:write_tdnn"),
}

AnyModel = Annotated[ModelConfig, ChosenByName(MODELS, key="kind", default="dnn")]


@dataclass(frozen=True, config=STRICT)
class AugmentConfig:
    """SpecAugment (Park et al. 2019): in each step, bands of frequencies and runs of frames are replaced by their mean.

    Each chunk has its own masks, which all members see; for a fully connected net a chunk is one window. The width of
    a mask is drawn between 0 and the bound. Teachers that run online see the same masks; stored soft targets are those
    of the frames without masks.
    """

    freq_masks: Natural = 0  # bands of each chunk; 0: none
    freq_width: Count = 8  # bound on the width of a band, in dimensions of a frame
    time_masks: Natural = 0  # runs of frames of each chunk; 0: none
    time_width: Count = 20  # bound on the length of a run, in frames
    time_share: Share = 0.2  # a run is no longer than this share of the chunk with its context

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return self.freq_masks + self.time_masks > 0


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How long, how fast, and how a model is trained; one loop serves all of them."""

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, le=0.999)] = 0.9  # sgd only (Nesterov)
    weight_decay: NotNegative = 0.0
    clip_norm: NotNegative = 0.0  # bound on the norm of each member's gradient, over all its weights; 0: none
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    final_learning_rate: Fraction = 0.01  # as a fraction of learning_rate, at the last epoch
    warmup_steps: Natural = 0  # over so many first steps the learning rate rises linearly to the schedule's
    batch_size: Count = 512  # frames
    epochs: Count = 10
    patience: Natural = 0  # stop after this many epochs without a better dev frame accuracy; 0: run all epochs
    precision: Precision = "auto"  # of the products; auto: bfloat16, on GPUs without it float16, else float32
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        if self.schedule == "exponential" and self.final_learning_rate == 0:
            raise ValueError("schedule: exponential never comes to final_learning_rate: 0; give a fraction above 0")

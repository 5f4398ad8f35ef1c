"""How a model looks and how it is trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT, Count, Dropout, Fraction, Natural, NotNegative, Positive


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """What every kind of model has: the frames at its input."""

    kind: str = ""
    chunk_frames: ClassVar[int] = 1  # frames of one utterance that are trained on together


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


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How long, how fast, and how a model is trained; one loop serves all of them."""

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, le=0.999)] = 0.9  # sgd only (Nesterov)
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    final_learning_rate: Fraction = 0.01  # as a fraction of learning_rate, at the last epoch
    batch_size: Count = 512  # frames
    epochs: Natural = 10
    patience: Natural = 0  # stop after this many epochs without a better dev frame accuracy; 0: run all epochs
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

"""Settings of the MNIST experiments: strict dataclasses, read from YAML."""

from __future__ import annotations

import json
from dataclasses import field
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from asr_kd import DnnConfig, TrainingConfig
from asr_kd.errors import UserError
from asr_kd.io.yaml_files import load_with_bases
from asr_kd.settings import STRICT, Count, Dropout, Fraction, Natural, NotNegative, Positive, Seed, first_error

EXPERIMENTS = (
    "teacher",
    "hard",
    "distilled",
    "shifted",
    "no3s",
    "only7s8s",
    "temperatures",
    "logits",
    "ensembles",
    "few",
    "knowledge",
)


@dataclass(frozen=True, config=STRICT)
class NetConfig:
    """A net that sees one image: hidden layers x width, ReLU."""

    layers: Natural = 2
    width: Count = 1200
    input_dropout: Dropout = 0.0
    hidden_dropout: Dropout = 0.0
    max_norm: NotNegative = 0.0  # bound on the norm of each unit's incoming weights; 0: none

    def as_model(self) -> DnnConfig:
        """The same as settings of an acoustic model: an image is a frame without context."""
        return DnnConfig(
            layers=self.layers,
            width=self.width,
            left_context=0,
            right_context=0,
            input_dropout=self.input_dropout,
            hidden_dropout=self.hidden_dropout,
            max_norm=self.max_norm,
        )


@dataclass(frozen=True, config=STRICT)
class TeacherConfig:
    """The large net; `members` of it differ in their seeds alone."""

    members: Count = 1
    model: NetConfig = field(default_factory=NetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    shift: Annotated[int, Field(ge=0, le=8)] = 2  # pixels in both directions, drawn each time an image is seen


@dataclass(frozen=True, config=STRICT)
class SoftConfig:
    """How a student learns from the teacher."""

    temperature: Positive = 20.0
    soft_weight: Fraction = 1.0  # the hard term has the rest
    teachers: Count = 1  # how many of the teacher's members answer together
    shifted_targets: bool = False  # the teacher's answer is its mean over all shifts of the image
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, config=STRICT)
class SweepConfig:
    """Temperature against width."""

    temperatures: tuple[Positive, ...] = (1.0, 2.0, 2.5, 4.0, 8.0, 20.0, 40.0)
    widths: tuple[Count, ...] = (800, 300, 30)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, config=STRICT)
class LogitsConfig:
    """Logit matching against high temperatures."""

    temperatures: tuple[Positive, ...] = (20.0, 100.0, 1000.0)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, config=STRICT)
class EnsemblesConfig:
    """Students of more and more teachers."""

    teachers: tuple[Count, ...] = (1, 3, 5)


@dataclass(frozen=True, config=STRICT)
class FewConfig:
    """Few labels: hard targets against soft ones on the same images."""

    images: Count = 1800
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, config=STRICT)
class MnistConfig:
    """All experiments; `experiments` says which are run."""

    seed: Seed = 1
    seeds: Count = 3  # students of each kind
    held_out: Annotated[int, Field(ge=0, le=50000)] = (
        0  # training images kept apart and scored in place of the test set
    )
    experiments: tuple[str, ...] = ("teacher", "hard", "distilled", "no3s")
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    small: NetConfig = field(default_factory=lambda: NetConfig(width=800))
    hard: TrainingConfig = field(default_factory=TrainingConfig)
    distilled: SoftConfig = field(default_factory=SoftConfig)
    shifted: SoftConfig = field(default_factory=SoftConfig)
    biased: SoftConfig = field(default_factory=SoftConfig)  # transfer sets without some digits
    temperatures: SweepConfig = field(default_factory=SweepConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)
    ensembles: EnsemblesConfig = field(default_factory=EnsemblesConfig)
    few: FewConfig = field(default_factory=FewConfig)


def load_mnist_config(path: Path) -> MnistConfig:
    """Reads a YAML file, and those that it extends by `base:`.

    Raises:
      UserError: a file cannot be read, has an unknown key or a value of a wrong type or range; or an experiment is
        unknown or needs more teachers than there are.
    """
    raw = load_with_bases(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of settings, not {raw!r}.")
    try:
        # through JSON, whose lists pydantic takes for tuples where it is strict
        config = TypeAdapter(MnistConfig).validate_json(json.dumps(raw, default=str))
    except pydantic.ValidationError as error:
        raise UserError(f"{path}: {first_error(error, MnistConfig)}.") from None
    for name in config.experiments:
        if name not in EXPERIMENTS:
            raise UserError(f"{path}: experiments: there is no {name!r}; known: {', '.join(EXPERIMENTS)}.")
    needed = {"distilled": config.distilled.teachers, "shifted": config.shifted.teachers}
    needed |= {"no3s": config.biased.teachers, "only7s8s": config.biased.teachers}
    needed["ensembles"] = max(config.ensembles.teachers, default=1)
    for name, teachers in needed.items():
        if name in config.experiments and teachers > config.teacher.members:
            raise UserError(
                f"{path}: {name} needs {teachers} teachers, but teacher.members is {config.teacher.members}; raise it."
            )
    return config

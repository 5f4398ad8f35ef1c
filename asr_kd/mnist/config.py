"""Settings of the MNIST experiments: frozen dataclasses <-> YAML, by the same reader as a speech recipe's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from asr_kd.errors import UserError
from asr_kd.workspace.config import (
    Count,
    Fraction,
    ModelConfig,
    Natural,
    Positive,
    Range,
    TrainingConfig,
    from_mapping,
    load_yaml,
)

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


@dataclass(frozen=True)
class TeacherConfig:
    """The large net; `members` of it differ in their seeds alone."""

    members: Count = 1
    model: ModelConfig = field(default_factory=lambda: ModelConfig(layers=2, width=1200))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    shift: Annotated[int, Range(0, 8)] = 2  # pixels, both ways, drawn anew each time an image is seen


@dataclass(frozen=True)
class SoftConfig:
    """How a student learns from the teacher."""

    temperature: Positive = 20.0
    soft_weight: Fraction = 1.0  # the hard term has the rest
    teachers: Count = 1  # how many of the teacher's members answer together
    shifted_targets: bool = False  # the teacher's answer is its mean over all shifts of the image
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class SweepConfig:
    """Temperature against width."""

    temperatures: tuple[Positive, ...] = (1.0, 2.0, 2.5, 4.0, 8.0, 20.0, 40.0)
    widths: tuple[Count, ...] = (800, 300, 30)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class LogitsConfig:
    """Logit matching against high temperatures."""

    temperatures: tuple[Positive, ...] = (20.0, 100.0, 1000.0)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class EnsemblesConfig:
    """Students of more and more teachers."""

    teachers: tuple[Count, ...] = (1, 3, 5)


@dataclass(frozen=True)
class FewConfig:
    """Few labels: hard targets against soft ones on the same images."""

    images: Count = 1800
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class MnistConfig:
    """All experiments; `experiments` says which are run."""

    seed: Natural = 1
    seeds: Count = 3  # students of each kind
    held_out: Annotated[int, Range(0, 50000)] = 0  # training images kept apart and scored in place of the test set
    experiments: tuple[str, ...] = ("teacher", "hard", "distilled", "no3s")
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    small: ModelConfig = field(default_factory=lambda: ModelConfig(layers=2, width=800))
    hard: TrainingConfig = field(default_factory=TrainingConfig)
    distilled: SoftConfig = field(default_factory=SoftConfig)
    shifted: SoftConfig = field(default_factory=SoftConfig)
    biased: SoftConfig = field(default_factory=SoftConfig)  # transfer sets without some digits
    temperatures: SweepConfig = field(default_factory=SweepConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)
    ensembles: EnsemblesConfig = field(default_factory=EnsemblesConfig)
    few: FewConfig = field(default_factory=FewConfig)


def load_mnist_config(path: Path) -> MnistConfig:
    """Reads a YAML file.

    Raises:
      UserError: as `load_config`, or an experiment is unknown or needs more teachers than there are.
    """
    config = from_mapping(MnistConfig, load_yaml(path), str(path))
    for name in config.experiments:
        if name not in EXPERIMENTS:
            raise UserError(f"{path}: experiments: there is no {name!r}; known: {', '.join(EXPERIMENTS)}.")
    needed = {"distilled": config.distilled.teachers, "shifted": config.shifted.teachers}
    needed |= {"no3s": config.biased.teachers, "only7s8s": config.biased.teachers}
    needed["ensembles"] = max(config.ensembles.teachers, default=1)
    for name, teachers in needed.items():
        if name in config.experiments and teachers > config.teacher.members:
            raise UserError(
                f"{path}: {name} asks {teachers} teachers, but teacher.members is {config.teacher.members}; raise it."
            )
    return config

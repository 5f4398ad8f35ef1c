"""What the experiments share: the digits, the teacher, and nets that are trained once and then found.

Shapes:  N images, M members, C = 10 classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from asr_kd.acoustic.criteria import DevScorer, HardTargets
from asr_kd.acoustic.model import AcousticModel, load_model
from asr_kd.acoustic.precision import pick_device
from asr_kd.acoustic.training import Objective
from asr_kd.distillation.targets import DistillationObjective, OnlineTargets, TableTargets, TargetProvider
from asr_kd.io.stamp import Stamp
from asr_kd.mnist.config import MnistConfig, SoftConfig
from asr_kd.mnist.data import CLASSES, SUMS, Digits, read_mnist
from asr_kd.mnist.images import Images, Shift, errors, log_posteriors, tempered_mean
from asr_kd.stages.training_run import Lesson, train_nets
from asr_kd.workspace.config import ModelConfig, TrainingConfig, to_mapping
from asr_kd.workspace.run_options import RunOptions

TEACHER_SEEDS, STUDENT_SEEDS = 0, 500


@dataclass
class Lab:
    """One run of the experiments in `root`.

    Args:
      mnist: the folder with the four files.
    """

    config: MnistConfig
    root: Path
    mnist: Path
    options: RunOptions
    _targets: dict[tuple[int, float, bool], Tensor] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.options.device)

    @cached_property
    def _digits(self) -> tuple[Digits, Digits]:
        train, test = read_mnist(self.mnist)
        if self.config.held_out:
            order = np.random.default_rng(self.config.seed).permutation(len(train))
            return train.where(np.sort(order[self.config.held_out :])), train.where(order[: self.config.held_out])
        return train, test

    @property
    def train(self) -> Digits:
        return self._digits[0]

    @property
    def scored(self) -> Digits:
        """The test set, or the held-out training images where settings are being chosen."""
        return self._digits[1]

    def teacher(self, members: int | None = None) -> AcousticModel:
        """The trained teachers, or the first of them."""
        folder = self.nets(
            "teacher",
            self.config.teacher.model,
            self.config.teacher.training,
            self.seeds(TEACHER_SEEDS, self.config.teacher.members),
            augment=self.shift(self.config.teacher.shift),
        )
        model = load_model(folder, self.device)
        return model if members is None else model.some(list(range(members)))

    @staticmethod
    def shift(pixels: int) -> Shift | None:
        return Shift(pixels) if pixels else None

    def seeds(self, first: int, count: int) -> list[int]:
        return [self.config.seed * 1000 + first + k for k in range(count)]

    def student(
        self,
        name: str,
        training: TrainingConfig,
        soft: SoftConfig | None = None,
        *,
        model: ModelConfig | None = None,
        chosen: np.ndarray | None = None,
        loss: Literal["kl", "logits"] = "kl",
        shifted: int = 0,
        watch: np.ndarray | None = None,
    ) -> AcousticModel:
        """Small nets, one per seed: on hard labels, or with `soft` on the teacher's answers.

        Args:
          chosen: (N,) bool, the images to learn from; None: all.
          shifted: pixels by which the images move; the teacher then answers for the moved ones.
          watch: (N,) bool, images to score after each epoch, of which the best is kept; None: the last is kept.
        """
        folder = self.nets(
            name,
            model or self.config.small,
            training,
            self.seeds(STUDENT_SEEDS, self.config.seeds),
            soft=soft,
            loss=loss,
            chosen=chosen,
            augment=self.shift(shifted),
            watch=watch,
        )
        return load_model(folder, self.device)

    def nets(
        self,
        name: str,
        model: ModelConfig,
        training: TrainingConfig,
        seeds: list[int],
        *,
        soft: SoftConfig | None = None,
        loss: Literal["kl", "logits"] = "kl",
        chosen: np.ndarray | None = None,
        augment: Shift | None = None,
        watch: np.ndarray | None = None,
    ) -> Path:
        """Trains nets into `<root>/nets/<name>`, unless they are there; returns the folder."""
        settings = {
            "model": to_mapping(model),
            "training": to_mapping(training),
            "seeds": seeds,
            "soft": None if soft is None else to_mapping(replace(soft, training=TrainingConfig())),
            "loss": loss,
            "shift": augment.pixels if augment else 0,
            "images": _digest(chosen),
            "watched": None if watch is None else _digest(watch),
            "held_out": self.config.held_out,
            "teacher": to_mapping(self.config.teacher) if soft is not None else None,
        }
        stamp = Stamp("mnist", settings, SUMS, self.config.seed)

        def lesson(device: torch.device) -> Lesson:
            images = Images(self.train, device)
            objective: Objective = HardTargets(self.train.labels, device)
            if soft is not None:
                provider = self._provider(soft, online=augment is not None)
                objective = DistillationObjective(
                    provider, self.train.labels, soft_weight=soft.soft_weight, loss=loss, device=device
                )
            watched = None if watch is None else self.train.where(watch)
            scorer = None if watched is None else DevScorer(Images(watched, device), watched.labels)
            return Lesson(images, images.num_inputs, CLASSES, objective, scorer, chosen, augment)

        path = self.root / "nets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        train_nets(path, stamp, model, training, seeds, lesson, self.options)
        return path

    def _provider(self, soft: SoftConfig, *, online: bool) -> TargetProvider:
        if online:
            return OnlineTargets(self.teacher(soft.teachers), temperature=soft.temperature, mean="arithmetic")
        return TableTargets(self.soft_targets(soft).to(self.device), soft.temperature)

    def soft_targets(self, soft: SoftConfig) -> Tensor:
        """(N, C) log of the teacher's distribution over the training images; kept, as many students want the same."""
        wanted = (soft.teachers, soft.temperature, soft.shifted_targets)
        if wanted not in self._targets:
            shift, images = Shift(self.config.teacher.shift), Images(self.train, self.device)
            self._targets[wanted] = tempered_mean(
                self.teacher(soft.teachers), images, soft.temperature, shift if soft.shifted_targets else None
            )
        return self._targets[wanted]

    def log_posteriors(self, model: AcousticModel) -> Tensor:
        """(M, N, C) on the scored images."""
        return log_posteriors(model, Images(self.scored, self.device))

    def errors(self, model: AcousticModel) -> list[int]:
        """Of each member, on the scored images."""
        return errors(self.log_posteriors(model), self.scored.labels)


def _digest(chosen: np.ndarray | None) -> str:
    return "all" if chosen is None else hashlib.sha256(np.packbits(chosen).tobytes()).hexdigest()


def without(labels: np.ndarray, digits: Sequence[int]) -> np.ndarray:
    """(N,) bool: images of other digits."""
    return ~np.isin(labels, digits)

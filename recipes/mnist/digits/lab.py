"""What the experiments share: the digits, the teacher, and nets that are trained once and then loaded.

Shapes:  N images, M members, C = 10 classes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd import (
    DistillationCriterion,
    FrameModel,
    HardTargets,
    RunControl,
    TableTargets,
    TrainingConfig,
    TrainingData,
    build_model,
    fit,
    save_model,
)
from asr_kd.acoustic.criteria import Criterion, DevScorer
from asr_kd.acoustic.divergence import diverged_in
from asr_kd.acoustic.model import pick_device
from asr_kd.acoustic.model_files import load_model
from asr_kd.acoustic.training import write_log
from asr_kd.distillation.targets import OnlineTargets, TargetProvider, Teacher
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, stale_reason
from digits.config import MnistConfig, NetConfig, SoftConfig
from digits.data import CLASSES, SIDE, SUMS, Digits, read_mnist
from digits.images import Images, Shift, errors, log_posteriors, tempered_mean

log = logging.getLogger("asr_kd.mnist")

TEACHER_SEEDS, STUDENT_SEEDS = 0, 500


@dataclass(frozen=True)
class Recipe:
    """What a net learns from, beside its settings.

    Attributes:
      soft: the teacher's answers; None: hard labels.
      loss: of soft targets, "kl" or "logits".
      chosen: (N,) bool, the images to learn from; None: all.
      shift: pixels by which the images move; the teacher then answers for the moved ones.
      watch: (N,) bool, images to score after each epoch, of which the best is kept; None: the last is kept.
    """

    soft: SoftConfig | None = None
    loss: str = "kl"
    chosen: np.ndarray | None = None
    shift: int = 0
    watch: np.ndarray | None = None


HARD = Recipe()


@dataclass
class Lab:
    """One run of the experiments in `root`.

    Args:
      mnist: the folder with the four files.
      quiet: no progress bars.
    """

    config: MnistConfig
    root: Path
    mnist: Path
    device_name: str = "auto"
    quiet: bool = False
    _targets: dict[tuple[int, float, bool], Tensor] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.device_name)

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

    def teacher(self, members: int | None = None) -> FrameModel:
        """The trained teachers, or the first of them."""
        settings = self.config.teacher
        seeds = self._seeds(TEACHER_SEEDS, settings.members)
        model = self._nets("teacher", settings.model, settings.training, seeds, Recipe(shift=settings.shift))
        return model if members is None else model.select_members(range(members))

    def student(
        self, name: str, training: TrainingConfig, recipe: Recipe = HARD, *, model: NetConfig | None = None
    ) -> FrameModel:
        """Small nets, one per seed."""
        seeds = self._seeds(STUDENT_SEEDS, self.config.seeds)
        return self._nets(name, model or self.config.small, training, seeds, recipe)

    def _seeds(self, first: int, count: int) -> list[int]:
        return [self.config.seed * 1000 + first + k for k in range(count)]

    def _nets(
        self, name: str, net: NetConfig, training: TrainingConfig, seeds: list[int], recipe: Recipe
    ) -> FrameModel:
        """Trains nets into `<root>/nets/<name>`, unless they are there, and loads them."""
        soft = recipe.soft
        settings = {
            "model": net,
            "training": training,
            "seeds": seeds,
            "soft": None if soft is None else replace(soft, training=TrainingConfig()),
            "loss": recipe.loss,
            "shift": recipe.shift,
            "images": _digest(recipe.chosen),
            "watched": None if recipe.watch is None else _digest(recipe.watch),
            "held_out": self.config.held_out,
            "teacher": None if soft is None else self.config.teacher,
        }
        stamp = Stamp("mnist", settings, SUMS, self.config.seed)
        folder = self.root / "nets" / name
        reason = stale_reason(folder, stamp)
        if reason is None:
            return load_model(folder, self.device)
        log.info("training %s: %s", name, reason)
        folder.parent.mkdir(parents=True, exist_ok=True)
        model = build_model(net.as_model(), num_dims=SIDE * SIDE, num_senones=CLASSES, seeds=seeds).to(self.device)
        shift = Shift(recipe.shift) if recipe.shift else None
        data = TrainingData(Images(self.train, self.device), recipe.chosen, shift)
        checkpoint = folder.with_name(f".{name}.checkpoint.pt")
        control = RunControl(
            seed=seeds[0],
            evaluate=None if recipe.watch is None else self._scorer(recipe.watch),
            checkpoint=checkpoint,
            digest=stamp.digest,
            label=None if self.quiet else name,
        )
        with diverged_in(folder, f"lower its learning_rate ({training.learning_rate:g}) in the config"):
            progress = fit(model, data, self._criterion(recipe), training, control)
        with replacing_folder(folder, stamp) as temporary:
            save_model(model, temporary)
            write_log(temporary, progress.rows)
        checkpoint.unlink(missing_ok=True)
        return load_model(folder, self.device)

    def _scorer(self, watch: np.ndarray) -> DevScorer:
        digits = self.train.where(watch)
        return DevScorer(Images(digits, self.device), digits.labels)

    def _criterion(self, recipe: Recipe) -> Criterion:
        labels, soft = self.train.labels, recipe.soft
        if soft is None:
            return HardTargets(labels, self.device)
        provider = self._provider(soft, online=bool(recipe.shift))
        return DistillationCriterion(
            provider, labels, soft_weight=soft.soft_weight, loss=recipe.loss, device=self.device
        )

    def _provider(self, soft: SoftConfig, *, online: bool) -> TargetProvider:
        if online:
            teacher = Teacher(self.teacher(soft.teachers))
            return OnlineTargets([teacher], temperature=soft.temperature, mean="arithmetic")
        return TableTargets(self.soft_targets(soft).to(self.device), soft.temperature)

    def soft_targets(self, soft: SoftConfig) -> Tensor:
        """(N, C) log of the teacher's distribution over the training images; cached, as many students learn from it."""
        key = (soft.teachers, soft.temperature, soft.shifted_targets)
        if key not in self._targets:
            shift, images = Shift(self.config.teacher.shift), Images(self.train, self.device)
            self._targets[key] = tempered_mean(
                self.teacher(soft.teachers), images, soft.temperature, shift if soft.shifted_targets else None
            )
        return self._targets[key]

    def log_posteriors(self, model: FrameModel) -> Tensor:
        """(M, N, C) on the scored images."""
        return log_posteriors(model, Images(self.scored, self.device))

    def errors(self, model: FrameModel) -> list[int]:
        """Of each member, on the scored images."""
        return errors(self.log_posteriors(model), self.scored.labels)


def _digest(chosen: np.ndarray | None) -> str:
    return "all" if chosen is None else hashlib.sha256(np.packbits(chosen).tobytes()).hexdigest()


def without(labels: np.ndarray, digits: Sequence[int]) -> np.ndarray:
    """(N,) bool: images of other digits."""
    return ~np.isin(labels, digits)

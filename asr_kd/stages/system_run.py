"""One system of a config: what its models learn from, its stamp, and how they come into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from asr_kd.acoustic.criteria import Criterion, DevScorer, HardTargets
from asr_kd.acoustic.lda import linear_discriminants
from asr_kd.acoustic.model import build_model
from asr_kd.acoustic.training import TrainingData
from asr_kd.distillation.settings import LOSSES
from asr_kd.distillation.store import cuts_nothing
from asr_kd.distillation.targets import DistillationCriterion, TargetProvider
from asr_kd.errors import UserError
from asr_kd.frames.sampler import draw_fraction, held_out_frames
from asr_kd.frames.windows import windows_of
from asr_kd.io.stamp import Stamp, identity, stale_reason
from asr_kd.stages.members import (
    begun_apart,
    discard_members,
    member_folder,
    member_stamp,
    missing_members,
    put_together,
)
from asr_kd.stages.soft_targets import SoftTargetsResult, SystemTargets
from asr_kd.stages.training_run import (
    Models,
    TrainingTask,
    TrainResult,
    checkpoint_of,
    join_systems,
    reuse_members,
    train_models,
)
from asr_kd.stages.training_set import TrainingSet, seeds_of, trained_stamp, training_settings
from asr_kd.workspace.config import TRAIN, Config, SystemConfig
from asr_kd.workspace.executor import RunOptions
from asr_kd.workspace.work import Workspace, labels_of

_LARGE = 1_500_000  # products of a model for a frame: smaller ones gain more by sharing a step than by a core each


@dataclass(frozen=True)
class SystemRun:
    """A system to be trained into its folder.

    Raises:
      UserError: its parts do not fit together, or what it learns from is not trained.
    """

    config: Config
    work: Workspace
    name: str
    data: TrainingSet

    def __post_init__(self) -> None:
        targets = self.system.stored_targets
        if targets is None or not LOSSES[targets.loss].needs_all_entries:
            return
        if not cuts_nothing(targets.keep_mass, targets.max_entries, self.data.num_senones):
            raise UserError(
                f"systems.{self.name}.targets.loss: {targets.loss} needs the teachers' whole distribution: set "
                f"targets.online: true, or targets.keep_mass: 1.0 and targets.max_entries: {self.data.num_senones} "
                "(the number of senones)."
            )

    @property
    def system(self) -> SystemConfig:
        return self.config.systems[self.name]

    @property
    def must_train(self) -> bool:
        """Whether its models are missing and are not those of other systems."""
        return (
            not self.system.reuse
            and not self.system.parts
            and stale_reason(self.work.exp(self.name), self.stamp) is not None
        )

    @cached_property
    def stamp(self) -> Stamp:
        """The stamp of the system's finished folder."""
        inputs, step = self.data.inputs, "train"
        if self.system.reuse:
            source = trained_stamp(self.config, self.work, self.system.reuse, self.data, self.system.num_models)
            inputs |= {self.system.reuse: identity(source)}
            step = "reuse"
        elif self.system.parts:
            stamps = {part: trained_stamp(self.config, self.work, part, self.data) for part in self.system.parts}
            inputs |= {part: identity(stamp) for part, stamp in stamps.items()}
            step = "join"
        elif self.system.targets is not None:
            inputs |= {
                "soft targets" if of_set == TRAIN else f"soft targets of {of_set}": stamp.digest
                for of_set, stamp in self._targets.stamps.items()
            }
            step = "distill"
        return Stamp(step, training_settings(self.config, self.name), inputs, self.config.seed)

    @cached_property
    def _targets(self) -> SystemTargets:
        return SystemTargets(self.config, self.work, self.data, self.name)

    def make_targets(self, options: RunOptions, nj: int | None) -> list[SoftTargetsResult]:
        """Makes the soft targets that it learns from, and returns what was not there; nothing where none are stored."""
        if self.system.stored_targets is None:
            return []
        return [result for result in self._targets.store(options, nj) if result.ran]

    def train(self, options: RunOptions) -> TrainResult:
        """Trains, copies or joins the models, unless the stamp says that they are there."""
        path, metadata = self.work.exp(self.name), {"tree": self.system.tree, "labels": labels_of(self.system.tree)}
        if self.system.reuse:
            source = self.work.exp(self.system.reuse)
            return reuse_members(path, self.stamp, source, self.system.num_models, metadata)
        if self.system.parts:
            parts = {part: self.work.exp(part) for part in self.system.parts}
            return join_systems(path, self.stamp, parts, metadata)
        count = self.system.num_models
        if self.must_train and not self.missing:
            return put_together(path, self.stamp, count, metadata)
        result = train_models(path, self.stamp, self._models(range(count)), options, metadata)
        if options.rank == 0:
            discard_members(path)
        return result

    @property
    def begun_apart(self) -> bool:
        """Whether a member was trained, or begun, apart, as the stamp would have it now."""
        count = self.system.num_models
        if self.system.reuse or self.system.parts or not begun_apart(self.work.exp(self.name), count):
            return False
        return len(self.missing) < count or not checkpoint_of(self.work.exp(self.name)).exists()

    @property
    def missing(self) -> list[int]:
        """The members that are not there apart."""
        return missing_members(self.work.exp(self.name), self.stamp, self.system.num_models)

    def train_member(self, member: int, options: RunOptions) -> TrainResult:
        """Trains one of several models into a folder of its own, unless it is there.

        Raises:
          UserError: the system has no such member, or its members do not depend on their seeds alone.
        """
        self.check_members([member])
        path = member_folder(self.work.exp(self.name), member)
        path.parent.mkdir(parents=True, exist_ok=True)
        models = replace(self._models([member]), member=member)
        return train_models(path, member_stamp(self.stamp, member), models, options, {})

    def check_members(self, members: Sequence[int]) -> None:
        """Raises UserError where they cannot be trained apart."""
        system, name = self.system, self.name
        if system.reuse or system.parts:
            raise UserError(f"systems.{name} takes its models from other systems: no member is trained.")
        if system.training.patience:
            raise UserError(
                f"systems.{name}.training.patience ends the training of all members together; set it to 0 to train "
                "them apart: each keeps its best epoch in any case."
            )
        for member in members:
            if member >= system.num_models:
                raise UserError(f"{name} has {system.num_models} models, counted from 0: there is no member {member}.")

    @cached_property
    def load(self) -> float:
        """Products of its training, of all models and epochs."""
        system, data = self.system, self.data
        frames = data.train.num_frames * system.train_fraction + sum(s.num_frames for s in data.extra.values())
        return float(self._products * system.num_models * system.training.epochs * frames)

    @cached_property
    def _products(self) -> int:
        """The number of multiplications of one of the system's models for a frame."""
        data = self.data
        model = build_model(self.system.model, num_dims=data.train.num_dims, num_senones=data.num_senones, seeds=[0])
        return model.products_per_frame

    def apart(self, places: int) -> list[int]:
        """The members that are better trained apart, so many at once; none: all as one."""
        path, count = self.work.exp(self.name), self.system.num_models
        if count < 2 or self.system.training.patience or not self.must_train:
            return []
        if self.begun_apart:
            return self.missing
        if places < 2 or checkpoint_of(path).exists():
            return []
        return list(range(count)) if self._products > _LARGE else []

    def _models(self, members: Sequence[int]) -> Models:
        seeds = seeds_of(self.config, self.name)
        task = partial(self._task, members)
        return Models(self.name, self.system, [seeds[member] for member in members], seeds[0], task)

    def _task(self, members: Sequence[int], device: torch.device) -> TrainingTask:
        data, model, labels = self.data, self.system.model, self.data.train_labels
        labelled = labels >= 0
        if (fraction := draw_fraction(data.train, self.system.train_fraction, self.config.seed)) is not None:
            labelled &= fraction
        self._check_labelled(labelled)
        transform = None
        if count := getattr(model, "lda_dims", 0):
            # of all folds together: their covariances are alike
            drawn = np.where(labelled, labels, -1)
            try:
                transform = linear_discriminants(
                    data.train, drawn, model.context, num_senones=data.num_senones, count=count
                )
            except ValueError as error:
                raise UserError(f"systems.{self.name}: {error}.") from None
        valid = data.with_extra(labelled, True)
        share = float(np.count_nonzero(labelled) / np.count_nonzero(valid)) if data.extra else 0.0
        provider = None if self.system.targets is None else self._targets.provider(device)
        context = model.context if provider is None else model.context | provider.context
        return TrainingTask(
            num_dims=data.train.num_dims,
            num_senones=data.num_senones,
            data=TrainingData(windows_of(data.frames, context, device=device), valid),
            criterion=self._criterion(members, data.with_extra(labels, -1), share or None, provider, device),
            evaluate=DevScorer(windows_of(data.dev, model.context, device=device), data.dev_labels),
            transform=transform,
        )

    def _check_labelled(self, labelled: np.ndarray) -> None:
        """Raises UserError where a model would learn from no frame, or no frame of dev says which epoch is best."""
        data, see = self.data, f"; {self.work.exp('align') / 'failed.json'} says why utterances have none"
        if not labelled.any():
            raise UserError(f"{self.name} has nothing to learn from: no frame of {data.train.folder} has a label{see}.")
        if not (data.dev_labels >= 0).any():
            raise UserError(f"no frame of {data.dev.folder} has a label, so that no epoch of {self.name} is best{see}.")
        if self.system.folds:
            held_out = held_out_frames(data.train, self.system.folds, self.system.num_models)
            alone = np.flatnonzero(~(labelled & ~held_out).any(1))
            if len(alone):
                raise UserError(
                    f"{self.name}: all labelled frames are in fold {int(alone[0]) % self.system.folds + 1}, on which "
                    f"member {int(alone[0]) + 1} does not train; lower folds."
                )

    def _criterion(
        self,
        members: Sequence[int],
        labels: np.ndarray,
        labelled_share: float | None,
        provider: TargetProvider | None,
        device: torch.device,
    ) -> Criterion:
        system = self.system
        if system.targets is None or provider is None:
            folds = system.folds
            held_out = held_out_frames(self.data.train, folds, system.num_models) if folds else None
            return HardTargets(labels, device, None if held_out is None else ~held_out[list(members)])
        return DistillationCriterion(
            provider,
            labels,
            soft_weight=system.targets.soft_weight,
            loss=system.targets.loss,
            device=device,
            labelled_share=labelled_share,
        )

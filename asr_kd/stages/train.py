"""Stages 4 and 6: trains the config's systems, in order of dependence, with the soft targets that they need.

On CPUs two systems are trained side by side, each with half of the cores: the small parts of a step leave cores idle.
On two cores with AVX2 only (torch 1.13.1, three models of 3 x 384 units, direct and distilled) an epoch of both took a
tenth less time than one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from asr_kd.acoustic.criteria import Criterion, DevScorer, HardTargets
from asr_kd.acoustic.lda import linear_discriminants
from asr_kd.acoustic.model import pick_device
from asr_kd.acoustic.training import TrainingData
from asr_kd.distillation.settings import LOSSES
from asr_kd.distillation.store import cuts_nothing
from asr_kd.distillation.targets import DistillationCriterion, TargetProvider
from asr_kd.errors import UserError
from asr_kd.frames.sampler import draw_fraction, held_out_frames
from asr_kd.frames.windows import windows_of
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.soft_targets import SoftTargetsResult, SystemTargets
from asr_kd.stages.training_run import TrainingTask, TrainResult, join_systems, reuse_members, train_models
from asr_kd.stages.training_set import TrainingSet, seeds_of, trained_stamp, training_set_of, training_settings
from asr_kd.workspace.config import TRAIN, Config, SystemConfig
from asr_kd.workspace.executor import RunOptions, default_jobs, parallel_map
from asr_kd.workspace.work import Workspace, labels_of

log = logging.getLogger(__name__)

_SIDE_BY_SIDE = 2


def train(
    config: Config, work: Workspace, options: RunOptions, names: Sequence[str] = (), nj: int | None = None
) -> list[TrainResult | SoftTargetsResult]:
    """Trains systems, each after those of them that it learns from, and makes their soft targets where needed.

    Args:
      names: of the systems; none: all of the config.
      nj: with 2 or more, on CPUs, two systems that are ready are trained at once; None: one for each core. The result
        does not depend on it.

    Raises:
      UserError: an earlier stage has not run, its artefacts do not fit together, or a system that is not among `names`
        and that one of them learns from is not trained.
    """
    for name in names:
        config.system(name)
    pending = [name for name in config.in_training_order() if not names or name in names]
    if not pending:
        raise UserError(f"{work.config_path} has no systems to train; name them under systems:.")
    opened = _Opened(config, work)
    for name in pending:  # settings that do not fit together are refused before anything is trained
        opened.run(name)
    cores = default_jobs()
    at_once = min(nj or cores, cores, _SIDE_BY_SIDE) if pick_device(options.device).type == "cpu" else 1
    results: list[TrainResult | SoftTargetsResult] = []
    while pending:
        ready = [name for name in pending if not set(config.systems[name].teachers) & set(pending)]
        runs = [opened.run(name) for name in ready]
        quick = [run for run in runs if not run.must_train]
        if quick:  # others may be ready then
            results += [run.train(options) for run in quick]
            pending = [name for name in pending if name not in {run.name for run in quick}]
            continue
        together = runs[:at_once]
        results += [targets for run in together for targets in run.make_targets(options, nj)]
        results += _train_at_once(together, options, cores)
        pending = [name for name in pending if name not in {run.name for run in together}]
    return results


@dataclass
class _Opened:
    """The systems of one call of `train`, with the training sets that they share."""

    config: Config
    work: Workspace
    _sets: dict[tuple[str, tuple[str, ...]], TrainingSet] = field(default_factory=dict)
    _runs: dict[str, SystemRun] = field(default_factory=dict)

    def run(self, name: str) -> SystemRun:
        if name not in self._runs:
            system = self.config.systems[name]
            sets = system.tree, system.targets.extra if system.targets else ()
            if sets not in self._sets:
                self._sets[sets] = training_set_of(self.config, self.work, name)
            self._runs[name] = SystemRun(self.config, self.work, name, self._sets[sets])
        return self._runs[name]


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
        """Of a finished folder."""
        inputs, step = self.data.inputs, "train"
        if self.system.reuse:
            source = trained_stamp(self.config, self.work, self.system.reuse, self.data, self.system.num_models)
            inputs |= {self.system.reuse: source["digest"]}
            step = "reuse"
        elif self.system.parts:
            stamps = {part: trained_stamp(self.config, self.work, part, self.data) for part in self.system.parts}
            inputs |= {part: stamp["digest"] for part, stamp in stamps.items()}
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
        seeds = seeds_of(self.config, self.name)
        return train_models(path, self.stamp, self.system, seeds, self._task, options, metadata)

    def _task(self, device: torch.device) -> TrainingTask:
        data, model, labels = self.data, self.system.model, self.data.train_labels
        labelled = labels >= 0
        if (fraction := draw_fraction(data.train, self.system.train_fraction, self.config.seed)) is not None:
            labelled &= fraction
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
            criterion=self._criterion(data.with_extra(labels, -1), share or None, provider, device),
            evaluate=DevScorer(windows_of(data.dev, model.context, device=device), data.dev_labels),
            transform=transform,
        )

    def _criterion(
        self, labels: np.ndarray, labelled_share: float | None, provider: TargetProvider | None, device: torch.device
    ) -> Criterion:
        system = self.system
        if system.targets is None or provider is None:
            folds = system.folds
            trains_on = ~held_out_frames(self.data.train, folds, system.num_models) if folds else None
            return HardTargets(labels, device, trains_on)
        return DistillationCriterion(
            provider,
            labels,
            soft_weight=system.targets.soft_weight,
            loss=system.targets.loss,
            device=device,
            labelled_share=labelled_share,
        )


def _train_at_once(runs: Sequence[SystemRun], options: RunOptions, cores: int) -> list[TrainResult]:
    """Each of them in a process of its own."""
    if len(runs) == 1:
        return [runs[0].train(options)]
    threads = max(1, min(cores, torch.get_num_threads()) // len(runs))  # OMP_NUM_THREADS may ask for fewer
    sides = [(run.name, replace(options, bar=line)) for line, run in enumerate(runs)]
    return list(parallel_map(partial(_train_side, runs[0].config, runs[0].work, threads), sides, nj=len(runs)))


def _train_side(config: Config, work: Workspace, threads: int, side: tuple[str, RunOptions]) -> TrainResult:
    name, options = side
    torch.set_num_threads(threads)  # of this helper process, which does nothing else
    try:
        return SystemRun(config, work, name, training_set_of(config, work, name)).train(options)
    except Exception as error:
        log.error("%s cannot be trained (%s); the system beside it goes on", name, error)
        raise

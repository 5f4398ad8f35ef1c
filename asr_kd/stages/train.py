"""Stages that train on hard targets: the ensemble, the direct models and the monophone control."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_kd.acoustic.criteria import DevScorer, HardTargets
from asr_kd.acoustic.lda import linear_discriminants
from asr_kd.acoustic.training import Objective
from asr_kd.errors import UserError
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import windows_of
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.training_run import Lesson, TrainResult, take_nets, train_nets
from asr_kd.workspace.config import Config, ModelConfig, StudentConfig, TrainingConfig, takes_members, to_mapping
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

FOLDERS = {  # student pair -> (direct, distilled)
    "student": ("baseline", "student"),
    "small": ("baseline_small", "student_small"),
    "few": ("baseline_few", "student_few"),
}
SEEDS_OF_ENSEMBLE, SEEDS_OF_STUDENTS, SEEDS_OF_FOLDS = 0, 500, 700


@dataclass(frozen=True)
class TrainingSet:
    """Aligned frames of training and dev, opened once per stage."""

    train: FrameStore
    dev: FrameStore
    states_name: str  # "states" or "states_monophone"
    tree_name: str
    num_states: int

    @property
    def states(self) -> np.ndarray:
        return np.asarray(self.train.array(self.states_name))

    @property
    def inputs(self) -> dict[str, str]:
        """Digests for a stamp."""
        found = {"train frames": self.train.digest, "dev frames": self.dev.digest}
        for name, store in (("train states", self.train), ("dev states", self.dev)):
            stamp = store.array_stamp(self.states_name)
            assert stamp is not None  # array() was read before
            found[name] = stamp["digest"]
        return found


def open_training_set(work: Workspace, *, monophone: bool = False) -> TrainingSet:
    """Opens the FrameStores and the labels.

    Raises:
      UserError: a stage before has not run, or its artefacts do not fit together.
    """
    suffix = "_monophone" if monophone else ""
    stamp = require(work.exp(f"tree{suffix}"), work, "align")
    stores = []
    for name in ("train", "dev"):
        require(work.frames(name), work, "features")
        store = FrameStore.open(work.frames(name))
        labels = store.array_stamp(f"states{suffix}")
        if labels is None:
            raise UserError(f"{work.frames(name)} has no state labels yet; make them first: {work.command('align')}")
        if labels["inputs"].get("tree") != stamp["digest"]:
            raise UserError(
                f"{work.frames(name)} is labelled with the states of tree {labels['inputs'].get('tree')}, but "
                f"{work.exp('tree' + suffix)} is {stamp['digest']}; label it again: {work.command('align')}"
            )
        stores.append(store)
    return TrainingSet(stores[0], stores[1], f"states{suffix}", f"tree{suffix}", int(stamp["metadata"]["num_senones"]))


@dataclass(frozen=True)
class SpeechJob:
    """Nets to be trained on speech into `exp/<folder>`.

    Attributes:
      seeds: one per member; the first also seeds the order of the frames and dropout.
      chosen: (N,) bool, the training frames to learn from; None: all that have a label.
      taken_from: the trained nets whose first ones these are; None: they are trained.
    """

    work: Workspace
    folder: str
    stamp: Stamp
    data: TrainingSet
    model: ModelConfig
    training: TrainingConfig
    seeds: list[int]
    make_objective: Callable[[torch.device], Objective]
    chosen: np.ndarray | None = None
    taken_from: Path | None = None

    @property
    def reason(self) -> str | None:
        """Why there is something to train; None where the nets are there."""
        return stale_reason(self.work.exp(self.folder), self.stamp)

    def train(self, options: RunOptions) -> TrainResult:
        """Trains them, unless the stamp says that they are there."""
        metadata = {"tree": self.data.tree_name, "states": self.data.states_name}
        path = self.work.exp(self.folder)
        if self.taken_from is not None:
            return take_nets(path, self.stamp, self.taken_from, len(self.seeds), **metadata)
        return train_nets(path, self.stamp, self.model, self.training, self.seeds, self._lesson, options, **metadata)

    def _lesson(self, device: torch.device) -> Lesson:
        data, context = self.data, {"left": self.model.left_context, "right": self.model.right_context}
        examples = windows_of(data.train, device=device, **context)
        dev = windows_of(data.dev, device=device, **context)
        labelled = data.states >= 0
        valid = labelled if self.chosen is None else self.chosen & labelled
        transform = None
        if self.model.lda_dims:
            # of out-of-fold teachers too from all frames: the covariances of a fold are those of the others
            labels, count = np.where(valid, data.states, -1), self.model.lda_dims
            transform = linear_discriminants(data.train, labels, **context, num_classes=data.num_states, count=count)
        return Lesson(
            examples,
            examples.num_inputs,
            data.num_states,
            self.make_objective(device),
            DevScorer(dev, np.asarray(data.dev.array(data.states_name))),
            valid=valid,
            transform=transform,
        )


def train_ensemble(
    config: Config, work: Workspace, options: RunOptions, members: int | None = None
) -> list[TrainResult]:
    """The teachers; where soft targets are to be made out of fold, also the teachers that each miss a fold."""
    data = open_training_set(work)
    teacher = config.teacher
    count = members or teacher.members
    jobs = [_hard_job(config, work, data, "teacher", teacher.model, teacher.training, count)]
    folds = config.soft_targets.out_of_fold
    if folds > 1:
        model, training = teacher.model, teacher.training
        jobs.append(_hard_job(config, work, data, "teacher_folds", model, training, max(count, folds), folds))
    return [job.train(options) for job in jobs]


def direct_job(config: Config, work: Workspace, pair: str = "student") -> SpeechJob:
    """The student's net to be trained on the forced alignment alone, or taken from the ensemble where it is that.

    Raises:
      UserError: it is to be taken, and the ensemble is not there, or is not what the config and the labels would make.
    """
    student, data = student_config(config, pair), open_training_set(work)
    folder, _ = FOLDERS[pair]
    job = _hard_job(config, work, data, folder, student.model, student.direct, student.seeds, share=student.share)
    if not takes_members(student, config.teacher):
        return job
    seeds = seeds_of(config, SEEDS_OF_ENSEMBLE, student.seeds)
    found = teacher_stamp(work, data)
    again = work.command("train --ensemble")
    if found["metadata"]["members"] < len(seeds):
        raise UserError(
            f"{work.exp('teacher')} has {found['metadata']['members']} members, of which {folder} is to have "
            f"{len(seeds)}; train more: {again}"
        )
    settings = dict(job.stamp.settings) | {"seeds": seeds}
    of_first = found["settings"] | {"seeds": found["settings"]["seeds"][: len(seeds)]}
    if any(of_first[key] != settings[key] for key in ("model", "training", "seeds")):
        raise UserError(
            f"{work.exp('teacher')} was made with other settings than the config's teacher; train it again: {again}"
        )
    stamp = Stamp("take", settings, data.inputs | {"teacher": found["digest"]}, config.seed)
    return replace(job, stamp=stamp, seeds=seeds, taken_from=work.exp("teacher"))


def teacher_stamp(work: Workspace, data: TrainingSet, folder: str = "teacher") -> dict[str, Any]:
    """The stamp of an ensemble that was trained on these frames and labels.

    Raises:
      UserError: it is not there, or was trained on others.
    """
    path = work.exp(folder)
    teacher = require(path, work, "train --ensemble")
    for name, digest in data.inputs.items():
        if teacher["inputs"].get(name) != digest:
            raise UserError(
                f"{path} was trained on {name} {teacher['inputs'].get(name)}, but they are {digest} now; "
                f"train it again: {work.command('train --ensemble')}"
            )
    return teacher


def train_direct(config: Config, work: Workspace, options: RunOptions, pair: str = "student") -> TrainResult:
    """The student's net trained on the forced alignment alone, or taken from the ensemble; see `direct_job`."""
    job, student = direct_job(config, work, pair), student_config(config, pair)
    if student.direct_of_ensemble and job.taken_from is None and job.reason is not None:
        log.info("%s is trained by itself: the ensemble is trained otherwise, or has fewer nets", job.folder)
    return job.train(options)


def train_monophone(config: Config, work: Workspace, options: RunOptions) -> TrainResult:
    """The control: the direct model, one seed of it, on untied, context-independent states."""
    student = config.student
    data = open_training_set(work, monophone=True)
    return _hard_job(config, work, data, "monophone", student.model, student.direct, 1).train(options)


def student_config(config: Config, pair: str) -> StudentConfig:
    student: StudentConfig | None = getattr(config, pair)
    if student is None:
        raise UserError(f"the config has no section {pair!r}; add one.")
    return student


def pairs_of(config: Config) -> tuple[str, ...]:
    """The pairs of students that the stages train by themselves; `few` is that of `asr-kd fewshot`."""
    return ("student",) if config.small is None else ("student", "small")


def seeds_of(config: Config, first: int, count: int) -> list[int]:
    """Seeds of nets: direct and distilled ones of one number start from the same weights, unless direct are taken."""
    return [config.seed * 1000 + first + k for k in range(count)]


def _hard_job(
    config: Config,
    work: Workspace,
    data: TrainingSet,
    folder: str,
    model: ModelConfig,
    training: TrainingConfig,
    count: int,
    folds: int = 0,
    share: float = 1.0,
) -> SpeechJob:
    first = {"teacher": SEEDS_OF_ENSEMBLE, "teacher_folds": SEEDS_OF_FOLDS}.get(folder, SEEDS_OF_STUDENTS)
    seeds = seeds_of(config, first, count)
    settings = {"model": to_mapping(model), "training": to_mapping(training), "seeds": seeds, "folds": folds}
    settings["share"] = share
    stamp = Stamp("train", settings, data.inputs, config.seed)

    def objective(device: torch.device) -> HardTargets:
        trains_on = None if not folds else ~answers_for(data.train, folds, count)
        return HardTargets(data.states, device, trains_on)

    chosen = share_of(data.train, share, config.seed)
    return SpeechJob(work, folder, stamp, data, model, training, seeds, objective, chosen)


def share_of(store: FrameStore, share: float, seed: int) -> np.ndarray | None:
    """(N,) bool: the frames of a share of the utterances, one or more; a smaller share is part of a larger one.

    Altered copies of an utterance go with it. None where all are meant.
    """
    if share >= 1:
        return None
    original = _originals(store)
    count = int(original.max()) + 1
    drawn = np.random.default_rng([seed, 3]).permutation(count)[: max(1, round(share * count))]
    return np.repeat(np.isin(original, drawn), np.diff(store.offsets))


def answers_for(store: FrameStore, folds: int, members: int) -> np.ndarray:
    """(M, N) bool: member m answers for the frames of fold m modulo `folds`, and trains on all others.

    Altered copies of an utterance are in its fold: the copies sound alike.
    """
    fold_of_frame = np.repeat(_originals(store) % folds, np.diff(store.offsets))
    return fold_of_frame[None, :] == (np.arange(members) % folds)[:, None]


def _originals(store: FrameStore) -> np.ndarray:
    """(U,) int64: utterances by number, where altered copies have the number of what they are copies of."""
    names = store.originals
    order = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names])

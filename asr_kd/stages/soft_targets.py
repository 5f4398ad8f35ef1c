"""Stage 5: the teachers' soft targets of all training frames, and targets that another toolkit computed.

Each set has a store of its own, so that systems that also learn from untranscribed sets share training's with others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asr_kd.acoustic.model import pick_device
from asr_kd.distillation.settings import LOSSES, TargetsConfig
from asr_kd.distillation.soft_target_worker import (
    SUMS,
    Shard,
    TargetsTask,
    TeacherFolder,
    clear_cache,
    compute_soft_targets,
    estimate_mean_distribution,
)
from asr_kd.distillation.store import SoftTargetsError, SoftTargetStore, SoftTargetWriter, stored_bytes
from asr_kd.distillation.targets import OnlineTargets, StoredTargets, TargetProvider, Teacher
from asr_kd.errors import UserError
from asr_kd.frames.sampler import held_out_frames
from asr_kd.frames.source import Context
from asr_kd.frames.store import FrameStore
from asr_kd.frames.windows import Windows, windows_of
from asr_kd.io.folders import discard_partial, resuming_folder
from asr_kd.io.formatting import human_bytes
from asr_kd.io.progress import progress_bar
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, identity, read_stamp, stale_reason
from asr_kd.stages.imported_targets import ImportTask, file_digests, import_targets
from asr_kd.stages.training_set import TrainingSet, trained_stamp, training_set_of
from asr_kd.workspace.config import TRAIN, Config
from asr_kd.workspace.executor import RunOptions, default_jobs, parallel_map
from asr_kd.workspace.same_files import OnSameFiles
from asr_kd.workspace.work import Workspace

log = logging.getLogger(__name__)

SERIAL_FRAMES = 1 << 16  # fewer than these are computed before helper processes would have started
_RESULTS = ("frames", "bytes_per_frame", "full_bytes_per_frame", *SUMS)


@dataclass(frozen=True)
class SoftTargetsResult:
    """What a store takes on disk, and what was cut; means over frames."""

    folder: Path
    ran: bool
    frames: int
    bytes_per_frame: float
    full_bytes_per_frame: int  # of a full float16 distribution
    retained_mass: float
    kl: float  # KL(full || restored), nats
    entropy: float  # of the full distribution, nats
    entries: float  # stored per frame

    def __str__(self) -> str:
        return (
            f"soft targets {self.folder.name}: {'stored' if self.ran else 'already stored'}; {self.frames:,} frames, "
            f"{self.bytes_per_frame:.1f} bytes per frame ({self.full_bytes_per_frame} in full float16), "
            f"{self.entries:.1f} entries, retained mass {self.retained_mass:.4f}, "
            f"KL(full || restored) {self.kl:.2e} nats of an entropy of {self.entropy:.3f}"
        )


def make_soft_targets(
    config: Config, work: Workspace, options: RunOptions, names: Sequence[str] = (), nj: int | None = None
) -> list[SoftTargetsResult]:
    """Makes the targets that these systems learn from; systems with the same targets share a store.

    Args:
      names: systems; none: all that learn from stored targets and whose teachers are trained.
      nj: processes, on CPUs; None: one for each core. The result does not depend on it.

    Returns:
      One for each store; none where no system of the config learns from stored targets.

    Raises:
      UserError: a teacher is not trained, or a system does not learn from stored targets.
    """
    learners = [name for name in config.in_training_order() if config.systems[name].stored_targets is not None]
    for name in names:
        if config.system(name).targets is None:
            raise UserError(f"{name} has no targets in the config: it learns from hard labels alone.")
        if name not in learners:
            raise UserError(f"{name} has targets.online: true: its teachers run beside it, and nothing is stored.")
    if not learners:
        return []
    chosen = names or [
        name
        for name in learners
        if all(read_stamp(work.exp(teacher)) is not None for teacher in config.systems[name].teachers)
    ]
    if not chosen:
        teachers = dict.fromkeys(t for name in learners for t in config.systems[name].teachers)
        raise UserError(
            f"no teacher is trained yet ({', '.join(teachers)}); train them first: {work.command('train --teachers')}"
        )
    results: dict[Path, SoftTargetsResult] = {}
    for name in chosen:
        for result in SystemTargets(config, work, training_set_of(config, work, name), name).store(options, nj):
            results.setdefault(result.folder, result)
    return list(results.values())


@dataclass(frozen=True)
class SystemTargets:
    """The soft targets that one system learns from.

    Raises:
      UserError: a teacher is not trained, or was trained on other frames or labels, or with other settings.
    """

    config: Config
    work: Workspace
    data: TrainingSet
    name: str

    @property
    def settings(self) -> TargetsConfig:
        targets = self.config.system(self.name).targets
        assert targets is not None  # callers have looked
        return targets

    def folder(self, of_set: str = TRAIN) -> Path:
        """Returns the folder of a set's store of soft targets, where there is one."""
        return self.work.targets(self.settings.name + ("" if of_set == TRAIN else f",set={of_set}"))

    @cached_property
    def stamps(self) -> dict[str, Stamp]:
        """Set -> what its targets are made from; many files may have to be looked at."""
        targets = self.settings
        if targets.imported:
            inputs = {"tree": self.data.tree_digest} | file_digests(self._imported, self.folder())
        else:
            stamps = {name: trained_stamp(self.config, self.work, name, self.data) for name in targets.source}
            inputs = {name: identity(stamp) for name, stamp in stamps.items()}
        # the teachers' stamps have the training frames
        of_frames = {name: {f"{name} frames": store.digest} for name, store in self.data.stores.items()}
        if not targets.imported:
            of_frames[TRAIN] = {}
        return {name: targets.stamp(inputs | frames, self.config.seed) for name, frames in of_frames.items()}

    def store(self, options: RunOptions, nj: int | None = None) -> list[SoftTargetsResult]:
        """Makes the store of each set, unless it is there; see `make_soft_targets`."""
        return [self._store(name, options, nj) for name in self.data.stores]

    def _store(self, of_set: str, options: RunOptions, nj: int | None) -> SoftTargetsResult:
        targets, folder, stamp, frames = (
            self.settings,
            self.folder(of_set),
            self.stamps[of_set],
            self.data.stores[of_set],
        )
        reason = stale_reason(folder, stamp)
        if reason is None:
            discard_partial(folder)
            metadata = (read_stamp(folder) or {})["metadata"]
            return SoftTargetsResult(folder, False, **{key: metadata[key] for key in _RESULTS})
        log.info("soft targets %s: %s", folder.name, reason)
        if targets.imported:
            source = ImportTask(self._imported, frames, self.data.num_senones, targets.stored, self.config.seed)
            metadata = import_targets(folder, stamp, source, quiet=options.quiet)
        else:
            task = self.task(of_set, str(pick_device(options.device)))
            try:
                metadata = _compute(folder, stamp, task, frames, self.config.seed, nj, quiet=options.quiet)
            finally:
                clear_cache()
        return SoftTargetsResult(folder, True, **{key: metadata[key] for key in _RESULTS})

    def task(self, of_set: str, device: str) -> TargetsTask:
        """What computing the targets of a set needs to know."""
        teachers = [*self._teacher_folders()]
        if of_set != TRAIN:  # no member was trained on it
            teachers = [replace(teacher, folds=0) for teacher in teachers]
        frames = self.data.stores[of_set].folder
        return TargetsTask(frames, tuple(teachers), self.settings.stored, self.data.num_senones, device)

    def provider(self, device: torch.device) -> TargetProvider:
        """Returns the source of the targets in training: the stores of the system's sets, or its teachers at each step.

        Raises:
          UserError: a store is missing, damaged, or was made from something else.
        """
        targets = self.settings
        if targets.online:
            return OnlineTargets(self._online_teachers(device), temperature=targets.temperature, mean=targets.mean)
        stores = [self._open_store(name, device) for name in self.data.stores]
        return StoredTargets(*stores, frames=self.data.together)

    def _open_store(self, of_set: str, device: torch.device) -> SoftTargetStore:
        folder, again = self.folder(of_set), self.work.command(f"soft-targets {self.name}")
        if (reason := stale_reason(folder, self.stamps[of_set])) is not None:
            raise UserError(f"{folder}: {reason}; make it again: {again}")
        if LOSSES[self.settings.loss].needs_all_entries and (read_stamp(folder) or {})["metadata"].get("zeros"):
            raise UserError(
                f"{folder}: some posteriors are 0, whose logits are not known; leave out "
                f"systems.{self.name}.targets.loss."
            )
        temperature, num_frames = self.settings.temperature, self.data.stores[of_set].num_frames
        try:
            return SoftTargetStore(folder, temperature=temperature, num_frames=num_frames, device=device)
        except SoftTargetsError as error:
            raise UserError(f"{error}; delete {folder} and make it again: {again}") from None

    def _online_teachers(self, device: torch.device) -> list[Teacher]:
        teachers, student = [], self.config.systems[self.name]
        altered = student.training.augment.active
        # those of the student's context see its own inputs; the others share windows of theirs, if nothing is altered
        windows: dict[Context, Windows | None] = {student.model.context: None}
        for folder in self._teacher_folders():
            model = folder.load(device)
            if model.context not in windows:
                windows[model.context] = None if altered else windows_of(self.data.frames, model.context, device=device)
            answering = None
            if folder.folds:  # of a set that no member was trained on all of them answer
                held_out = held_out_frames(self.data.train, folder.folds, model.members)
                answering = self.data.with_extra(held_out, True)
            teachers.append(Teacher(model, windows[model.context], answering, folder.weight))
        return teachers

    def _teacher_folders(self) -> Iterator[TeacherFolder]:
        """Teachers count alike; where one is an ensemble of systems, all models of these do.

        The seeds of a system are separate models: the first one is the teacher.
        """
        for teacher in self.settings.source:
            answering = self.config.answering(teacher)
            for name, count in answering.items():
                share = count / sum(answering.values())
                yield TeacherFolder(self.work.exp(name), count, self.config.systems[name].folds, share)

    @property
    def _imported(self) -> Path:
        return self.work.config_path.parent / self.settings.source[0]


def _compute(
    folder: Path, stamp: Stamp, task: TargetsTask, store: FrameStore, seed: int, nj: int | None, *, quiet: bool
) -> dict[str, Any]:
    """Fills the folder; returns its stamp's metadata."""
    mean_distribution, entries = estimate_mean_distribution(task, seed)
    _check_disk(folder, task, entries, store.num_frames)
    if task.device != "cpu" or store.num_frames < SERIAL_FRAMES:
        nj = 1
    nj = nj or default_jobs()
    if nj > 1:
        clear_cache()  # the helper processes load their own
    temperature = task.settings.temperature
    metadata: dict[str, Any] = {"temperature": temperature, "num_senones": task.num_senones, "frames": store.num_frames}
    with resuming_folder(folder, stamp, metadata) as temporary:
        writer = SoftTargetWriter(temporary, task.num_senones, mean_distribution, exact=task.exact)
        sums = writer.note or {"utterances": 0, **dict.fromkeys(SUMS, 0.0)}
        shards = [Shard(task, *ends, mean_distribution) for ends in task.shards(store.offsets, sums["utterances"])]
        bar = progress_bar(
            None if quiet else "soft targets", store.num_frames, "frame",
            initial=int(store.offsets[sums["utterances"]]), unit_scale=True,
        )  # fmt: skip
        compute = OnSameFiles(compute_soft_targets, task.artefacts)
        with bar:
            for shard, result in zip(shards, parallel_map(compute, shards, nj=nj), strict=True):
                writer.append(result.targets)
                sums = {name: sums[name] + result.sums[name] for name in SUMS} | {"utterances": shard.end}
                writer.commit(sums)
                bar.update(len(result.targets.counts))
        writer.close()
        written = SoftTargetStore(temporary, temperature=temperature, num_frames=store.num_frames)
        metadata |= {name: sums[name] / max(1, store.num_frames) for name in SUMS}
        metadata |= {"bytes_per_frame": written.bytes_per_frame, "full_bytes_per_frame": 2 * task.num_senones}
    return metadata


def _check_disk(folder: Path, task: TargetsTask, entries: float, num_frames: int) -> None:
    """Checks that the targets fit on the disk, by the number of entries in a sample of frames, and a tenth more."""
    needed = stored_bytes(num_frames, min(1.1 * entries, task.max_entries), exact=task.exact)
    log.info("a sample of frames has %.1f entries each: about %s of disk are needed", entries, human_bytes(needed))
    check_disk(folder, needed)

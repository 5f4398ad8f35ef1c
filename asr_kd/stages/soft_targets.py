"""Stages 5 and 6: the ensemble's soft targets of all training frames, and the students that learn from them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from asr_kd.acoustic.model import load_model
from asr_kd.acoustic.precision import pick_device
from asr_kd.distillation.soft_target_worker import (
    SUMS,
    Ensemble,
    Run,
    compute_soft_targets,
    forget,
    online_targets,
    sample,
)
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, stored_bytes
from asr_kd.distillation.targets import DistillationObjective, StoredTargets, TargetProvider
from asr_kd.errors import UserError
from asr_kd.io.folders import discard_partial, resuming_folder
from asr_kd.io.formatting import human_bytes
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, stale_reason
from asr_kd.stages.train import (
    FOLDERS,
    SEEDS_OF_STUDENTS,
    SpeechJob,
    TrainingSet,
    open_training_set,
    seeds_of,
    share_of,
    student_config,
    teacher_stamp,
)
from asr_kd.stages.training_run import TrainResult
from asr_kd.workspace.config import Config, to_mapping
from asr_kd.workspace.executor import default_jobs, parallel_map
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace, require

log = logging.getLogger(__name__)

_SMALL = 1 << 16  # frames that are done before helper processes would have started


@dataclass(frozen=True)
class SoftTargetsResult:
    """What the store cost and what it lost; means over frames."""

    folder: Path
    made: bool
    frames: int
    bytes_per_frame: float
    full_bytes_per_frame: int  # of a full float16 distribution
    retained_mass: float
    kl: float  # KL(full || restored), nats
    entropy: float  # of the full distribution, nats
    entries: float  # kept per frame

    def __str__(self) -> str:
        return (
            f"soft targets {'made' if self.made else 'already there'}: {self.frames:,} frames, "
            f"{self.bytes_per_frame:.1f} bytes per frame ({self.full_bytes_per_frame} in full float16), "
            f"{self.entries:.1f} entries, retained mass {self.retained_mass:.4f}, "
            f"KL(full || restored) {self.kl:.2e} nats of an entropy of {self.entropy:.3f}"
        )


_METADATA = ("frames", "bytes_per_frame", "full_bytes_per_frame", "retained_mass", "kl", "entropy", "entries")


def make_soft_targets(config: Config, work: Workspace, options: RunOptions, nj: int | None = None) -> SoftTargetsResult:
    """Runs the teachers over every training frame and stores their mean distribution at the config's temperature.

    Args:
      nj: processes, on CPUs; None: one for each core. The result does not depend on it.
    """
    data = open_training_set(work)
    folder, settings = work.exp("soft_targets"), config.soft_targets
    stamp = _stamp(config, work, data)
    reason = stale_reason(folder, stamp)
    if reason is None:
        discard_partial(folder)
        metadata = require(folder, work, "soft-targets")["metadata"]
        return SoftTargetsResult(folder, False, **{key: metadata[key] for key in _METADATA})
    log.info("making soft targets: %s", reason)
    device, num_frames = str(pick_device(options.device)), data.train.num_frames
    ensemble = Ensemble(data.train.folder, work.exp(_teacher_folder(config)), settings, data.num_states, device)
    if device != "cpu" or num_frames < _SMALL:
        nj = 1
    try:
        metadata = _make(config, folder, stamp, ensemble, num_frames, nj or default_jobs(), quiet=options.quiet)
    finally:
        forget()
    return SoftTargetsResult(folder, True, **{key: metadata[key] for key in _METADATA})


def _make(
    config: Config, folder: Path, stamp: Stamp, ensemble: Ensemble, num_frames: int, nj: int, *, quiet: bool
) -> dict[str, Any]:
    """Fills the folder; returns its stamp's metadata."""
    background, entries = sample(ensemble, config.seed)
    _check_disk(folder, ensemble, entries, num_frames)
    if nj > 1:
        forget()  # the helpers have their own
    temperature, num_states = ensemble.settings.temperature, ensemble.num_states
    metadata: dict[str, Any] = {"temperature": temperature, "num_states": num_states, "frames": num_frames}
    with resuming_folder(folder, stamp, metadata) as temporary:
        writer = SoftTargetWriter(temporary, num_states, background, exact=ensemble.exact)
        sums = writer.note or {"frames": 0, **dict.fromkeys(SUMS, 0.0)}
        runs = [
            Run(ensemble, first, min(first + ensemble.run_frames, num_frames), background)
            for first in range(sums["frames"], num_frames, ensemble.run_frames)
        ]
        bar = tqdm(
            desc="soft targets", total=num_frames, initial=sums["frames"], unit="frame", unit_scale=True,
            disable=quiet, mininterval=1.0,
        )  # fmt: skip
        for run, softened in zip(runs, parallel_map(compute_soft_targets, runs, nj=nj), strict=True):
            writer.append(softened.kept)
            sums = {name: sums[name] + softened.sums[name] for name in SUMS} | {"frames": run.end}
            writer.commit(sums)
            bar.update(run.end - run.first)
        bar.close()
        writer.close()
        store = SoftTargetStore(temporary, temperature=temperature, num_frames=num_frames)
        metadata |= {name: sums[name] / max(1, num_frames) for name in SUMS}
        metadata |= {"bytes_per_frame": store.bytes_per_frame, "full_bytes_per_frame": 2 * num_states}
    return metadata


def _check_disk(folder: Path, ensemble: Ensemble, entries: float, num_frames: int) -> None:
    """By the entries that a sample of frames keeps, and a tenth more."""
    needed = stored_bytes(num_frames, min(1.1 * entries, ensemble.most_entries), exact=ensemble.exact)
    log.info(
        "a sample of frames keeps %.1f entries each: about %s of disk will be needed", entries, human_bytes(needed)
    )
    check_disk(folder, needed)


def distill(
    config: Config, work: Workspace, options: RunOptions, pair: str = "student", *, online: bool = False
) -> TrainResult:
    """Trains the pair's net on soft and hard targets.

    Args:
      online: the teachers run beside the student, no store is read.
    """
    return distill_job(config, work, pair, online=online).train(options)


def distill_job(config: Config, work: Workspace, pair: str = "student", *, online: bool = False) -> SpeechJob:
    """The pair's net to be trained on soft and hard targets; see `distill`.

    Raises:
      UserError: the soft targets are not there, or were made from other teachers or with other settings.
    """
    student, data = student_config(config, pair), open_training_set(work)
    settings = student.distilled
    if settings.loss == "logits" and not online and config.soft_targets.keep_mass < 1:
        raise UserError(
            "loss: logits needs the teachers' whole distribution: add --online, or set soft_targets.keep_mass to 1 "
            "and soft_targets.max_entries to the number of tied states."
        )
    expected = _stamp(config, work, data)
    if not online:
        _check_store(work, data, expected)
    seeds = seeds_of(config, SEEDS_OF_STUDENTS, student.seeds)
    model = student.distilled_model
    stamp = Stamp(
        "distill",
        {
            "model": to_mapping(model),
            "distilled": to_mapping(settings),
            "seeds": seeds,
            "online": online,
            "share": student.share,
        },
        data.inputs | {"soft targets": expected.digest},
        config.seed,
    )

    def objective(device: torch.device) -> DistillationObjective:
        return DistillationObjective(
            _provider(config, work, data, device, online=online),
            data.states,
            soft_weight=settings.soft_weight,
            loss=settings.loss,
            device=device,
        )

    chosen = share_of(data.train, student.share, config.seed)
    _, folder = FOLDERS[pair]
    return SpeechJob(work, folder, stamp, data, model, settings.training, seeds, objective, chosen)


def _stamp(config: Config, work: Workspace, data: TrainingSet) -> Stamp:
    teacher = teacher_stamp(work, data, _teacher_folder(config))
    return Stamp("soft-targets", to_mapping(config.soft_targets), {"teacher": teacher["digest"]}, config.seed)


def _check_store(work: Workspace, data: TrainingSet, expected: Stamp) -> None:
    folder = work.exp("soft_targets")
    found = require(folder, work, "soft-targets")
    again = f"Make the soft targets again: {work.command('soft-targets')}"
    if found["metadata"]["num_states"] != data.num_states:
        raise UserError(
            f"{folder} was made for {found['metadata']['num_states']} states but {work.exp(data.tree_name)} has "
            f"{data.num_states}. {again}"
        )
    if found["inputs"]["teacher"] != expected.inputs["teacher"]:
        raise UserError(
            f"{folder} was made from teacher {found['inputs']['teacher']} but {work.exp('teacher')} is "
            f"{expected.inputs['teacher']}. {again}"
        )
    if found["digest"] != expected.digest:
        raise UserError(f"{folder} was made with other settings than the config's soft_targets. {again}")


def _provider(
    config: Config, work: Workspace, data: TrainingSet, device: torch.device, *, online: bool
) -> TargetProvider:
    if online:
        teachers = load_model(work.exp(_teacher_folder(config)), device)
        return online_targets(config.soft_targets, data.train, teachers)
    return StoredTargets(
        SoftTargetStore(
            work.exp("soft_targets"),
            temperature=config.soft_targets.temperature,
            num_frames=data.train.num_frames,
            device=device,
        )
    )


def _teacher_folder(config: Config) -> str:
    return "teacher_folds" if config.soft_targets.out_of_fold > 1 else "teacher"

"""Stages 5 and 6: the ensemble's soft targets of all training frames, and the students that learn from them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from asr_kd.acoustic.heap import keep_freed_memory
from asr_kd.acoustic.job import TrainResult
from asr_kd.acoustic.model import AcousticModel, load_model
from asr_kd.acoustic.options import RunOptions
from asr_kd.acoustic.precision import pick_device
from asr_kd.acoustic.stage import (
    FOLDERS,
    SEEDS_OF_STUDENTS,
    TrainingSet,
    answers_for,
    open_training_set,
    seeds_of,
    share_of,
    student_config,
    train_model,
)
from asr_kd.artifacts import Stamp, Work, reason_to_make, require
from asr_kd.capacity import check_disk, human_bytes
from asr_kd.config import Config, to_mapping
from asr_kd.distillation.objective import DistillationObjective, OnlineTargets, StoredTargets, TargetProvider
from asr_kd.distillation.store import SoftTargetStore, SoftTargetWriter, keep_largest, restore
from asr_kd.errors import UserError
from asr_kd.frames.windows import ChunkedFrames, WindowedFrames, windows_of
from asr_kd.growing import discard_partial, resuming_folder

log = logging.getLogger(__name__)

FRAMES_AT_ONCE = 2048
BACKGROUND_FRAMES = 20000  # sample from which the mean distribution is estimated


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


_FACTS = ("frames", "bytes_per_frame", "full_bytes_per_frame", "retained_mass", "kl", "entropy", "entries")


def make_soft_targets(config: Config, work: Work, options: RunOptions) -> SoftTargetsResult:
    """Runs the teachers over every training frame and stores their mean distribution at the config's temperature."""
    data = open_training_set(work)
    folder, settings = work.exp("soft_targets"), config.soft_targets
    stamp = _stamp(config, work, data)
    reason = reason_to_make(folder, stamp)
    if reason is None:
        discard_partial(folder)
        facts = require(folder, work, "soft-targets")["facts"]
        return SoftTargetsResult(folder, False, **{key: facts[key] for key in _FACTS})
    log.info("making soft targets: %s", reason)
    device = pick_device(options.device)
    keep_freed_memory()
    teachers = load_model(work.exp(_teacher_folder(config)), device)
    frames = _windows(data, teachers, device)
    provider = _online(config, data, teachers)
    # an entry's number and value; per frame an offset, a count and what is left over
    exact = settings.keep_mass >= 1 and settings.max_entries >= data.num_states
    needed = frames.num_frames * (min(settings.max_entries, data.num_states) * (6 if exact else 4) + 14)
    log.info("at most %s of disk will be needed", human_bytes(needed))
    check_disk(folder, needed)
    background = _background(provider, frames, config.seed)
    facts = {"temperature": settings.temperature, "num_states": data.num_states, "frames": frames.num_frames}
    with resuming_folder(folder, stamp, facts) as temporary:
        writer = SoftTargetWriter(temporary, data.num_states, background.cpu().numpy(), exact=exact)
        sums = writer.note or {"frames": 0, "retained_mass": 0.0, "kl": 0.0, "entropy": 0.0, "entries": 0.0}
        bar = tqdm(
            desc="soft targets", total=frames.num_frames, initial=sums["frames"], unit="frame", unit_scale=True,
            disable=options.quiet, mininterval=1.0,
        )  # fmt: skip
        for first in range(sums["frames"], frames.num_frames, FRAMES_AT_ONCE):
            part = torch.arange(first, min(first + FRAMES_AT_ONCE, frames.num_frames), device=device)
            full = provider.targets(part, frames.inputs(part)).log_probabilities
            kept = keep_largest(full, keep_mass=settings.keep_mass, max_entries=settings.max_entries)
            writer.append(kept)
            restored = restore(kept, background)
            sums["retained_mass"] += float(np.exp(kept.log_probabilities.astype(np.float64)).sum())
            sums["kl"] += float((full.exp() * (full - restored)).sum())
            sums["entropy"] -= float((full.exp() * full).sum())
            sums["entries"] += len(kept.ids)
            sums["frames"] += len(part)
            writer.mark(sums)
            bar.update(len(part))
        bar.close()
        writer.close()
        store = SoftTargetStore(temporary, temperature=settings.temperature, num_frames=frames.num_frames)
        facts |= {
            name: sums[name] / max(1, frames.num_frames) for name in ("retained_mass", "kl", "entropy", "entries")
        }
        facts |= {"bytes_per_frame": store.bytes_per_frame, "full_bytes_per_frame": 2 * data.num_states}
    return SoftTargetsResult(folder, True, **{key: facts[key] for key in _FACTS})


def distill(
    config: Config, work: Work, options: RunOptions, pair: str = "student", *, online: bool = False
) -> TrainResult:
    """Trains the pair's net on soft and hard targets.

    Args:
      online: the teachers run beside the student, no store is read.
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
    model = student.model
    if settings.hidden_dropout is not None:
        model = replace(model, hidden_dropout=settings.hidden_dropout)
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
    return train_model(work, FOLDERS[pair][1], stamp, data, model, settings.training, seeds, objective, options, chosen)


def _stamp(config: Config, work: Work, data: TrainingSet) -> Stamp:
    folder = work.exp(_teacher_folder(config))
    teacher = require(folder, work, "train --ensemble")
    for name, digest in data.inputs.items():
        if teacher["inputs"].get(name) != digest:
            raise UserError(
                f"{folder} was trained on {name} {teacher['inputs'].get(name)}, but they are {digest} now; "
                f"train it again: {work.command('train --ensemble')}"
            )
    return Stamp("soft-targets", to_mapping(config.soft_targets), {"teacher": teacher["digest"]}, config.seed)


def _check_store(work: Work, data: TrainingSet, expected: Stamp) -> None:
    folder = work.exp("soft_targets")
    found = require(folder, work, "soft-targets")
    again = f"Make the soft targets again: {work.command('soft-targets')}"
    if found["facts"]["num_states"] != data.num_states:
        raise UserError(
            f"{folder} was made for {found['facts']['num_states']} states but {work.exp(data.tree_name)} has "
            f"{data.num_states}. {again}"
        )
    if found["inputs"]["teacher"] != expected.inputs["teacher"]:
        raise UserError(
            f"{folder} was made from teacher {found['inputs']['teacher']} but {work.exp('teacher')} is "
            f"{expected.inputs['teacher']}. {again}"
        )
    if found["digest"] != expected.digest:
        raise UserError(f"{folder} was made with other settings than the config's soft_targets. {again}")


def _provider(config: Config, work: Work, data: TrainingSet, device: torch.device, *, online: bool) -> TargetProvider:
    if online:
        return _online(config, data, load_model(work.exp(_teacher_folder(config)), device))
    return StoredTargets(
        SoftTargetStore(
            work.exp("soft_targets"),
            temperature=config.soft_targets.temperature,
            num_frames=data.train.num_frames,
            device=device,
        )
    )


def _online(config: Config, data: TrainingSet, teachers: AcousticModel) -> OnlineTargets:
    folds = config.soft_targets.out_of_fold
    members = answers_for(data.train, folds, teachers.members) if folds > 1 else None
    settings = config.soft_targets
    return OnlineTargets(teachers, temperature=settings.temperature, mean=settings.mean, members=members)


def _teacher_folder(config: Config) -> str:
    return "teacher_folds" if config.soft_targets.out_of_fold > 1 else "teacher"


def _windows(data: TrainingSet, model: AcousticModel, device: torch.device) -> WindowedFrames | ChunkedFrames:
    settings = model.settings
    return windows_of(data.train, left=settings.left_context, right=settings.right_context, device=device)


def _background(provider: TargetProvider, frames: WindowedFrames | ChunkedFrames, seed: int) -> Tensor:
    """(C,) the mean distribution over a random sample of frames."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(frames.num_frames, generator=generator)[:BACKGROUND_FRAMES].sort().values
    total = None
    for part in sample.split(FRAMES_AT_ONCE):
        here = part.to(frames.device)
        sums = provider.targets(here, frames.inputs(here)).log_probabilities.exp().sum(0)
        total = sums if total is None else total + sums
    assert total is not None  # a training set has frames
    return total / total.sum()

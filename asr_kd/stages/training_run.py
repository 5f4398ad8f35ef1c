"""One training job: the nets of one folder, trained unless their stamp says that they are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_kd.acoustic.checkpoint import Progress
from asr_kd.acoustic.lda import InputTransform
from asr_kd.acoustic.model import AcousticModel, copy_members, save_model
from asr_kd.acoustic.precision import pick_device
from asr_kd.acoustic.training import Augment, DevScores, Examples, Objective, fit, read_log, write_log
from asr_kd.errors import UserError
from asr_kd.io.folders import replacing_folder
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import Stamp, read_stamp, stale_reason
from asr_kd.workspace.config import ModelConfig, TrainingConfig
from asr_kd.workspace.run_options import RunOptions

log = logging.getLogger(__name__)

_DISK_PER_WEIGHT = 4 + 2 * 16  # the net; a checkpoint (weights, best ones, two moments), while it replaces the last one


@dataclass(frozen=True)
class TrainResult:
    """What a training stage did."""

    folder: Path
    made: bool
    members: int
    parameters: int  # of one member
    dev_accuracy: list[float]  # of each member, at its best epoch
    best_epoch: list[int]
    train_accuracy: list[float]
    taken: bool = False  # they were trained as members of the ensemble

    def __str__(self) -> str:
        spread = f"{min(self.dev_accuracy):.1%} to {max(self.dev_accuracy):.1%}" if self.dev_accuracy else "-"
        state = f"{'' if self.made else 'already '}{'taken from the ensemble' if self.taken else 'trained'}"
        return (
            f"{self.folder.name}: {state}; {self.members} x {self.parameters:,} parameters, "
            f"dev frame accuracy {spread} (best epochs {', '.join(map(str, self.best_epoch))})"
        )


@dataclass(frozen=True)
class Lesson:
    """What nets learn from; arguments of `fit`."""

    examples: Examples
    num_inputs: int
    num_classes: int
    objective: Objective
    evaluate: Callable[[AcousticModel], DevScores] | None = None
    valid: np.ndarray | None = None
    augment: Augment | None = None
    transform: InputTransform | None = None  # what the nets take in place of the inputs as they are


def train_nets(
    path: Path,
    stamp: Stamp,
    model: ModelConfig,
    training: TrainingConfig,
    seeds: list[int],
    make_lesson: Callable[[torch.device], Lesson],
    options: RunOptions,
    **metadata: Any,
) -> TrainResult:
    """Trains nets into the folder `path`.

    Args:
      seeds: one per member; the first also seeds the order of the examples and dropout.
      make_lesson: called only where there is something to train.
      metadata: what the stamp is to tell besides.
    """
    checkpoint = _checkpoint(path)
    reason = stale_reason(path, stamp)
    if reason is None:
        known = (read_stamp(path) or {})["metadata"]
        return TrainResult(path, False, **{key: known[key] for key in _METADATA})
    log.info("training %s: %s", path.name, reason)
    device = pick_device(options.device)
    lesson = make_lesson(device)
    if model.lda_dims and lesson.transform is None:
        raise UserError(f"{path.name}: only nets for speech learn from linear discriminants; leave out model.lda_dims.")
    net = AcousticModel(model, lesson.num_inputs, lesson.num_classes, seeds, lesson.transform).to(device)
    there = checkpoint.stat().st_size if checkpoint.exists() else 0
    check_disk(path, _DISK_PER_WEIGHT * net.members * net.parameters_per_member - there)
    progress = fit(
        net,
        lesson.examples,
        lesson.objective,
        training,
        seed=seeds[0],
        evaluate=lesson.evaluate,
        valid=lesson.valid,
        augment=lesson.augment,
        checkpoint=checkpoint,
        checkpoint_seconds=options.checkpoint_seconds,
        digest=stamp.digest,
        label=None if options.quiet else path.name,
        bar=options.bar,
        writer=_tensorboard(options, path.name),
    )
    net = net.folded()
    result = _metadata(net, progress)
    with replacing_folder(path, stamp, result | metadata) as temporary:
        save_model(net, temporary)
        write_log(temporary, progress.rows)
    checkpoint.unlink(missing_ok=True)
    return TrainResult(path, True, **result)


def take_nets(path: Path, stamp: Stamp, source: Path, count: int, **metadata: Any) -> TrainResult:
    """The first nets of the folder `source`, copied into the folder `path` with what is known of them.

    Raises:
      UserError: `source` is damaged.
    """
    reason = stale_reason(path, stamp)
    known = (read_stamp(path if reason is None else source) or {})["metadata"]
    result = _of_first({key: known[key] for key in _METADATA}, count) | {"members": count}
    if reason is None:
        return TrainResult(path, False, **result, taken=True)
    log.info("taking the first %d nets of %s for %s: %s", count, source.name, path.name, reason)
    rows = [_of_first(row, count) for row in read_log(source)]
    with replacing_folder(path, stamp, result | metadata) as temporary:
        copy_members(source, temporary, count)
        write_log(temporary, rows)
    _checkpoint(path).unlink(missing_ok=True)  # of a training that was stopped before they were to be taken
    return TrainResult(path, True, **result, taken=True)


def _checkpoint(path: Path) -> Path:
    return path.with_name(f".{path.name}.checkpoint.pt")


def _of_first(row: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The same, where a list has a number for each net, of the first nets alone."""
    return {key: value[:count] if isinstance(value, list) else value for key, value in row.items()}


_METADATA = ("members", "parameters", "dev_accuracy", "best_epoch", "train_accuracy")


def _metadata(net: AcousticModel, progress: Progress) -> dict[str, Any]:
    last = progress.rows[-1] if progress.rows else {}
    return {
        "members": net.members,
        "parameters": net.parameters_per_member,
        "dev_accuracy": progress.best_accuracy,
        "best_epoch": progress.best_epoch,
        "train_accuracy": last.get("train_accuracy", []),
    }


def _tensorboard(options: RunOptions, folder: str) -> Any:
    if options.tensorboard is None:
        return None
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs TensorBoard: install it with pip install 'asr_kd[tensorboard]'.") from None
    return SummaryWriter(str(options.tensorboard / folder))

"""One training run: the models of one folder, trained unless their stamp says that they are there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr_kd.acoustic.checkpoint import Progress
from asr_kd.acoustic.criteria import Criterion, DevScores
from asr_kd.acoustic.divergence import diverged_in
from asr_kd.acoustic.kind_check import check_kind
from asr_kd.acoustic.lda import InputTransform
from asr_kd.acoustic.model import FrameModel, build_model, pick_device
from asr_kd.acoustic.model_files import copy_members, join_models, save_model, weights_digest
from asr_kd.acoustic.ranks import Ranks
from asr_kd.acoustic.training import RunControl, TrainingData, fit, read_log, write_log
from asr_kd.errors import UserError
from asr_kd.io.folders import replacing_folder
from asr_kd.io.formatting import plural
from asr_kd.io.locks import locked
from asr_kd.io.resources import check_disk
from asr_kd.io.stamp import CONTENTS, Stamp, read_stamp, stale_reason
from asr_kd.workspace.config import SystemConfig
from asr_kd.workspace.executor import RunOptions

log = logging.getLogger(__name__)

# bytes: the weights, and a checkpoint (weights, best weights, two moments) with the previous one, which it replaces
_DISK_PER_WEIGHT = 4 + 2 * 16
_RESULTS = ("members", "parameters", "dev_accuracy", "best_epoch", "train_accuracy")


@dataclass(frozen=True)
class TrainResult:
    """What was trained."""

    folder: Path
    ran: bool
    members: int
    parameters: float  # of one member, a mean where they are of several kinds
    dev_accuracy: list[float]  # of each member, at its best epoch
    best_epoch: list[int]
    train_accuracy: list[float]
    reused_from: str = ""  # the system that they were trained as members of
    parts: tuple[str, ...] = ()  # the systems that they were trained in
    member: int | None = None  # of the system, which is trained apart

    def __str__(self) -> str:
        ends = [f"{edge(self.dev_accuracy):.1%}" for edge in (min, max)] if self.dev_accuracy else ["-"]
        spread = " to ".join(dict.fromkeys(ends))
        best = f"best epoch{'s' if len(self.best_epoch) > 1 else ''} {', '.join(map(str, self.best_epoch))}"
        state = f"reused from {self.reused_from}" if self.reused_from else "trained"
        sizes = f"{self.members} x {self.parameters:,.0f} parameters"
        if self.parts:
            state = f"joined from {' and '.join(self.parts)}"
            sizes = f"{plural(self.members, 'model')}, {self.parameters * self.members:,.0f} parameters together"
        name = self.folder.name
        if self.member is not None:
            name = f"{self.folder.parent.name.removesuffix('.members')}, member {self.member}"
        return f"{name}: {'' if self.ran else 'already '}{state}; {sizes}, dev frame accuracy {spread} ({best})"


@dataclass(frozen=True)
class TrainingTask:
    """What models learn from; opened only where there is something to train.

    Attributes:
      evaluate: scores the models on dev after each epoch.
      transform: of the inputs that the models learn from, instead of the inputs themselves.
    """

    num_dims: int
    num_senones: int
    data: TrainingData
    criterion: Criterion
    evaluate: Callable[[FrameModel], DevScores] | None = None
    transform: InputTransform | None = None


@dataclass(frozen=True)
class Models:
    """The models of a system that are trained side by side: all, or one of them.

    Attributes:
      seeds: of their first weights and their dropout. order: seed of the order of the frames, the whole system's.
      open_task: gives what they learn from, on a device.
      member: which one it is; None: all.
    """

    name: str
    system: SystemConfig
    seeds: Sequence[int]
    order: int
    open_task: Callable[[torch.device], TrainingTask]
    member: int | None = None

    @property
    def label(self) -> str:
        return self.name if self.member is None else f"{self.name} {self.member}"


def train_models(
    path: Path, stamp: Stamp, models: Models, options: RunOptions, metadata: dict[str, Any]
) -> TrainResult:
    """Trains models into the folder `path`, unless its stamp matches.

    Args:
      metadata: further entries of the stamp's metadata.
    """
    if options.rank:
        return _train_models(path, stamp, models, options, metadata)
    if stale_reason(path, stamp) is None:  # nothing will be written
        return TrainResult(path, False, **results_of(path), member=models.member)

    def refusal(holder: str) -> str:
        return f"{holder} is making {path}; wait until it has ended, or stop it."

    with locked(path.with_name(f".{path.name}.lock"), "a training", refusal):
        return _train_models(path, stamp, models, options, metadata)


def _train_models(
    path: Path, stamp: Stamp, models: Models, options: RunOptions, metadata: dict[str, Any]
) -> TrainResult:
    reason, member = stale_reason(path, stamp), models.member
    if reason is None:
        return TrainResult(path, False, **results_of(path), member=member)
    log.info("training %s: %s", models.label, reason)
    device, ranks = pick_device(options.device), Ranks(options.rank, options.world)
    task, system = models.open_task(device), models.system
    sizes = {"num_dims": task.num_dims, "num_senones": task.num_senones}
    model = build_model(system.model, **sizes, seeds=models.seeds, transform=task.transform)
    check_kind(model, task.transform)
    model = model.to(device)
    checkpoint = checkpoint_of(path)
    freed = checkpoint.stat().st_size if checkpoint.exists() else 0
    check_disk(path, _DISK_PER_WEIGHT * model.members * model.parameters_per_member - freed)
    with _tensorboard(options, models.label) as writer:
        control = RunControl(
            seed=models.order,
            evaluate=task.evaluate,
            digest=stamp.digest,
            checkpoint=checkpoint,
            checkpoint_seconds=options.checkpoint_seconds,
            label=None if options.quiet else models.label,
            bar=options.bar,
            writer=writer,
            ranks=ranks,
            follow_load=options.follow_load,
        )
        key = f"systems.{models.name}.training"
        advice = f"lower {key}.learning_rate" + (
            f", or {key}.optimizer: adam" if system.training.optimizer == "sgd" else ""
        )
        with diverged_in(path, advice):
            progress = fit(model, task.data, task.criterion, system.training, control)
    model = model.fold_input_transform()
    results = _results(model, progress)
    if not ranks.first:
        return TrainResult(path, True, **results, member=member)
    notes = results | metadata
    with replacing_folder(path, stamp, notes) as temporary:
        save_model(model, temporary)
        notes[CONTENTS] = weights_digest(temporary)
        write_log(temporary, progress.rows)
    checkpoint.unlink(missing_ok=True)
    return TrainResult(path, True, **results, member=member)


def reuse_members(path: Path, stamp: Stamp, source: Path, count: int, metadata: dict[str, Any]) -> TrainResult:
    """Copies the first models of the folder `source`, and what is known of them, into the folder `path`.

    Raises:
      UserError: `source` is damaged.
    """
    reason = stale_reason(path, stamp)
    results = _of_first(results_of(path if reason is None else source), count) | {"members": count}
    if reason is None:
        return TrainResult(path, False, **results, reused_from=source.name)
    log.info("reusing the first %d models of %s for %s: %s", count, source.name, path.name, reason)
    rows = [_of_first(row, count) for row in read_log(source)]
    with replacing_folder(path, stamp, results | metadata) as temporary:
        copy_members(source, temporary, count)
        write_log(temporary, rows)
    checkpoint_of(path).unlink(missing_ok=True)  # of a training that was stopped before the config said reuse
    return TrainResult(path, True, **results, reused_from=source.name)


def join_systems(path: Path, stamp: Stamp, parts: Mapping[str, Path], metadata: dict[str, Any]) -> TrainResult:
    """Makes `path` the ensemble of all models of some systems, with what is known of them.

    Args:
      parts: name of a system -> its folder.

    Raises:
      UserError: one of them is damaged.
    """
    reason = stale_reason(path, stamp)
    if reason is not None:
        log.info("joining %s as %s: %s", ", ".join(parts), path.name, reason)
        known = [results_of(part) for part in parts.values()]
        lists = ("dev_accuracy", "best_epoch", "train_accuracy")
        results = metadata | {key: [value for of_part in known for value in of_part[key]] for key in lists}
        with replacing_folder(path, stamp, results) as temporary:
            model = join_models(list(parts.values()), temporary)
            results |= {"members": model.members, "parameters": sum(model.member_parameters) / model.members}
        checkpoint_of(path).unlink(missing_ok=True)  # of a training that was stopped before the config said members
    return TrainResult(path, reason is not None, **results_of(path), parts=tuple(parts))


def checkpoint_of(path: Path) -> Path:
    """Returns the checkpoint file of a training into the folder `path`."""
    return path.with_name(f".{path.name}.checkpoint.pt")


def results_of(path: Path) -> dict[str, Any]:
    """What `TrainResult` says of the models of a finished folder."""
    metadata = (read_stamp(path) or {})["metadata"]
    return {name: metadata[name] for name in _RESULTS}


def _of_first(row: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A copy in which a list, which has a number for each model, has those of the first `count`."""
    return {key: value[:count] if isinstance(value, list) else value for key, value in row.items()}


def _results(model: FrameModel, progress: Progress) -> dict[str, Any]:
    last = progress.rows[-1] if progress.rows else {}
    return {
        "members": model.members,
        "parameters": model.parameters_per_member,
        "dev_accuracy": progress.best_accuracy,
        "best_epoch": progress.best_epoch,
        "train_accuracy": last.get("train_accuracy", []),
    }


@contextlib.contextmanager
def _tensorboard(options: RunOptions, name: str) -> Iterator[Any]:
    """A writer of TensorBoard logs, closed at the end; None where none is asked for."""
    if options.tensorboard is None:
        yield None
        return
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs TensorBoard: install it with pip install 'asr_kd[tensorboard]'.") from None
    with contextlib.closing(SummaryWriter(str(options.tensorboard / name))) as writer:
        yield writer

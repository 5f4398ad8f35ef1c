"""The one training loop: teachers, direct models, students and the flat start's net all go through it.

They differ only in where their targets come from (the `Objective`). Everything random is a function of (seed, epoch,
step), so that a run that was killed and resumed from its checkpoint gives the weights of an uninterrupted one.

Shapes:  M members, B frames in a batch, D inputs, C tied states.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from asr_kd import kernels
from asr_kd.acoustic.checkpoint import Checkpoints, Progress
from asr_kd.acoustic.model import AcousticModel
from asr_kd.acoustic.rng import StepRng
from asr_kd.errors import UserError
from asr_kd.frames.sampler import frame_batches
from asr_kd.io.files import read_json_lines, write_json_lines
from asr_kd.kernels.malloc import disable_malloc_trim
from asr_kd.workspace.config import TrainingConfig


class Examples(Protocol):
    """What a net is trained on; `asr_kd.frames.windows.WindowedFrames` is one."""

    num_frames: int

    def inputs(self, frames: Tensor) -> Tensor:
        """(B,) int64 frame numbers -> (B, D)."""


class Objective(Protocol):
    """Where the targets come from."""

    def __call__(self, logits: Tensor, frames: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """(M, B, C) logits of the frames -> {"loss": (M,), others to be logged: (M,)}, means over valid frames."""


Augment = Callable[[Tensor, StepRng], Tensor]  # (B, D) inputs -> (B, D)


@dataclass(frozen=True)
class DevScores:
    """Per member: frame accuracy (a fraction) and cross-entropy (nats)."""

    accuracy: list[float]
    cross_entropy: list[float]


def fit(
    model: AcousticModel,
    examples: Examples,
    objective: Objective,
    settings: TrainingConfig,
    *,
    seed: int,
    evaluate: Callable[[AcousticModel], DevScores] | None = None,
    valid: np.ndarray | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    digest: str = "",
    label: str | None = None,
    bar: int | None = None,
    writer: Any = None,
) -> Progress:
    """Trains every member of `model` in place.

    With `evaluate`, each member ends with the weights of its own best epoch on dev (by frame accuracy); without it,
    with those of the last epoch.

    Args:
      seed: of the order of the frames and of dropout; members differ by their first weights and by dropout.
      valid: (N,) bool, the frames to draw from; None: all.
      augment: alters the inputs of each batch anew; teachers that run online see the altered ones too.
      checkpoint: file for exact resume; written every `checkpoint_seconds` (less often where it takes long) and
        after each epoch.
      digest: of all that determines the run; a checkpoint with another digest is ignored.
      label: the progress bar's name; None: no bar.
      bar: its line, counted from where the cursor is; None: the first that this process has free.
      writer: a TensorBoard SummaryWriter, or None.
    """
    if model.device.type == "cpu":
        disable_malloc_trim()
    model.precision = settings.precision
    optimizer = _optimizer(model, settings)
    progress = Progress(best_accuracy=[-1.0] * model.members, best_epoch=[-1] * model.members)
    best = {name: value.detach().clone() for name, value in model.state_dict().items()}
    checkpoints = Checkpoints(checkpoint, digest, checkpoint_seconds)
    progress = checkpoints.load(model, optimizer, best) or progress
    model.renew_copies()
    frames_per_epoch = examples.num_frames if valid is None else int(valid.sum())
    steps_per_epoch = math.ceil(frames_per_epoch / settings.batch_size)
    total_steps = settings.epochs * steps_per_epoch
    done = progress.epoch * frames_per_epoch + progress.frames
    with _progress_bar(settings.epochs * frames_per_epoch, done, label, bar) as shown:
        while progress.epoch < settings.epochs and not _out_of_patience(progress, settings):
            started, model_was_at = time.monotonic(), progress.frames
            model.train()
            batches = frame_batches(
                examples.num_frames,
                settings.batch_size,
                seed=seed,
                epoch=progress.epoch,
                start_batch=progress.batch,
                valid=valid,
            )
            for numbers in batches:
                rate = settings.learning_rate * _schedule(settings, progress.step / max(1, total_steps))
                frames = torch.from_numpy(numbers).to(model.device)
                _step(model, examples, objective, optimizer, frames, rate, seed, progress, augment)
                shown.update(len(numbers))
                checkpoints.save(model, optimizer, best, progress, if_due=True)
            seconds = time.monotonic() - started
            rate_seen = (progress.frames - model_was_at) / max(seconds, 1e-9)
            _end_epoch(model, settings, evaluate, best, progress, total_steps, seconds, rate_seen)
            _report(progress.rows[-1], writer, shown)
            checkpoints.save(model, optimizer, best, progress)
    model.drop_copies()
    if evaluate is not None:
        model.load_state_dict(best)
    model.eval()
    return progress


def _progress_bar(frames: int, done: int, label: str | None, line: int | None) -> tqdm[NoReturn]:
    return tqdm(
        total=frames,
        initial=done,
        desc=label,
        unit="frame",
        unit_scale=True,
        disable=label is None,
        mininterval=1.0,
        dynamic_ncols=True,
        position=line,
    )


def _step(
    model: AcousticModel,
    examples: Examples,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    frames: Tensor,
    learning_rate: float,
    seed: int,
    progress: Progress,
    augment: Augment | None,
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    noise = StepRng(seed, progress.step, model.device)
    inputs = examples.inputs(frames)
    if augment is not None:
        inputs = augment(inputs, noise)
    terms = objective(model(inputs, noise), frames, inputs)
    optimizer.zero_grad(set_to_none=True)
    # the sum over members: each member's gradient is that of its own mean loss, as if it were trained alone
    terms["loss"].sum().backward()
    optimizer.step()
    model.constrain()
    progress.batch += 1
    progress.step += 1
    progress.frames += len(frames)
    for name, value in terms.items():
        sums = progress.sums.setdefault(name, [0.0] * model.members)
        for member, number in enumerate(value.detach().tolist()):
            sums[member] += number * len(frames)


def _end_epoch(
    model: AcousticModel,
    settings: TrainingConfig,
    evaluate: Callable[[AcousticModel], DevScores] | None,
    best: dict[str, Tensor],
    progress: Progress,
    total_steps: int,
    seconds: float,
    frames_per_second: float,
) -> None:
    row: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "learning_rate": settings.learning_rate * _schedule(settings, (progress.step - 1) / max(1, total_steps)),
        **{name: [s / max(1, progress.frames) for s in sums] for name, sums in progress.sums.items()},
    }
    if evaluate is not None:
        model.eval()
        scores = evaluate(model)
        row |= {"dev_accuracy": scores.accuracy, "dev_cross_entropy": scores.cross_entropy}
        better = [new > old for new, old in zip(scores.accuracy, progress.best_accuracy, strict=True)]
        for member in (m for m, gained in enumerate(better) if gained):
            progress.best_accuracy[member] = scores.accuracy[member]
            progress.best_epoch[member] = progress.epoch + 1
            for name, value in model.state_dict().items():
                best[name][member] = value[member]
        progress.epochs_without_gain = 0 if any(better) else progress.epochs_without_gain + 1
    progress.rows.append(row | {"seconds": round(seconds, 3), "frames_per_second": round(frames_per_second, 1)})
    progress.epoch += 1
    progress.batch, progress.frames, progress.sums = 0, 0, {}


def _report(row: dict[str, Any], writer: Any, bar: Any) -> None:
    mean = {key: sum(value) / len(value) for key, value in row.items() if isinstance(value, list)}
    bar.set_postfix({k: f"{mean[k]:.3f}" for k in ("loss", "dev_accuracy") if k in mean}, refresh=False)
    if writer is not None:
        for key, value in (mean | {"learning_rate": row["learning_rate"]}).items():
            writer.add_scalar(key, value, row["epoch"])


def _optimizer(model: AcousticModel, settings: TrainingConfig) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
    return kernels.adamw(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        copies=model.hold_copies() if model.device.type == "cpu" else None,
    )


def _schedule(settings: TrainingConfig, done: float) -> float:
    """The learning rate's factor when the fraction `done` in [0, 1] of all steps is behind."""
    final = settings.final_learning_rate
    if settings.schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "exponential":
        return final**done
    return 1.0


def _out_of_patience(progress: Progress, settings: TrainingConfig) -> bool:
    return 0 < settings.patience <= progress.epochs_without_gain


def write_log(folder: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines, one per epoch, into a folder of nets."""
    write_json_lines(_log(folder), rows)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """What `write_log` wrote into a folder of nets; nothing where it has none.

    Raises:
      UserError: the log is damaged.
    """
    try:
        return read_json_lines(_log(folder))
    except FileNotFoundError:
        return []
    except ValueError:
        raise UserError(f"{_log(folder)}: this log is damaged; delete {folder} and train it again.") from None


def _log(folder: Path) -> Path:
    return folder / "log.jsonl"

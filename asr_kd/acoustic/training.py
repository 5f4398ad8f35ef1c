"""The one training loop: teachers, direct and distilled models and the flat start's net all go through it.

They differ only in their criterion. Everything random is a function of (seed, epoch, step): a run that was killed and
resumed from its checkpoint gives the weights of an uninterrupted one.

Shapes:  M members, K chunks of L frames in a batch, D dimensions of a frame, N frames of the set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from asr_kd.acoustic.augment import Augment, SpecAugment, in_turn
from asr_kd.acoustic.checkpoint import Checkpoints, Progress, TrainingState
from asr_kd.acoustic.criteria import Criterion, DevScores, ReadsAhead, Terms
from asr_kd.acoustic.loss_scale import LossScale
from asr_kd.acoustic.member_linear import ShadowWeights
from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.ranks import ALONE, Ranks
from asr_kd.acoustic.rng import StepRng
from asr_kd.acoustic.settings import TrainingConfig
from asr_kd.errors import UserError
from asr_kd.frames.batches import Batch, Batches, prefetched
from asr_kd.frames.windows import Windows
from asr_kd.io.cores import LoadWatch
from asr_kd.io.files import read_json_lines, write_json_lines
from asr_kd.io.progress import progress_bar
from asr_kd.kernels.optimizer import adamw
from asr_kd.kernels.switch import changing_threads
from asr_kd.kernels.transfer import is_accelerator


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on.

    Attributes:
      windows: of the model's context, or of a wider one that teachers which run online need too.
      valid: (N,) bool, the frames to learn from; None: all.
      augment: alters the inputs of each batch, before the masks of `TrainingConfig.augment`.
    """

    windows: Windows
    valid: np.ndarray | None = None
    augment: Augment | None = None


@dataclass(frozen=True)
class RunControl:
    """Options of a run, apart from its data and settings.

    Attributes:
      seed: of the order of the frames and of dropout; members differ by their first weights and by dropout.
      evaluate: scores the model on dev after each epoch; each member then ends with the weights of its own best epoch
        (by frame accuracy). None: with those of the last epoch.
      checkpoint: file for exact resume; written every `checkpoint_seconds` (less often where that takes long) and
        after each epoch.
      digest: of all that determines the run; a checkpoint with another digest is ignored.
      label: the progress bar's name; None: no bar.
      bar: its line, counted from where the cursor is; None: the first that this process has free.
      writer: a TensorBoard SummaryWriter, which the caller closes (it is a context manager), or None.
      ranks: this process among those that train the model together, each on its share of every batch. All end with the
        same weights; the first writes the checkpoint, from which any number of processes resumes.
      follow_load: has, on CPUs, no more threads than cores that other programs leave, as these come and go.
    """

    seed: int
    evaluate: Callable[[FrameModel], DevScores] | None = None
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0
    digest: str = ""
    label: str | None = None
    bar: int | None = None
    writer: Any = None
    ranks: Ranks = ALONE
    follow_load: bool = False


def fit(
    model: FrameModel, data: TrainingData, criterion: Criterion, config: TrainingConfig, run: RunControl
) -> Progress:
    """Trains every member of `model` in place; each as if it were trained alone.

    Raises:
      DivergedError: a loss or a weight is not finite. The last checkpoint stays.
      UserError: the warm-up takes as many steps as there are, or more.
    """
    model.precision = config.precision
    batches = Batches(
        data.windows,
        config.batch_size,
        length=model.settings.chunk_frames,
        seed=run.seed,
        valid=data.valid,
        pin_memory=is_accelerator(model.device),
        part=(run.ranks.rank, run.ranks.world),
    )
    rate_at = _rates(config, max(1, config.epochs * batches.steps_per_epoch))
    augment = in_turn(data.augment, SpecAugment(config.augment) if config.augment.active else None)

    checkpoints = Checkpoints(run.checkpoint, run.digest, run.checkpoint_seconds, writes=run.ranks.first)
    # SGD takes the gradients of the weights themselves
    dtype = model.compute_dtype if config.optimizer == "adam" else torch.float32
    with ShadowWeights(model, dtype) as shadows, _together(model) as layers:
        state = TrainingState(model, build_optimizer(model, config, shadows.copies), rate_at)
        checkpoints.load(state)
        shadows.refresh()
        progress = state.progress
        if not run.ranks.alone:
            weights = sum(float(value.double().sum()) for value in model.state_dict().values())
            begins = (progress.step, weights, str(model.compute_dtype))
            run.ranks.check_alike(begins, "the processes begin with other weights, steps or number formats")
        tensors = [shadows.copies.get(parameter, parameter) for parameter in model.parameters()]
        limit = GradientLimit(tensors, model.members, config.clip_norm)
        update = _Update(run.ranks, tensors, state.loss_scale, limit, layers)
        watch = LoadWatch() if run.follow_load and model.device.type == "cpu" else None
        with (
            _progress_bar(batches.num_frames, config.epochs, progress, run) as bar,
            checkpoints.named_in_errors(),
            changing_threads(None if watch is None else watch.threads) as follow_load,
        ):
            while progress.epoch < config.epochs and not _is_out_of_patience(progress, config):
                started, first_frame = time.monotonic(), progress.frames
                model.train()
                for batch in _ahead(batches.epoch(progress.epoch, progress.batch), criterion, model.device):
                    rng = StepRng(run.seed, progress.step, model.device, batch.share)
                    _step(state, _augmented(batch, augment, rng), criterion, rng, update)
                    bar.update(batch.num_valid_of_all)
                    checkpoints.save(state, if_due=True)
                    follow_load()
                state.check_finite()
                seconds = time.monotonic() - started
                row = {
                    "epoch": progress.epoch + 1,
                    "learning_rate": rate_at(progress.step - 1),
                    **_end_epoch(state, run),
                    "seconds": round(seconds, 3),
                    "frames_per_second": round((progress.frames - first_frame) / max(seconds, 1e-9), 1),
                }
                _begin_epoch(state, row)
                _report(row, run.writer, bar)
                checkpoints.save(state)
    if run.evaluate is not None:
        model.load_state_dict(state.best)
    model.eval()
    return progress


@dataclass(frozen=True)
class _Update:
    """The part of a training step that leads from a batch's loss to the gradients that the optimiser takes.

    Attributes:
      tensors: which have the gradients: the weights, or what training computes with in place of some.
    """

    ranks: Ranks
    tensors: Sequence[Tensor]
    scale: LossScale
    limit: GradientLimit
    layers: Sequence[nn.Module]  # which look at a whole batch

    def begin(self, batch: Batch) -> None:
        """Tells the layers whose parts of the batch count."""
        counts = batch.share is None or batch.share.chunks > 0
        for layer in self.layers:
            layer.ranks = dataclasses.replace(self.ranks, counts=counts)  # type: ignore[assignment]

    def take_gradients(self, model: FrameModel, terms: Terms) -> Terms:
        """Leaves them with the weights; returns the terms of the whole batch."""
        if self.ranks.alone:
            # the sum over members: each member's gradient is that of its own mean loss
            self.scale.scaled(terms.loss).sum().backward()
        else:
            self.scale.scaled(terms.loss * terms.count).sum().backward()
            terms = self.ranks.add_up(self.tensors, terms, model.members)
        self.scale.unscale(tensor.grad for tensor in self.tensors)
        self.limit.apply()
        return terms


@contextlib.contextmanager
def _together(model: FrameModel) -> Iterator[Sequence[nn.Module]]:
    """The layers that look at a whole batch, for `_Update.begin`; at the end each looks at its own process again."""
    layers = [layer for layer in model.modules() if hasattr(layer, "ranks")]
    try:
        yield layers
    finally:
        for layer in layers:
            layer.ranks = ALONE  # type: ignore[assignment]


def _step(state: TrainingState, batch: Batch, criterion: Criterion, rng: StepRng, update: _Update) -> None:
    """Takes one training step; nothing here waits for the device."""
    model, optimizer, progress = state.model, state.optimizer, state.progress
    for group in optimizer.param_groups:
        group["lr"] = state.rate_at(progress.step)
    update.begin(batch)
    terms: Terms = criterion(model(batch.inputs_in(model.context), rng), batch)
    state.watch.note(terms.loss, progress.step)
    optimizer.zero_grad(set_to_none=True)
    terms = update.take_gradients(model, terms)
    optimizer.step()
    model.apply_constraints()
    state.meter.add({"loss": terms.loss, **terms.logged}, terms.count)
    progress.batch += 1
    progress.step += 1
    progress.frames += batch.num_valid_of_all


def _augmented(batch: Batch, augment: Augment | None, rng: StepRng) -> Batch:
    return batch if augment is None else dataclasses.replace(batch, inputs=augment(batch.inputs, rng))


def _ahead(batches: Iterator[Batch], criterion: Criterion, device: torch.device) -> Iterator[Batch]:
    """Returns the batches, each with what the criterion reads for it before its step.

    On an accelerator another thread draws the next batches, and reads, while this one starts the kernels of a step.
    """
    if isinstance(criterion, ReadsAhead):
        batches = map(criterion.read_ahead, batches)
    return prefetched(batches) if is_accelerator(device) else batches


def _end_epoch(state: TrainingState, run: RunControl) -> dict[str, Any]:
    """What the epoch's row of the log has about training and dev; notes best weights."""
    row: dict[str, Any] = dict(state.meter.means())
    evaluate = run.evaluate
    if evaluate is None:
        return row
    progress = state.progress
    state.model.eval()
    scores = run.ranks.from_first(lambda: evaluate(state.model))
    improved = [new > old for new, old in zip(scores.accuracy, progress.best_accuracy, strict=True)]
    for member in (m for m, gained in enumerate(improved) if gained):
        progress.best_accuracy[member] = scores.accuracy[member]
        progress.best_epoch[member] = progress.epoch + 1
        state.keep_as_best(member)
    progress.epochs_without_gain = 0 if any(improved) else progress.epochs_without_gain + 1
    return row | {"dev_accuracy": scores.accuracy, "dev_cross_entropy": scores.cross_entropy}


def _begin_epoch(state: TrainingState, row: dict[str, Any]) -> None:
    state.progress.rows.append(row)
    state.progress.epoch += 1
    state.progress.batch = state.progress.frames = 0
    state.meter.restore([], {})


def _progress_bar(frames_per_epoch: int, epochs: int, progress: Progress, run: RunControl) -> tqdm[Any]:
    done = progress.epoch * frames_per_epoch + progress.frames
    return progress_bar(run.label, epochs * frames_per_epoch, "frame", initial=done, unit_scale=True, position=run.bar)


def _report(row: dict[str, Any], writer: Any, bar: Any) -> None:
    mean = {key: sum(value) / len(value) for key, value in row.items() if isinstance(value, list)}
    bar.set_postfix({k: f"{mean[k]:.3f}" for k in ("loss", "dev_accuracy") if k in mean}, refresh=False)
    if writer is not None:
        for key, value in (mean | {"learning_rate": row["learning_rate"]}).items():
            writer.add_scalar(key, value, row["epoch"])


def build_optimizer(
    model: FrameModel, config: TrainingConfig, copies: Mapping[nn.Parameter, Tensor]
) -> torch.optim.Optimizer:
    """The optimiser that the settings name.

    Args:
      copies: of some weights, which training computes with (`ShadowWeights.copies`).
    """
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )
    rate, decay = config.learning_rate, config.weight_decay
    return adamw(model.parameters(), lr=rate, weight_decay=decay, copies=copies)


class GradientLimit:
    """Scales a member's gradient, as one vector over all of its weights, down to a norm where it is larger.

    Args:
      tensors: which have the gradients.
      bound: on the norm; 0: none.
    """

    def __init__(self, tensors: Sequence[Tensor], members: int, bound: float) -> None:
        self._tensors, self._members, self._bound = tensors, members, bound

    @torch.no_grad()
    def apply(self) -> None:
        """Scales the gradients in place; nothing waits for the device."""
        if not self._bound:
            return
        gradients = [
            tensor.grad.unflatten(0, (self._members, -1)) for tensor in self._tensors if tensor.grad is not None
        ]
        # member by member, tensor after tensor: the order in which torch sums over an axis depends on the other axes
        squares = [
            torch.stack([member.float().square().sum() for member in gradient.flatten(1)]) for gradient in gradients
        ]
        norms = functools.reduce(torch.add, squares).sqrt()
        factors = (self._bound / norms.clamp_min(1e-20)).clamp_max(1.0)
        for gradient in gradients:
            gradient.mul_(factors.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)))


def _rates(config: TrainingConfig, total_steps: int) -> Callable[[int], float]:
    """The learning rate of each step, the first being 0."""
    if config.warmup_steps >= total_steps:
        raise UserError(
            f"training.warmup_steps is {config.warmup_steps:,}, but the training has {total_steps:,} steps in all: "
            "give it fewer, or more epochs."
        )

    def rate_at(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
        return warm * learning_rate(config, step / total_steps)

    return rate_at


def learning_rate(config: TrainingConfig, done: float) -> float:
    """The schedule's learning rate when the fraction `done` in [0, 1] of all steps is behind.

    >>> [round(learning_rate(TrainingConfig(learning_rate=1.0), done), 3) for done in (0.0, 0.5, 1.0)]
    [1.0, 0.505, 0.01]
    """
    final, factor = config.final_learning_rate, 1.0
    if config.schedule == "cosine":
        factor = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "exponential":
        factor = final**done
    return config.learning_rate * factor


def _is_out_of_patience(progress: Progress, config: TrainingConfig) -> bool:
    return 0 < config.patience <= progress.epochs_without_gain


def write_log(folder: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines, one per epoch, into a model's folder."""
    write_json_lines(_log(folder), rows)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """What `write_log` wrote into a model's folder; nothing where it has none.

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

"""Checkpoints: all that a killed training run needs to end with the weights of an uninterrupted one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from asr_kd.acoustic.divergence import DivergedError, DivergenceWatch
from asr_kd.acoustic.loss_scale import LossScale
from asr_kd.acoustic.model import FrameModel, member_slice
from asr_kd.io.append_log import Throttle
from asr_kd.io.files import replacing_file

log = logging.getLogger(__name__)

_VERSION = 2  # raise it when a run draws other random numbers, or adds up in another order


@dataclass
class Progress:
    """How far a run is, and what it has seen.

    Attributes:
      batch: batches done in this epoch. step: in all epochs. frames: valid frames of this epoch.
      best_accuracy, best_epoch: per member.
      sums: of this epoch: of each logged number per member, weighted by `counts`.
      rows: the log, one row per epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    frames: int = 0
    best_accuracy: list[float] = field(default_factory=list)
    best_epoch: list[int] = field(default_factory=list)
    epochs_without_gain: int = 0
    counts: list[float] = field(default_factory=list)
    sums: dict[str, list[float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class Meter:
    """Sums of logged numbers over the frames of an epoch; they stay on the device until they are read."""

    def __init__(self, members: int, device: torch.device) -> None:
        self._members, self._device = members, device
        self.restore([], {})

    def restore(self, counts: list[float], sums: dict[str, list[float]]) -> None:
        """Continues from what `read` returned."""
        self._names = list(sums)
        self._counts = torch.tensor(counts or [0.0] * self._members, dtype=torch.float64, device=self._device)
        self._sums = None if not sums else torch.tensor(list(sums.values()), dtype=torch.float64, device=self._device)

    def add(self, means: Mapping[str, Tensor], counts: Tensor) -> None:
        """Numbers of a batch, (M,) each, which are means over `counts` (M,) frames."""
        values, counts = torch.stack([value.detach() for value in means.values()]).double(), counts.double()
        self._names = list(means)
        self._counts += counts
        self._sums = values * counts if self._sums is None else self._sums.addcmul_(values, counts)

    def read(self) -> tuple[list[float], dict[str, list[float]]]:
        """Counts, and sums by name, per member."""
        sums = [] if self._sums is None else self._sums.tolist()
        return self._counts.tolist(), dict(zip(self._names, sums, strict=True))

    def means(self) -> dict[str, list[float]]:
        """Returns the mean of each logged number over the frames: by name, one value per member."""
        counts, sums = self.read()
        return {name: [s / max(1.0, n) for s, n in zip(values, counts, strict=True)] for name, values in sums.items()}


class TrainingState:
    """Everything that a training run changes.

    Attributes:
      best: the state of each member at its best epoch so far.
      rate_at: step -> its learning rate.
    """

    def __init__(self, model: FrameModel, optimizer: torch.optim.Optimizer, rate_at: Callable[[int], float]) -> None:
        self.model, self.optimizer, self.rate_at = model, optimizer, rate_at
        self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.meter = Meter(model.members, model.device)
        self.loss_scale = LossScale(model.members, model.compute_dtype, model.device)
        self.watch = DivergenceWatch(model.members, model.device, rate_at)
        self.progress = Progress(best_accuracy=[-1.0] * model.members, best_epoch=[-1] * model.members)

    def check_finite(self) -> None:
        """Raises DivergedError where a loss or a weight is not finite."""
        self.watch.check(self.model.state_dict().values(), self.progress.step)

    def keep_as_best(self, member: int) -> None:
        """Notes a member's weights as its best ones."""
        for name, value in self.model.state_dict().items():
            member_slice(self.best[name], member, self.model.members).copy_(
                member_slice(value, member, self.model.members)
            )


class Checkpoints:
    """The checkpoint of one run. The interval grows with the time that the last write took.

    Args:
      path: the file; None: nothing is written or read.
      digest: names the run.
      seconds: between two writes, at least; 0: after every step.
      writes: whether this process does; of several that train together, one.
    """

    def __init__(self, path: Path | None, digest: str, seconds: float, *, writes: bool = True) -> None:
        self._path, self._digest, self._throttle, self._writes = path, f"{digest}.{_VERSION}", Throttle(seconds), writes
        self._is_ours = False  # the file is of this run

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Adds to a DivergedError where the last good checkpoint is."""
        try:
            yield
        except DivergedError as error:
            if self._path is None:
                raise
            last = f"the last good checkpoint is {self._path}" if self._is_ours else "there was no checkpoint before it"
            raise DivergedError(f"{error}; {last}") from None

    def load(self, state: TrainingState) -> None:
        """Loads the run's state in place; where there is no checkpoint of this run it stays as it is."""
        if self._path is None or not self._path.exists():
            return
        device = state.model.device
        try:
            # weights_only: no pickled code is run
            saved = torch.load(self._path, map_location=device, weights_only=True)
            if saved["digest"] != self._digest:
                log.info("%s belongs to a run with other settings or inputs: starting over", self._path)
                return
            progress = Progress(**json.loads(saved["progress"]))
            state.model.load_state_dict(saved["model"])
            groups = state.optimizer.state_dict()["param_groups"]
            state.optimizer.load_state_dict({"state": saved["optimizer"], "param_groups": groups})
            if state.loss_scale.active:
                state.loss_scale.restore(saved["loss_scale"])
        except Exception as error:  # any damage: the run starts over, which gives the same result later
            reason = str(error).splitlines()[0] if str(error) else error
            log.warning("%s cannot be read (%s): starting over", self._path, reason)
            return
        state.best.update(saved["best"])
        state.progress = progress
        state.meter.restore(progress.counts, progress.sums)
        self._is_ours = True
        log.info("resuming from %s: epoch %d, batch %d", self._path, progress.epoch + 1, progress.batch)

    def save(self, state: TrainingState, *, if_due: bool = False) -> None:
        """Replaces the file all at once.

        Raises:
          DivergedError: a loss or a weight is not finite; the file stays as it was.
        """
        if self._path is None or not self._writes or (if_due and not self._throttle.is_due()):
            return
        state.check_finite()
        with self._throttle.interruption():
            state.progress.counts, state.progress.sums = state.meter.read()
            saved = {
                "digest": self._digest,
                "model": dict(state.model.state_dict()),
                # tensors only: torch 1.13 reads no floats with weights_only, and the loop sets the groups anyway
                "optimizer": state.optimizer.state_dict()["state"],
                "best": state.best,
                "loss_scale": state.loss_scale.state(),
                "progress": json.dumps(dataclasses.asdict(state.progress)),
            }
            with replacing_file(self._path) as temporary, temporary.open("wb") as file:
                careful = _CarefulFile(file)
                torch.save(saved, careful)  # type: ignore[arg-type]  # write and flush are all that it needs
                if careful.error is not None:
                    raise careful.error
            self._is_ours = True


class _CarefulFile:
    """Keeps a write error for later: inside torch's writer it would abort the process. Nothing is copied in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass

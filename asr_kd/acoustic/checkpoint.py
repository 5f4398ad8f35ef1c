"""Checkpoints: all that a killed training run needs to end with the weights of an uninterrupted one."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from asr_kd.io.files import replacing_file
from asr_kd.io.throttle import Throttle

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """All of a run's state beside weights and optimiser."""

    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0
    best_accuracy: list[float] = field(default_factory=list)  # per member
    best_epoch: list[int] = field(default_factory=list)
    epochs_without_gain: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)  # of this epoch, weighted by frames
    frames: int = 0  # in sums
    rows: list[dict[str, Any]] = field(default_factory=list)  # the log, one row per epoch


class Checkpoints:
    """Those of one run: written when they are due, which is the later, the longer the last one took to write.

    Args:
      path: the file; None: nothing is written or read.
      digest: names the run.
      seconds: between two, at least; 0: after every step.
    """

    def __init__(self, path: Path | None, digest: str, seconds: float) -> None:
        self._path, self._digest, self._pace = path, digest, Throttle(seconds)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]) -> Progress | None:
        """See `load_checkpoint`."""
        return None if self._path is None else load_checkpoint(self._path, self._digest, model, optimizer, best)

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: dict[str, Tensor],
        progress: Progress,
        *,
        if_due: bool = False,
    ) -> None:
        if self._path is None or (if_due and not self._pace.is_due()):
            return
        with self._pace.interruption():
            save_checkpoint(self._path, self._digest, model, optimizer, best, progress)


class _CarefulFile:
    """Keeps an error of writing for later: within torch's writer it would abort the process. No copy is in memory."""

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


def save_checkpoint(
    path: Path,
    digest: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Replaces `path` all at once. `digest` names the run it belongs to."""
    state = {
        "digest": digest,
        "model": dict(model.state_dict()),
        # tensors only: torch 1.13 reads no floats with weights_only, and the groups are set by the loop anyway
        "optimizer": optimizer.state_dict()["state"],
        "best": best,
        "progress": json.dumps(dataclasses.asdict(progress)),
    }
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        careful = _CarefulFile(file)
        torch.save(state, careful)  # type: ignore[arg-type]  # write and flush are all that it needs
        if careful.error is not None:
            raise careful.error


def load_checkpoint(
    path: Path,
    digest: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
) -> Progress | None:
    """Loads weights, optimiser and `best` in place; None (and nothing loaded) where no checkpoint of this run is."""
    if not path.exists():
        return None
    try:
        # weights_only: a checkpoint may have come from someone else; no pickled code is run
        state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        if state["digest"] != digest:
            log.info("%s belongs to a run with other settings or inputs: starting over", path)
            return None
        progress = Progress(**json.loads(state["progress"]))
        model.load_state_dict(state["model"])
        optimizer.load_state_dict({"state": state["optimizer"], "param_groups": optimizer.state_dict()["param_groups"]})
    except Exception as error:  # any damage: the run starts over, which gives the same result later
        log.warning("%s cannot be read (%s): starting over", path, str(error).splitlines()[0] if str(error) else error)
        return None
    best.update(state["best"])
    log.info("going on from %s: epoch %d, batch %d", path, progress.epoch + 1, progress.batch)
    return progress

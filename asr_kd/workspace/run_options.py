"""How training is run, apart from what is trained. Light to load: the commands make it before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunOptions:
    """What does not change the result: where and how visibly training runs."""

    device: str = "auto"
    tensorboard: Path | None = None
    quiet: bool = False
    checkpoint_seconds: float = 60.0
    bar: int | None = None  # the progress bar's line on the terminal, where several processes have one

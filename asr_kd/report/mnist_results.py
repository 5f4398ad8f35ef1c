"""What recipes/mnist measured, for a section of the report."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class MnistBias:
    """A net that never saw a 3: errors before and after one offset that was chosen without labels."""

    before: float
    after: float
    threes_right: float


@dataclass(frozen=True, config=STRICT)
class MnistResults:
    """Mean errors on the 10,000 test images; or why there are none."""

    teacher: float | None = None
    hard: float | None = None
    distilled: float | None = None
    seeds: int | None = None
    no3: MnistBias | None = None
    missing: str | None = None

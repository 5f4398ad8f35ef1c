"""Settings of the evaluation."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Confidence intervals."""

    bootstrap_samples: Count = 10000

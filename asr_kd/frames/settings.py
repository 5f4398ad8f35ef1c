"""Settings of the features."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from asr_kd.settings import STRICT, Count, Positive


@dataclass(frozen=True, config=STRICT)
class FeaturesConfig:
    """Log-mel filterbanks, and the speed-altered copies of the training set that are computed with them."""

    num_mel_bins: Count = 40
    speeds: tuple[Positive, ...] = (1.0,)  # one copy of the training set per factor; 1.0 must be among them

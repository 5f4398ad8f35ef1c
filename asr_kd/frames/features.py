"""Log-mel filterbanks, speed perturbation, and the frame count rule that everything shares."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass

from asr_kd.errors import UserError
from asr_kd.settings import STRICT, Count, Positive

FRAME_SHIFT = 0.01  # seconds
FRAME_LENGTH = 0.025  # seconds


@dataclass(frozen=True, config=STRICT)
class FeaturesConfig:
    """Log-mel filterbanks, and the speed-altered copies of the training set that are computed with them."""

    num_mel_bins: Count = 40
    speeds: tuple[Positive, ...] = (1.0,)  # one copy of the training set per factor; 1.0 must be among them


def num_frames(num_samples: int, sampling_rate: int) -> int:
    """The frame count rule, for features, states and targets alike: one frame per 10 ms, rounded half up."""
    shift = round(FRAME_SHIFT * sampling_rate)
    return (num_samples + shift // 2) // shift


def check_features(utterance_id: str, features: np.ndarray) -> None:
    """Refuses features that would poison a whole set.

    Raises:
      UserError: no frame, NaN or infinity, or the same value everywhere (digital silence).
    """
    if len(features) == 0:
        raise UserError(f"utterance {utterance_id} has no frame; leave it out of the set.")
    if not np.isfinite(features).all():
        raise UserError(f"utterance {utterance_id} has NaN or infinite features; replace its audio or leave it out.")
    if features.min() == features.max():
        raise UserError(f"utterance {utterance_id} is digital silence; replace its audio or leave it out.")


def fbank(samples: np.ndarray, sampling_rate: int, num_mel_bins: int) -> np.ndarray:
    """(1, n) float32 samples in [-1, 1] -> (num_frames(n), D) float32 log-mel, 20 Hz to half the sampling rate.

    At least 25 ms of samples are needed. Same in training and in transcribing.
    """
    features: np.ndarray = _extractor(sampling_rate, num_mel_bins).extract(samples, sampling_rate)
    expected = num_frames(samples.shape[1], sampling_rate)
    if len(features) != expected:
        raise RuntimeError(f"{samples.shape[1]} samples gave {len(features)} frames, not {expected}")
    return features


@lru_cache(maxsize=4)
def _extractor(sampling_rate: int, num_mel_bins: int) -> Any:
    from lhotse import Fbank, FbankConfig

    return Fbank(
        FbankConfig(
            sampling_rate=sampling_rate,
            frame_length=FRAME_LENGTH,
            frame_shift=FRAME_SHIFT,
            num_mel_bins=num_mel_bins,
            low_freq=20.0,
            high_freq=sampling_rate / 2,
            dither=0.0,
            snip_edges=False,
        )
    )


def resample(samples: np.ndarray, sampling_rate: int, speed: float) -> np.ndarray:
    """What lhotse's perturb_speed does, on audio that is read once for all speeds."""
    from lhotse.augmentation import Speed

    return Speed(speed)(samples, sampling_rate)

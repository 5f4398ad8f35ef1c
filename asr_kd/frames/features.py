"""Log-mel filterbanks, altered copies (speed, vocal tract), and the frame count rule that everything shares."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from asr_kd.errors import UserError
from asr_kd.settings import STRICT, Count, Positive

FRAME_SHIFT = 0.01  # seconds
FRAME_LENGTH = 0.025  # seconds
LOW_FREQ = 20.0  # Hz, of the lowest filter; the highest ends at half the sampling rate


@dataclass(frozen=True, config=STRICT)
class FeaturesConfig:
    """Log-mel filterbanks, their normalisation, and the altered copies of the training set.

    There is a copy for each speed with each warp: 3 speeds and 3 warps are 9 copies.
    """

    num_mel_bins: Count = 40
    speeds: tuple[Positive, ...] = (1.0,)  # one copy of the training set per factor; 1.0 must be among them
    # likewise, of the frequency axis, 0.8 to 1.25; above 1: as if the vocal tract were shorter by this factor
    warps: tuple[Positive, ...] = (1.0,)
    # that is subtracted: of a speaker (where none is known, of the utterance), of the utterance, or running: of the
    # utterance up to each frame, which is all that a recogniser knows while somebody speaks
    mean: Literal["speaker", "utterance", "running"] = "speaker"
    running_seconds: Annotated[float, Field(ge=0.1)] = 6.0  # how far back a running mean remembers
    # that becomes 1: of the training set, or of each speaker (with mean: speaker), averaged with that of the training
    # set, which weighs as much as ten seconds of speech
    variance: Literal["training", "speaker"] = "training"

    def __post_init__(self) -> None:
        for key, factors in (("speeds", self.speeds), ("warps", self.warps)):
            if len({f"{factor:g}" for factor in factors}) < len(set(factors)):
                raise ValueError(f"{key}: two of {', '.join(map(str, factors))} are alike in six digits; leave one out")
        if self.variance == "speaker" and self.mean != "speaker":
            raise ValueError(
                f"variance: speaker is the variance about the speaker's mean: it needs mean: speaker, not {self.mean}"
            )

    @property
    def copies(self) -> list[tuple[float, float]]:
        """(speed, warp) of each copy of a training utterance, itself among them."""
        return list(itertools.product(self.speeds, self.warps))


def frame_samples(sampling_rate: int) -> int:
    """Returns the number of samples from one frame to the next."""
    return round(FRAME_SHIFT * sampling_rate)


def frame_seconds(sampling_rate: int) -> float:
    """The time from one frame to the next: 10 ms, or the nearest that is a whole number of samples.

    >>> frame_seconds(16000), round(frame_seconds(22050), 6)
    (0.01, 0.009977)
    """
    return frame_samples(sampling_rate) / sampling_rate


def num_frames(num_samples: int, sampling_rate: int) -> int:
    """The frame count rule, for features, states and targets alike: one frame per 10 ms, rounded half up."""
    shift = frame_samples(sampling_rate)
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


def fbank(samples: np.ndarray, sampling_rate: int, num_mel_bins: int, warp: float = 1.0) -> np.ndarray:
    """(1, n) float32 samples in [-1, 1] -> (num_frames(n), D) float32 log-mel, 20 Hz to half the sampling rate.

    At least 25 ms of samples are needed. Same in training and in transcribing.

    Args:
      warp: above 1, every resonance is where one of a frequency `warp` times as high would be, as of a shorter vocal
        tract. Kaldi's VTLN: piecewise linear, below 100 Hz and in the last 500 Hz bent to keep the ends in place.
    """
    features: np.ndarray
    if warp == 1.0:
        features = _extractor(sampling_rate, num_mel_bins).extract(samples, sampling_rate)
    else:
        features = _warped(samples, sampling_rate, num_mel_bins, warp)
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
            low_freq=LOW_FREQ,
            high_freq=sampling_rate / 2,
            dither=0.0,
            snip_edges=False,
        )
    )


def _warped(samples: np.ndarray, sampling_rate: int, num_mel_bins: int, warp: float) -> np.ndarray:
    """Returns (T, D) log-mel energies from lhotse's spectrum and Kaldi's warped filters.

    lhotse's own filterbanks cannot be warped.
    """
    import torch

    spectrum, filters = _warped_filters(sampling_rate, num_mel_bins, warp)
    (power,) = spectrum(torch.from_numpy(samples))  # (T, bins of the spectrum)
    energies = power.matmul(filters).clamp(min=torch.finfo(torch.float32).eps)
    features: np.ndarray = energies.log().numpy()
    return features


@lru_cache(maxsize=16)
def _warped_filters(sampling_rate: int, num_mel_bins: int, warp: float) -> tuple[Any, Any]:
    """The module that computes power spectra of F bins, and (F, D) mel filters."""
    import torch
    from lhotse.features.kaldi import Wav2Spec
    from torchaudio.compliance.kaldi import get_mel_banks

    spectrum = Wav2Spec(sampling_rate, FRAME_LENGTH, FRAME_SHIFT, snip_edges=False, use_energy=False)
    filters, _ = get_mel_banks(
        num_mel_bins,
        spectrum.fft_length,
        sampling_rate,
        low_freq=LOW_FREQ,
        high_freq=sampling_rate / 2,
        vtln_low=100.0,
        vtln_high=-500.0,
        vtln_warp_factor=warp,
    )
    return spectrum.eval(), torch.nn.functional.pad(filters, (0, 1)).T  # no filter reaches the last bin


def resample(samples: np.ndarray, sampling_rate: int, speed: float) -> np.ndarray:
    """What lhotse's perturb_speed does, on audio that is read once for all speeds."""
    from lhotse.augmentation import Speed

    return Speed(speed)(samples, sampling_rate)

"""Long recordings in pieces, cut where it is quiet: a search through an hour would remember every state it was in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from asr_kd.frames.features import FRAME_SHIFT, frame_samples

LONGEST = 30.0  # seconds of a piece
_SHORTEST = 10.0
_QUIET = 0.3  # seconds that a cut looks around itself


def pieces(samples: np.ndarray, sampling_rate: int, longest: float = LONGEST) -> Iterator[range]:
    """Yields the samples of each piece; together they are all of the (n,) samples.

    A piece ends where, between a third of the longest length and all of it, the energy of 0.3 seconds is least. No
    piece is shorter than a third, unless it is all.

    >>> rng = np.random.default_rng(0)
    >>> speech = np.where(np.arange(45 * 8000) // 8000 == 22, 0.001, 0.1) * rng.normal(size=45 * 8000)
    >>> [piece.stop // 8000 for piece in pieces(speech, 8000)]  # the second from 22 to 23 is quiet
    [22, 45]
    """
    step = frame_samples(sampling_rate)
    most, least = round(longest / FRAME_SHIFT), round(min(_SHORTEST, longest / 3) / FRAME_SHIFT)
    first = 0
    while len(samples) - first > most * step:
        latest = min(first + most * step, len(samples) - least * step)
        cut = first + step * (least + _quietest(samples[first:latest], step)[least:].argmin())
        yield range(first, int(cut))
        first = int(cut)
    yield range(first, len(samples))


def _quietest(samples: np.ndarray, step: int) -> np.ndarray:
    """(T,) mean energy around the beginning of each frame."""
    energies = np.square(samples[: len(samples) // step * step].astype(np.float64)).reshape(-1, step).sum(1)
    half = round(_QUIET / FRAME_SHIFT / 2)
    sums = np.concatenate([[0.0], np.cumsum(energies)])
    centre = np.arange(len(energies))
    first, end = np.maximum(centre - half, 0), np.minimum(centre + half, len(energies))
    means: np.ndarray = (sums[end] - sums[first]) / (end - first)
    return means

"""Acoustic scale and word penalty: chosen on dev by the word errors of all seeds together, then frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from kaldialign import edit_distance

from asr_kd.decoding.decoder import Grid
from asr_kd.evaluation.scoring import WORDS, Scoring


@dataclass(frozen=True)
class Scales:
    """What dev chose."""

    acoustic_scale: float
    word_penalty: float
    errors: int  # on dev, over all seeds
    words: int  # of the references, or phones


def grid_errors(references: Sequence[Sequence[str]], grids: Sequence[Grid], scoring: Scoring = WORDS) -> np.ndarray:
    """(scales, penalties) int64: errors of all utterances together at each point of the grid."""
    total = np.zeros((len(grids[0]), len(grids[0][0])), np.int64)
    for reference, grid in zip(references, grids, strict=True):
        counts: dict[tuple[str, ...], int] = {}  # most points of the grid agree
        scored = scoring.scored(reference)
        for i, row in enumerate(grid):
            for j, words in enumerate(row):
                if words not in counts:
                    counts[words] = edit_distance(scored, scoring.scored(words))["total"]
                total[i, j] += counts[words]
    return total


def choose_scales(errors: np.ndarray, scales: Sequence[float], penalties: Sequence[float], words: int = 0) -> Scales:
    """The point nearest to the middle of the grid among those that dev cannot tell from the best one.

    Errors on a small dev set jump by chance from point to point, while the true rate changes slowly over the grid.
    Each point is therefore judged by its mean with its neighbours (weights 1, 2, 1 along each axis). The optimum is
    flat, and the lowest point moves along it by chance: all points within one standard error of the lowest mean (of a
    Poisson count, its square root) count as equally good. Of those equally near to the middle the one with the fewest
    errors is taken, then the smaller scale.

    Args:
      errors: (scales, penalties) summed over the dev sets of all seeds.
      words: in the references, for the record.
    """
    middle = ((len(scales) - 1) / 2, (len(penalties) - 1) / 2)
    smooth = _smoothed(errors)
    bound = smooth.min() + np.sqrt(smooth.min()) + 1e-9

    def rank(point: tuple[int, int]) -> tuple[float, ...]:
        i, j = point
        distance = abs(i - middle[0]) + abs(j - middle[1])
        return (distance, round(smooth[point], 6), scales[i], abs(penalties[j]), penalties[j])

    candidates = [(i, j) for i in range(len(scales)) for j in range(len(penalties)) if smooth[i, j] <= bound]
    i, j = best = min(candidates, key=rank)
    return Scales(scales[i], penalties[j], int(errors[best]), words)


def _smoothed(errors: np.ndarray) -> np.ndarray:
    """Means with weights 1, 2, 1 along both axes; at an edge over the neighbours that exist."""
    smooth = errors.astype(np.float64)
    for axis, size in enumerate(errors.shape):
        weights = 2.0 * np.eye(size) + np.eye(size, k=1) + np.eye(size, k=-1)
        smooth = np.moveaxis(np.tensordot(weights / weights.sum(1, keepdims=True), smooth, axes=(1, axis)), 0, axis)
    return smooth

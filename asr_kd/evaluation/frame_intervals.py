"""Confidence intervals of frame accuracies: the bootstrap over utterances, on wrong frames."""

from __future__ import annotations

import numpy as np

from asr_kd.evaluation.bootstrap import Interval, compare, ratio_interval
from asr_kd.evaluation.frames import FrameMetrics


def accuracy_interval(metrics: FrameMetrics, *, averaged: bool, samples: int, seed: int) -> Interval:
    """The interval of a system's accuracy.

    Args:
      averaged: the accuracy is that of the members' mean distribution; else it is the mean over the seeds.
      samples, seed: of the bootstrap.

    Returns:
      0 to 1 where no frame has a label.
    """
    if not metrics.frames:
        return Interval(0.0, 0.0, 1.0)
    wrong = ratio_interval(_wrong(metrics, averaged), metrics.labelled, samples=samples, seed=seed)
    return Interval(1 - wrong.value, 1 - wrong.high, 1 - wrong.low)


def accuracy_gain(
    first: FrameMetrics, second: FrameMetrics, *, averaged: tuple[bool, bool], samples: int, seed: int
) -> Interval:
    """Accuracy of the second system minus that of the first, on the same utterances.

    Args:
      averaged: of the first and of the second, as in `accuracy_interval`.
    """
    if not second.frames:
        return Interval(0.0, -1.0, 1.0)
    wrong = _wrong(first, averaged[0]), _wrong(second, averaged[1])
    fewer = compare(*wrong, first.labelled, samples=samples, seed=seed).difference
    return Interval(-fewer.value, -fewer.high, -fewer.low)


def _wrong(metrics: FrameMetrics, averaged: bool) -> np.ndarray:
    """(S, U): of each seed, or of the members' mean."""
    return metrics.wrong[-1:] if averaged else metrics.wrong[:-1]

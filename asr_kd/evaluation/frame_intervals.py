"""How far frame accuracies can be trusted: the bootstrap over utterances that words have, on wrong frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asr_kd.evaluation.bootstrap import Interval, compare, ratio_interval
from asr_kd.evaluation.frames import FrameMetrics


def accuracy_interval(found: FrameMetrics, *, averaged: bool, samples: int, seed: int) -> list[float]:
    """Low and high of a system's accuracy: of the mean over its seeds, or where `averaged` of its members' mean.

    Nothing is known of a set without labels: 0 to 1.
    """
    if not found.frames:
        return [0.0, 1.0]
    wrong = ratio_interval(_wrong(found, averaged=averaged), found.labelled, samples=samples, seed=seed)
    return [1 - wrong.high, 1 - wrong.low]


def accuracy_gains(
    direct: FrameMetrics, others: Mapping[str, tuple[FrameMetrics, bool]], *, samples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """How much more accurate other systems are on the same utterances, each with its interval.

    Args:
      others: name -> what was found, and whether it is averaged.
    """
    gains = {}
    for name, (found, averaged) in others.items():
        fewer = Interval(0.0, -1.0, 1.0)
        if found.frames:
            a, b = _wrong(direct, averaged=False), _wrong(found, averaged=averaged)
            fewer = compare(a, b, direct.labelled, samples=samples, seed=seed).difference
        gains[name] = {"test": -fewer.value, "ci95": [-fewer.high, -fewer.low]}
    return gains


def _wrong(found: FrameMetrics, *, averaged: bool) -> np.ndarray:
    """(S, U): of each seed, or of the members' mean."""
    return found.wrong[-1:] if averaged else found.wrong[:-1]

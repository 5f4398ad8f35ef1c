"""Normalisation inside an ONNX graph: the mean of an utterance or a running one is subtracted, the rest is scaled.

As `asr_kd.frames.normalisation` does it; sums over an utterance are in float64, the rest is float32.

Shapes:  N utterances, T frames, D mel bins, P portions of 128 frames.
"""

from __future__ import annotations

import math

import numpy as np

from asr_kd.export.onnx_graph import DOUBLE, END, FLOAT, OnnxGraph
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.normalisation import LEAST_VARIANCE, VARIANCE_PRIOR, Normalisation, RunningMean

_PORTION = 128  # frames


def add_normalised(graph: OnnxGraph, features: str, normalisation: Normalisation, counted: str | None = None) -> str:
    """(N, T, D) log-mel energies of whole utterances, of unknown speakers -> (N, T, D) normalised frames.

    As `Normalisation.of_unknown_speaker`, of each utterance by itself.

    Args:
      counted: (N, T, 1) float32, 1 for the frames of an utterance, and after them 0 for what fills it up; None: all 1.
    """
    if normalisation.running is not None:
        start = graph.constant(normalisation.running.start())
        means = means_of(graph, add_running_sums(graph, features, start, normalisation.running))
    else:
        means = _mean(graph, features, normalisation, counted)
    centred = graph.op("Sub", features, means)
    if normalisation.scales is None:
        return graph.op("Mul", centred, graph.constant(normalisation.scale))
    return graph.op("Mul", centred, _shrunk_scale(graph, centred, counted, normalisation.scale))


def _mean(graph: OnnxGraph, features: str, normalisation: Normalisation, counted: str | None) -> str:
    """(N, 1, D) mean over the frames that count, and `prior_frames` of training."""
    exact = graph.op("Cast", features, to=DOUBLE)
    if counted is None:
        frames = graph.op("Cast", graph.length(features, 1), to=DOUBLE)
    else:
        column = graph.op("Cast", counted, to=DOUBLE)
        exact, frames = graph.op("Mul", exact, column), _sum(graph, column)
    sums, prior_frames = _sum(graph, exact), normalisation.prior_frames
    if prior_frames:
        of_prior = (graph.constant(value) for value in (prior_frames * normalisation.prior, float(prior_frames)))
        sums, frames = (
            graph.op("Add", value, graph.op("Cast", more, to=DOUBLE))
            for value, more in zip((sums, frames), of_prior, strict=True)
        )
    return graph.op("Cast", graph.op("Div", sums, frames), to=FLOAT)


def _sum(graph: OnnxGraph, value: str) -> str:
    """(N, T, ...) -> (N, 1, ...)."""
    return graph.op("ReduceSum", value, graph.constant([1]), keepdims=1)


def _shrunk_scale(graph: OnnxGraph, centred: str, counted: str | None, scale: np.ndarray) -> str:
    """(N, 1, D); see `asr_kd.frames.normalisation.shrunk_scales`."""
    frames = graph.op("Cast", graph.length(centred, 1), to=FLOAT) if counted is None else _sum(graph, counted)
    rest = centred if counted is None else graph.op("Mul", centred, counted)
    exact = graph.op("Cast", rest, to=DOUBLE)
    squares = graph.op("Cast", _sum(graph, graph.op("Mul", exact, exact)), to=FLOAT)
    prior = VARIANCE_PRIOR / np.square(scale.astype(np.float64))
    total = graph.op("Add", frames, graph.constant(float(VARIANCE_PRIOR)))
    variance = graph.op("Div", graph.op("Add", squares, graph.constant(prior)), total)
    least = graph.op("Max", variance, graph.constant(LEAST_VARIANCE))
    return graph.op("Reciprocal", graph.op("Sqrt", least))


def means_of(graph: OnnxGraph, sums: str) -> str:
    """(N, T, D + 1) sums and counts -> (N, T, D) means."""
    return graph.op("Div", graph.rows(sums, 0, -1, axis=2), graph.rows(sums, -1, END, axis=2))


def add_running_sums(graph: OnnxGraph, features: str, state: str, mean: RunningMean) -> str:
    """The sums and counts whose quotients `RunningMean.means` has, for each of N utterances.

    The sums within a portion are one product with a matrix of decays; those of all portions before it another, whose
    matrix is (P, P): together 0.25 GB for an hour, 3.5 GB for four.

    Args:
      features: (N, T, D).
      state: (D + 1,) or (N, 1, D + 1) float32, see `RunningMean.start`.

    Returns:
      (N, T, D + 1); those of frame t are the state after it.
    """
    log_decay, size = math.log1p(-FRAME_SHIFT / mean.seconds), len(mean.prior) + 1
    ages = np.subtract.outer(np.arange(_PORTION), np.arange(_PORTION))
    decays = graph.constant(np.where(ages >= 0, np.exp(log_decay * np.maximum(ages, 0)), 0.0))
    within = graph.op("MatMul", decays, _in_portions(graph, features, size))  # (N, P, 128, D + 1)
    totals = graph.op("Squeeze", graph.rows(within, -1, END, axis=2), graph.constant([2]))
    before = _before_portions(graph, totals, state, log_decay * _PORTION)  # (N, P, D + 1)
    factors = graph.constant(np.exp(log_decay * np.arange(1, _PORTION + 1))[:, None])
    sums = graph.op("Add", within, graph.op("Mul", graph.op("Unsqueeze", before, graph.constant([2])), factors))
    flat = graph.op("Reshape", sums, graph.constant([0, -1, size]))
    return graph.rows(flat, graph.constant([0]), graph.length(features, 1), axis=1)


def _in_portions(graph: OnnxGraph, features: str, size: int) -> str:
    """(N, T, D) -> (N, P, 128, D + 1): a count of one beside each frame, zeros after the last."""
    length, zeros = graph.length(features, 1), graph.constant([0, 0, 0, 0])
    utterances = graph.op("Shape", features, start=0, end=2)
    column = graph.op("Expand", graph.constant([[[1.0]]]), graph.op("Concat", utterances, graph.constant([1]), axis=0))
    missing = graph.op("Mod", graph.op("Neg", length), graph.constant([_PORTION]))
    ends = graph.op("Concat", zeros, missing, graph.constant([0]), axis=0)
    padded = graph.op("Pad", graph.op("Concat", features, column, axis=2), ends)
    return graph.op("Reshape", padded, graph.constant([0, -1, _PORTION, size]))


def _before_portions(graph: OnnxGraph, totals: str, state: str, log_decay: float) -> str:
    """(N, P, D + 1) sums of all that was before each portion, as of the end of the one before it.

    Args:
      totals: (N, P, D + 1) sums of each portion alone, as of its end.
      log_decay: of a whole portion.
    """
    numbers = graph.count(graph.constant([0]), graph.length(totals, 1))  # (P,)
    rows, columns = (graph.op("Unsqueeze", numbers, graph.constant([axis])) for axis in (1, 0))
    ages = graph.op("Sub", graph.op("Sub", rows, columns), graph.constant(1))
    earlier = graph.op("GreaterOrEqual", ages, graph.constant(0))
    step = graph.constant(log_decay)

    def decay(portions: str) -> str:
        return graph.op("Exp", graph.op("Mul", graph.op("Cast", portions, to=FLOAT), step))

    weights = graph.op("Where", earlier, decay(graph.op("Max", ages, graph.constant(0))), graph.constant(0.0))
    of_state = graph.op("Mul", decay(rows), state)
    return graph.op("Add", graph.op("MatMul", weights, totals), of_state)

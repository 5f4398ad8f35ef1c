"""Normalisation inside an ONNX graph: the mean of an utterance or a running one is subtracted, the rest is scaled.

As `asr_kd.frames.normalisation` does it; sums over an utterance are in float64, the rest is float32.

Shapes:  T frames, D mel bins, P portions of 128 frames.
"""

from __future__ import annotations

import math

import numpy as np

from asr_kd.export.onnx_graph import DOUBLE, END, FLOAT, OnnxGraph
from asr_kd.frames.features import FRAME_SHIFT
from asr_kd.frames.normalisation import LEAST_VARIANCE, VARIANCE_PRIOR, Normalisation, RunningMean

_PORTION = 128  # frames


def add_normalised(graph: OnnxGraph, features: str, normalisation: Normalisation) -> str:
    """(T, D) log-mel energies of a whole utterance, of an unknown speaker -> (T, D) normalised frames.

    As `Normalisation.of_unknown_speaker`.
    """
    if normalisation.running is not None:
        start = graph.constant(normalisation.running.start())
        means, _ = add_running_means(graph, features, start, normalisation.running)
    else:
        exact = graph.op("Cast", features, to=DOUBLE)
        means = graph.op("Cast", graph.op("ReduceMean", exact, axes=[0], keepdims=1), to=FLOAT)
    centred = graph.op("Sub", features, means)
    of_training = normalisation.scales is None
    scale = graph.constant(normalisation.scale) if of_training else _shrunk_scale(graph, centred, normalisation.scale)
    return graph.op("Mul", centred, scale)


def _shrunk_scale(graph: OnnxGraph, centred: str, scale: np.ndarray) -> str:
    """See `asr_kd.frames.normalisation.shrunk_scales`."""
    frames = graph.op("Cast", graph.length(centred, 0), to=FLOAT)
    exact = graph.op("Cast", centred, to=DOUBLE)
    sums = graph.op("ReduceSum", graph.op("Mul", exact, exact), graph.constant([0]), keepdims=0)
    squares = graph.op("Cast", sums, to=FLOAT)
    prior = VARIANCE_PRIOR / np.square(scale.astype(np.float64))
    total = graph.op("Add", frames, graph.constant(float(VARIANCE_PRIOR)))
    variance = graph.op("Div", graph.op("Add", squares, graph.constant(prior)), total)
    least = graph.op("Max", variance, graph.constant(LEAST_VARIANCE))
    return graph.op("Reciprocal", graph.op("Sqrt", least))


def add_running_means(graph: OnnxGraph, features: str, state: str, mean: RunningMean) -> tuple[str, str]:
    """As `RunningMean.means`: (T, D) features after those of the (D + 1,) state -> (T, D) means, the next state.

    The sums within a portion are one product with a matrix of decays; those of all portions before it another, whose
    matrix is (P, P): together 0.25 GB for an hour, 3.5 GB for four.

    Args:
      state: float32, see `RunningMean.start`.
    """
    log_decay, size = math.log1p(-FRAME_SHIFT / mean.seconds), len(mean.prior) + 1
    ages = np.subtract.outer(np.arange(_PORTION), np.arange(_PORTION))
    decays = graph.constant(np.where(ages >= 0, np.exp(log_decay * np.maximum(ages, 0)), 0.0))
    within = graph.op("MatMul", decays, _in_portions(graph, features, size))  # (P, 128, D + 1)
    totals = graph.op("Squeeze", graph.rows(within, -1, END, axis=1), graph.constant([1]))
    before = _before_portions(graph, totals, state, log_decay * _PORTION)  # (P, D + 1)
    factors = graph.constant(np.exp(log_decay * np.arange(1, _PORTION + 1))[:, None])
    sums = graph.op("Add", within, graph.op("Mul", graph.op("Unsqueeze", before, graph.constant([1])), factors))
    flat = graph.op("Reshape", sums, graph.constant([-1, size]))
    seen = graph.rows(flat, graph.constant([0]), graph.length(features, 0), axis=0)
    means = graph.op("Div", graph.rows(seen, 0, -1, axis=1), graph.rows(seen, -1, END, axis=1))
    return means, graph.op("Reshape", graph.rows(seen, -1, END, axis=0), graph.constant([size]))


def _in_portions(graph: OnnxGraph, features: str, size: int) -> str:
    """(T, D) -> (P, 128, D + 1): a count of one beside each frame, zeros after the last."""
    length, zeros = graph.length(features, 0), graph.constant([0, 0])
    column = graph.op("Expand", graph.constant([[1.0]]), graph.op("Concat", length, graph.constant([1]), axis=0))
    missing = graph.op("Mod", graph.op("Neg", length), graph.constant([_PORTION]))
    ends = graph.op("Concat", zeros, missing, graph.constant([0]), axis=0)
    padded = graph.op("Pad", graph.op("Concat", features, column, axis=1), ends)
    return graph.op("Reshape", padded, graph.constant([-1, _PORTION, size]))


def _before_portions(graph: OnnxGraph, totals: str, state: str, log_decay: float) -> str:
    """(P, D + 1) sums of all that was before each portion, as of the end of the one before it.

    Args:
      totals: (P, D + 1) sums of each portion alone, as of its end.
      log_decay: of a whole portion.
    """
    numbers = graph.count(graph.constant([0]), graph.length(totals, 0))  # (P,)
    rows, columns = (graph.op("Unsqueeze", numbers, graph.constant([axis])) for axis in (1, 0))
    ages = graph.op("Sub", graph.op("Sub", rows, columns), graph.constant(1))
    earlier = graph.op("GreaterOrEqual", ages, graph.constant(0))
    step = graph.constant(log_decay)

    def decay(portions: str) -> str:
        return graph.op("Exp", graph.op("Mul", graph.op("Cast", portions, to=FLOAT), step))

    weights = graph.op("Where", earlier, decay(graph.op("Max", ages, graph.constant(0))), graph.constant(0.0))
    of_state = graph.op("Mul", decay(rows), state)
    return graph.op("Add", graph.op("MatMul", weights, totals), of_state)

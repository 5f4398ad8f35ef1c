"""A trained model as ONNX, whole: log-mel energies in, log posteriors out, normalisation inside.

`utterance_model` takes all frames of an utterance; `streaming_model` takes them as they come, and what it must remember
goes in and out with them.

Shapes:  T frames of an utterance, L of a chunk, D mel bins, C senones, W frames of the model's window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asr_kd.acoustic.model import FrameModel
from asr_kd.export.onnx_graph import END, OnnxGraph, Weights
from asr_kd.export.onnx_models import add_log_posteriors
from asr_kd.export.onnx_normalisation import add_normalised, add_running_sums, means_of
from asr_kd.frames.features import FRAME_LENGTH, FRAME_SHIFT, LOW_FREQ
from asr_kd.frames.normalisation import Normalisation, RunningMean


@dataclass(frozen=True)
class Description:
    """What else a program that runs a model needs to know; kept as the model's metadata.

    Attributes:
      system: its name.
      sampling_rate: Hz.
      running_seconds: memory of the running mean of a stream whose model was trained with another mean.
      more: further entries.
    """

    system: str
    sampling_rate: int
    running_seconds: float
    more: dict[str, str]

    def metadata(self, model: FrameModel, form: str, mean: str) -> dict[str, Any]:
        """All entries, by their names.

        Args:
          form: "utterance" or "streaming". mean: what is subtracted, in words.
        """
        left, right = model.context.left, model.context.right
        return {
            "model_type": f"asr_kd {form}",
            "system": self.system,
            "features": "log mel energies of samples in [-1, 1]: povey window, pre-emphasis 0.97, no dither, "
            "snip_edges=false",
            "sampling_rate": self.sampling_rate,
            "num_mel_bins": model.num_dims,
            "low_freq": LOW_FREQ,
            "high_freq": self.sampling_rate / 2,
            "frame_length_ms": 1000 * FRAME_LENGTH,
            "frame_shift_ms": 1000 * FRAME_SHIFT,
            "mean": mean,
            "left_context": left,
            "right_context": right,
            "num_senones": model.num_senones,
            "members": model.members,
            **self.more,
        }


def utterance_model(
    model: FrameModel, normalisation: Normalisation, description: Description, weights: Weights = "float32"
) -> Any:
    """An onnx.ModelProto: `features` (T, D) float32 -> `log_posteriors` (T, C).

    It subtracts what `Normalisation.of_unknown_speaker` does: the utterance's mean, or a running one where the model
    was trained with that. Before the first frame and after the last these are repeated, as in training. Several members
    answer with the log of their mean.

    Args:
      normalisation: of the training set, or what it gives for new speech.

    Raises:
      UserError: the kind of model has no ONNX writer, or its weights do not fit the number format.
    """
    graph, left, right = OnnxGraph(weights), model.context.left, model.context.right
    graph.input("features", ("frames", model.num_dims))
    one = graph.op("Unsqueeze", "features", graph.constant([0]))
    normalised = add_normalised(graph, one, normalisation)
    length = graph.length("features", 0)
    places = graph.count(graph.constant([-left]), graph.op("Add", length, graph.constant([right])))
    last = graph.op("Sub", length, graph.constant([1]))
    inside = graph.op("Max", graph.op("Min", places, last), graph.constant(0))
    padded = graph.op("Gather", normalised, inside, axis=1)
    graph.output("log_posteriors", _of_one(graph, model, padded), ("frames", model.num_senones))
    return graph.model(description.metadata(model, "utterance", mean_in_words(normalisation)))


def streaming_model(
    model: FrameModel, normalisation: Normalisation, description: Description, weights: Weights = "float32"
) -> Any:
    """An onnx.ModelProto that is fed chunk by chunk, of any lengths.

    Inputs: `features` (L, D) float32; the state, at first all zeros: `context` (W - 1, D), `sums` (D + 1), `seen` (1,)
    int64.
    Outputs: `log_posteriors` (L, C), which are `right_context` frames late: the first `right_context` rows of a stream
    belong to no frame, and after the end of speech as many frames are fed for what is still to come; the next state:
    `next_context`, `next_sums`, `next_seen`.

    The mean is a running one in any case, and the scale that of the training set. A model that was trained with a mean
    or variance of speakers loses by that.

    Raises:
      UserError: see `utterance_model`.
    """
    graph, dims, reach = OnnxGraph(weights), model.num_dims, model.context.width - 1
    graph.input("features", ("frames", dims))
    graph.input("context", (reach, dims))
    graph.input("sums", (dims + 1,))
    graph.input("seen", (1,), "int64")
    running = normalisation.running_mean(description.running_seconds)
    begins = graph.op("Equal", "seen", graph.constant([0]))
    before = graph.op("Where", begins, graph.constant(running.start()), "sums")
    one = graph.op("Unsqueeze", "features", graph.constant([0]))
    sums = add_running_sums(graph, one, before, running)
    centred = graph.op("Sub", one, means_of(graph, sums))
    normalised = graph.op("Mul", centred, graph.constant(normalisation.scale))
    edge = graph.rows(normalised, 0, 1, axis=1)  # stands for all frames before the first
    earlier = graph.op("Where", begins, edge, graph.op("Unsqueeze", "context", graph.constant([0])))
    padded = graph.op("Concat", earlier, normalised, axis=1)
    length = graph.length("features", 0)
    graph.output("log_posteriors", _of_one(graph, model, padded), ("frames", model.num_senones))
    later = graph.rows(padded, length, graph.constant([END]), axis=1)
    graph.output("next_context", graph.op("Squeeze", later, graph.constant([0])), (reach, dims))
    last = graph.rows(sums, -1, END, axis=1)
    graph.output("next_sums", graph.op("Reshape", last, graph.constant([dims + 1])), (dims + 1,))
    graph.output("next_seen", graph.op("Add", "seen", length), (1,), "int64")
    return graph.model(description.metadata(model, "streaming", _running(running)))


def mean_in_words(normalisation: Normalisation) -> str:
    """What is subtracted from an utterance."""
    if normalisation.running is not None:
        return _running(normalisation.running)
    frames = normalisation.prior_frames
    return f"utterance, with {frames} frames at the mean of training" if frames else "utterance"


def _running(mean: RunningMean) -> str:
    return f"running, {mean.seconds:g} s"


def _of_one(graph: OnnxGraph, model: FrameModel, padded: str) -> str:
    """(1, S, D) -> (T, C)."""
    return graph.op("Squeeze", add_log_posteriors(graph, model, padded), graph.constant([0]))

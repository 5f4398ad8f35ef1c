"""What sherpa-onnx runs as it is: models whose columns are senones, HCLG in its labels, its lists of tokens and words.

Its search is that of kaldi-decoder over (T, V) scores; CTC is only how it reads the result. An arc whose input label
is i takes the score of column i - 1. Arcs with the label 0 or 1, and arcs whose label is that of the arc before, lose
their word: so column 0 is not used, senone c is column c + 1 and label c + 2, and words stand where an HMM state is
entered, as in a `Graph`. There is no option for an acoustic scale, priors, or a beam other than SHERPA_BEAM: scale and
priors are part of the model, and all costs are multiplied by SHERPA_BEAM / beam.

Shapes:  N utterances, T frames, S with their context, L of a chunk, D mel bins, C senones, V columns: C + 1, or where
`Scores.columns` says more of them, these and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.acoustic.model import FrameModel
from asr_kd.decoding.fst_io import Fst
from asr_kd.decoding.graph import Graph
from asr_kd.decoding.kaldi_decoder import decoding_fst
from asr_kd.errors import UserError
from asr_kd.export.graph_files import Scores
from asr_kd.export.onnx_acoustic import Description, mean_in_words
from asr_kd.export.onnx_graph import FLOAT, INT64, OnnxGraph
from asr_kd.export.onnx_models import add_log_posteriors
from asr_kd.export.onnx_normalisation import add_normalised, add_running_sums, means_of
from asr_kd.frames.normalisation import Normalisation

_CACHE = (128, 3, 19)  # the shape of what a stream may keep
_ENCODER = ("encoder_dims", "query_head_dims", "value_head_dims", "num_heads", "cnn_module_kernels", "left_context_len")
_UNUSED = -1e4  # score of column 0
_FILLED = -23.0  # log energies that fill up the shorter of several utterances lie below; those of silence above


def sherpa_fst(graph: Graph, scores: Scores) -> Fst:
    """HCLG with sherpa-onnx's labels and costs."""
    fst, factor = decoding_fst(graph, scores.word_penalty), np.float32(scores.factor)
    return Fst(fst.src, fst.dst, fst.ilabel + 1, fst.olabel, fst.cost * factor, fst.final * factor, fst.start)


def offline_model(model: FrameModel, normalisation: Normalisation, scores: Scores, description: Description) -> Any:
    """Returns the model for `--tdnn-model`: `x` (N, T, D) log-mel energies -> `log_prob` (N, T, V) scores.

    sherpa-onnx says nothing of lengths. Where it fills up the shorter of several utterances, only silence can be.
    """
    graph, left, right = OnnxGraph(), model.context.left, model.context.right
    graph.input("x", ("N", "T", model.num_dims))
    # a frame of padding more: without any frame (less than half a shift of speech) onnxruntime fails or reads elsewhere
    frames = graph.op("Pad", "x", graph.constant([0, 0, 0, 0, 1, 0]), graph.constant(2 * _FILLED))
    heard = graph.op("GreaterOrEqual", graph.op("ReduceMax", frames, axes=[2], keepdims=1), graph.constant(_FILLED))
    counted = graph.op("Cast", heard, to=FLOAT)  # (N, T, 1)
    # what is no number becomes the padding's 0, and so the mean: it must not spread over the utterance
    energies = graph.op("Where", heard, frames, graph.constant(0.0))
    normalised = graph.op("Mul", add_normalised(graph, energies, normalisation, counted), counted)
    places = graph.count(graph.constant([-left]), graph.op("Add", graph.length(frames, 1), graph.constant([right])))
    rows = graph.op("Unsqueeze", graph.count(graph.constant([0]), graph.length(frames, 1)), graph.constant([0, 2]))
    heard_rows = graph.op("Mul", rows, graph.op("Cast", heard, to=INT64))
    last = graph.op("ReduceMax", heard_rows, axes=[1], keepdims=1)  # (N, 1, 1)
    column = graph.op("Unsqueeze", places, graph.constant([0, 2]))
    inside = graph.op("Max", graph.op("Min", column, last), graph.constant(0))  # (N, S, 1)
    padded = graph.op("GatherND", normalised, inside, batch_dims=1)
    silence = np.full(model.num_senones, _UNUSED)
    silence[scores.silence] = 0.0
    answer = graph.op("Where", heard, _scores(graph, model, padded, scores), graph.constant(silence))
    columns = _columns(graph, graph.rows(answer, 0, -1, axis=1), scores)
    graph.output("log_prob", columns, ("N", "T", scores.num_columns + 1))
    mean = mean_in_words(normalisation)
    return graph.model(description.metadata(model, "sherpa", mean) | {"vocab_size": scores.num_columns + 1})


def online_model(
    model: FrameModel, normalisation: Normalisation, scores: Scores, description: Description, *, chunk: int
) -> Any:
    """Returns the model for `--zipformer2-ctc-model`, which takes speech chunk by chunk.

    Its input is a chunk of L = `chunk` frames, and the frames after it that the model looks ahead.

    Of the forms that sherpa-onnx streams, this is the one whose features are as asked for (NeMo's are others). The
    cache that it offers, `embed_states`, holds the left context and the sums of the running mean.

    Raises:
      UserError: they are too many for it.
    """
    graph, dims, left, ahead = OnnxGraph(), model.num_dims, model.context.left, model.context.right
    unused = math.prod(_CACHE) - (left + 1) * dims - 1
    if unused < 0:
        raise UserError(
            f"a stream of sherpa-onnx can keep {math.prod(_CACHE):,} numbers, but {left} frames of {dims} and a "
            f"running mean are {(left + 1) * dims + 1:,}; a model with less context on the left can be streamed."
        )
    graph.input("x", ("N", chunk + ahead, dims))
    graph.input("embed_states", ("N", *_CACHE))
    graph.input("processed_lens", ("N",), "int64")
    cache = graph.op("Reshape", "embed_states", graph.constant([0, 1, -1]))  # (N, 1, size)
    running = normalisation.running_mean(description.running_seconds)
    new = graph.op("Equal", "processed_lens", graph.constant(0))
    begins = graph.op("Unsqueeze", new, graph.constant([1, 2]))
    before = graph.op("Where", begins, graph.constant(running.start()), graph.rows(cache, 0, dims + 1, axis=2))
    # what is no number becomes the training set's mean: else no sum would be a number ever after
    finite = graph.op("Equal", graph.op("Sub", "x", "x"), graph.constant(0.0))
    energies = graph.op("Where", finite, "x", graph.constant(running.prior))
    sums = add_running_sums(graph, energies, before, running)
    centred = graph.op("Sub", energies, means_of(graph, sums))
    padded = normalised = graph.op("Mul", centred, graph.constant(normalisation.scale))
    if left:
        earlier = graph.op(
            "Reshape", graph.rows(cache, dims + 1, (left + 1) * dims + 1, axis=2), graph.constant([0, left, dims])
        )
        edge = graph.rows(normalised, 0, 1, axis=1)  # stands for all frames before the first
        padded = graph.op("Concat", graph.op("Where", begins, edge, earlier), normalised, axis=1)
    graph.output(
        "log_probs",
        _columns(graph, _scores(graph, model, padded, scores), scores),
        ("N", chunk, scores.num_columns + 1),
    )
    later = [graph.rows(sums, chunk - 1, chunk, axis=1)]
    if left:
        later.append(graph.op("Reshape", graph.rows(padded, chunk, chunk + left, axis=1), graph.constant([0, 1, -1])))
    filled = graph.op("Pad", graph.op("Concat", *later, axis=2), graph.constant([0, 0, 0, 0, 0, unused]))
    graph.output("new_embed_states", graph.op("Reshape", filled, graph.constant([0, *_CACHE])), ("N", *_CACHE))
    seen = graph.op("Add", "processed_lens", graph.constant(chunk))
    graph.output("new_processed_lens", seen, ("N",), "int64")
    sizes = {"T": chunk + ahead, "decode_chunk_len": chunk, "num_encoder_layers": 0, **dict.fromkeys(_ENCODER, 1)}
    known = description.metadata(model, "sherpa streaming", "running") | sizes
    return graph.model(known | {"model_type": "zipformer2"})


def _scores(graph: OnnxGraph, model: FrameModel, padded: str, scores: Scores) -> str:
    """(N, S, D) normalised frames -> (N, T, C)."""
    posteriors = add_log_posteriors(graph, model, padded)
    likelihoods = graph.op("Sub", posteriors, graph.constant(scores.prior_scale * scores.log_priors))
    return graph.op("Mul", likelihoods, graph.constant(scores.acoustic_scale * scores.factor))


def _columns(graph: OnnxGraph, of_senones: str, scores: Scores) -> str:
    """(N, T, C) -> (N, T, V)."""
    if scores.columns is not None:
        of_senones = graph.op("Gather", of_senones, graph.constant(scores.columns.tolist()), axis=2)
    return graph.op("Pad", of_senones, graph.constant([0, 0, 1, 0, 0, 0]), graph.constant(_UNUSED))


def write_tokens(path: Path, names: Iterable[str]) -> None:
    """A line for each column: the first, which is not used, and those named."""
    lines = (f"{name} {number}" for number, name in enumerate(["<blk>", *names]))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

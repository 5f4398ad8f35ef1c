"""The kinds of models as ONNX graphs: normalised frames in, log posteriors out.

A writer of a kind, named in `asr_kd.acoustic.settings.MODELS`, adds the nodes of a model to a graph and returns the
logits of each member.

Shapes:  N utterances, S frames with their context, T without, D dimensions, H channels or units, C senones, M members.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asr_kd.acoustic.dnn import Dnn
from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.member_linear import MemberLinear
from asr_kd.acoustic.model import FrameModel, member_slice
from asr_kd.acoustic.settings import MODELS
from asr_kd.acoustic.tdnn import EPSILON, Tdnn
from asr_kd.acoustic.time_convolution import FactoredConvolution, TimeConvolution
from asr_kd.errors import UserError
from asr_kd.export.onnx_graph import END, OnnxGraph

Writer = Callable[[OnnxGraph, Any, str], list[str]]  # graph, model, (N, S, D) frames -> M times (N, T, C) logits


def add_log_posteriors(graph: OnnxGraph, model: FrameModel, frames: str) -> str:
    """Adds a model; of several members, the log of their mean.

    Args:
      frames: (N, S, D) normalised frames, context included.

    Returns:
      (N, T, C) natural-log posteriors.

    Raises:
      UserError: its kind has no ONNX writer.
    """
    members = [graph.op("LogSoftmax", logits, axis=-1) for logits in _logits(graph, model, frames)]
    if len(members) == 1:
        return members[0]
    first = graph.constant([0])
    together = graph.op("Concat", *(graph.op("Unsqueeze", member, first) for member in members), axis=0)
    total = graph.op("ReduceLogSumExp", together, axes=[0], keepdims=0)
    return graph.op("Sub", total, graph.constant(math.log(len(members))))


def check_writers(kinds: Iterable[str]) -> None:
    """Raises UserError where models of a kind cannot be written."""
    for kind in kinds:
        if not MODELS[kind].onnx:
            raise UserError(
                f"models of kind {kind} cannot be written as ONNX: their line in MODELS (asr_kd/acoustic/settings.py) "
                "names no writer; --format recogniser and --format kaldi need none."
            )


def _logits(graph: OnnxGraph, model: FrameModel, frames: str) -> list[str]:
    if isinstance(model, JoinedModels):
        return [logits for part in model.models for logits in _logits_of_part(graph, model, part, frames)]
    kind = model.settings.kind
    check_writers([kind])
    writer: Writer = pkgutil.resolve_name(MODELS[kind].onnx)
    return writer(graph, model, frames)


def _logits_of_part(graph: OnnxGraph, whole: JoinedModels, part: FrameModel, frames: str) -> list[str]:
    seen = part.context.frames_within(whole.context)
    return _logits(graph, part, graph.rows(frames, seen.start or 0, END if seen.stop is None else seen.stop, axis=1))


def write_dnn(graph: OnnxGraph, model: Dnn, frames: str) -> list[str]:
    """A `Writer`: windows of frames, then affine maps and ReLUs."""
    windows = _neighbours(graph, frames, model.context.width, 1)
    return [_fully_connected(graph, model, windows, member) for member in range(model.members)]


def _fully_connected(graph: OnnxGraph, model: Dnn, windows: str, member: int) -> str:
    *hidden_layers, output = [_linear(layer) for layer in model.layers]
    hidden = windows
    for layer in hidden_layers:
        hidden = graph.op("Relu", _member_affine(graph, layer, member, hidden))
    return _member_affine(graph, output, member, hidden)


def _linear(module: nn.Module) -> MemberLinear:
    assert isinstance(module, MemberLinear)
    return module


def _member_affine(graph: OnnxGraph, layer: MemberLinear, member: int, value: str) -> str:
    return graph.affine(value, _numbers(layer.weight[member]), _numbers(layer.bias[member, 0]))


def write_tdnn(graph: OnnxGraph, model: Tdnn, frames: str) -> list[str]:
    """A `Writer`: each convolution is one product of the frames that it sees; batch norms are part of it."""
    return [_Tdnn(graph, model, member).logits(frames) for member in range(model.members)]


class _Tdnn:
    """One member of a time-delay net."""

    def __init__(self, graph: OnnxGraph, model: Tdnn, member: int) -> None:
        self._graph, self._model, self._member = graph, model, member

    def logits(self, frames: str) -> str:
        graph, model, settings = self._graph, self._model, self._model.settings
        inputs = frames if model.front is None else self._front(frames)
        hidden = self._normed(inputs, model.input, 1, model.input_norm)
        for block, norm, dilation in zip(model.blocks, model.norms, settings.dilations, strict=True):
            inside = graph.rows(hidden, dilation, -dilation, axis=1)
            scaled = graph.op("Mul", inside, graph.constant(settings.residual_scale))
            hidden = graph.op("Add", self._block(hidden, block, norm, dilation), scaled)
        return _member_affine(graph, model.output, self._member, hidden)

    def _block(self, frames: str, block: nn.Module, norm: nn.Module, dilation: int) -> str:
        if isinstance(block, FactoredConvolution):
            weight = self._matrix(block.narrow)
            narrow = self._graph.affine(self._seen(frames, block.narrow, dilation), weight, None)
            return self._normed(narrow, block.wide, dilation, norm)
        assert isinstance(block, TimeConvolution)
        return self._normed(frames, block, dilation, norm)

    def _normed(self, frames: str, convolution: TimeConvolution, dilation: int, norm: nn.Module) -> str:
        """Convolution, norm and ReLU."""
        seen, weight = self._seen(frames, convolution, dilation), self._matrix(convolution)
        affine = self._batch_norm(norm)
        if affine is not None:
            return self._graph.op("Relu", self._graph.affine(seen, weight * affine[0], affine[1]))
        return self._layer_norm(self._graph.affine(seen, weight, None), norm)

    def _seen(self, frames: str, convolution: TimeConvolution, dilation: int) -> str:
        return _neighbours(self._graph, frames, convolution.weight.shape[3], dilation)

    def _matrix(self, convolution: TimeConvolution) -> np.ndarray:
        """(taps * in, out) weights of the member."""
        weight = _numbers(self._part(convolution.weight))[:, :, 0]  # (out, in, taps)
        return weight.transpose(2, 1, 0).reshape(-1, len(weight))

    def _batch_norm(self, norm: nn.Module) -> tuple[np.ndarray, np.ndarray] | None:
        """(H,) factors and (H,) offsets; None for another norm."""
        if self._model.settings.norm != "batch":
            return None
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (_numbers(self._part(getattr(norm, name))) for name in names)
        factor = weight / np.sqrt(variance + EPSILON)
        return factor, bias - mean * factor

    def _layer_norm(self, frames: str, norm: nn.Module) -> str:
        weight, bias = (
            self._graph.constant(_numbers(getattr(norm, name)[self._member])) for name in ("weight", "bias")
        )
        normed = self._graph.op("LayerNormalization", frames, weight, bias, axis=-1, epsilon=EPSILON)
        return self._graph.op("Relu", normed)

    def _front(self, frames: str) -> str:
        """(N, S, D) -> (N, S - 2 * convolutions, bands * channels)."""
        graph, front = self._graph, self._model.front
        assert front is not None
        images = graph.op("Unsqueeze", frames, graph.constant([1]))  # (N, channels, S, bands)
        for number, (weights, norm) in enumerate(zip(front.weights, front.norms, strict=True)):
            weight, affine = _numbers(self._part(weights)), self._batch_norm(norm)
            options = {"strides": [1, 2 if number else 1], "pads": [0, 1, 0, 1]}
            if affine is None:
                images = graph.op("Conv", images, graph.weight(weight), **options)
                by_frame = self._layer_norm(graph.op("Transpose", images, perm=[0, 2, 3, 1]), norm)
                images = graph.op("Transpose", by_frame, perm=[0, 3, 1, 2])
                continue
            scaled = graph.weight(weight * affine[0][:, None, None, None])
            images = graph.op("Relu", graph.op("Conv", images, scaled, graph.constant(affine[1]), **options))
        return graph.op("Reshape", graph.op("Transpose", images, perm=[0, 2, 3, 1]), graph.constant([0, 0, -1]))

    def _part(self, value: Tensor) -> Tensor:
        return member_slice(value, self._member, self._model.members)


def _neighbours(graph: OnnxGraph, frames: str, count: int, distance: int) -> str:
    """(N, S, D) -> (N, S - (count - 1) * distance, count * D): `count` frames, `distance` apart, side by side."""
    if count == 1:
        return frames
    reach = (count - 1) * distance
    shifted = [graph.rows(frames, k * distance, k * distance - reach or END, axis=1) for k in range(count)]
    return graph.op("Concat", *shifted, axis=2)


def _numbers(value: Tensor) -> np.ndarray:
    numbers: np.ndarray = value.detach().to("cpu", torch.float64).numpy()
    return numbers

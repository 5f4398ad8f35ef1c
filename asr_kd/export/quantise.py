"""Smaller numbers for exported models: matrix products in int8, by onnxruntime.

Each column of a weight has a scale of its own. Dynamic: the scale of what is multiplied with it is found in each call;
static: once, from utterances. Weights take 7 of the 8 bits: processors without VNNI add two products of 8 bits in 16
bits, which overflows.

Shapes:  T frames of an utterance, D mel bins.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asr_kd.errors import UserError
from asr_kd.io.files import replacing_file

try:
    from onnxruntime import quantization
except ImportError:
    raise UserError("int8 needs the packages onnx and onnxruntime: pip install 'asr_kd[export]'.") from None

_PRODUCTS = ["MatMul"]
_SEVEN_BITS = {"per_channel": True, "reduce_range": True, "weight_type": quantization.QuantType.QInt8}


def quantise_dynamic(model: Path, int8: Path) -> None:
    """Writes a float32 model with its products in int8."""
    with _quietly(), replacing_file(int8) as temporary:
        quantization.quantize_dynamic(
            model,
            temporary,
            op_types_to_quantize=_PRODUCTS,
            extra_options={"MatMulConstBOnly": True},
            **_SEVEN_BITS,
        )


def quantise_static(model: Path, int8: Path, utterances: Sequence[np.ndarray]) -> None:
    """The same with scales from utterances.

    Args:
      model: of whole utterances, in float32.
      utterances: (T, D) log-mel energies of each.
    """
    with _quietly(), replacing_file(int8) as temporary:
        quantization.quantize_static(
            model,
            temporary,
            _Utterances(utterances),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS,
            activation_type=quantization.QuantType.QUInt8,
            nodes_to_exclude=_without_weights(model),
            **_SEVEN_BITS,
        )


class _Utterances(quantization.CalibrationDataReader):
    def __init__(self, utterances: Sequence[np.ndarray]) -> None:
        self._left = iter(utterances)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """See onnxruntime."""
        features = next(self._left, None)
        return None if features is None else {"features": np.asarray(features, np.float32)}


def _without_weights(path: Path) -> list[str]:
    """Products that have no weight in them: those of the running mean."""
    import onnx

    model = onnx.load(str(path))
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in _PRODUCTS and node.input[1] not in constants]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences the advice that onnxruntime logs to the root logger, which is about graphs made by other tools.

    What it calls also gives the root logger a handler where there is none; that goes again.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers

"""Writes ONNX graphs node by node, from Python and numpy alone.

torch's exporters change with its releases, and trace what training needs too; a feed-forward net is a few dozen nodes.
`onnx` is part of the extra `export`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr_kd.errors import UserError
from asr_kd.io.files import replacing_file

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:  # the extra is not installed
    raise UserError("ONNX models need the packages onnx and onnxruntime: pip install 'asr_kd[export]'.") from None

OPSET = 17
_IR = 8  # of the ONNX release that had this opset first
END = np.iinfo(np.int64).max  # of a slice that goes to the end
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64  # for casts
_TYPES = {"float32": FLOAT, "int64": INT64}

Weights = Literal["float32", "float16"]
Shape = Sequence[int | str]  # of an input or output; a string names a length that may differ


class OnnxGraph:
    """A graph under construction. Values are called by their names, which `op` makes up.

    Args:
      weights: the number format in which `weight` stores; products are float32 in any case.

    >>> graph = OnnxGraph()
    >>> graph.input("features", ("frames", 40))
    >>> doubled = graph.op("Mul", "features", graph.constant(2.0))
    >>> graph.output("doubled", doubled, ("frames", 40))
    >>> [node.op_type for node in graph.model({"kind": "example"}).graph.node]
    ['Mul', 'Identity']
    """

    def __init__(self, weights: Weights = "float32") -> None:
        self._weights, self._count = weights, 0
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, shape: Shape, dtype: str = "float32") -> None:
        """Declares an input."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def output(self, name: str, value: str, shape: Shape, dtype: str = "float32") -> None:
        """Declares a value as output under another name."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def constant(self, value: Any) -> str:
        """Python's and numpy's whole numbers become int64, others float32."""
        array = np.asarray(value)
        whole = np.issubdtype(array.dtype, np.integer)
        return self._constant(array.astype(np.int64 if whole else np.float32))

    def weight(self, value: np.ndarray) -> str:
        """A constant in the number format of the weights, as float32.

        Raises:
          UserError: it is too large for that format.
        """
        if self._weights == "float32":
            return self.constant(value)
        with np.errstate(over="ignore"):
            small = value.astype(np.float16)
        if not np.isfinite(small).all():
            raise UserError("a weight of this model is too large for float16; export it as float32 or int8.")
        return self.op("Cast", self._constant(small), to=FLOAT)

    def _constant(self, array: np.ndarray) -> str:
        name = self._name("constant")
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operator of ONNX with one output, whose name it returns."""
        name = self._name(kind)
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def rows(self, value: str, first: int | str, end: int | str, *, axis: int) -> str:
        """value[first:end] along an axis; negative numbers count from the end, strings are values of shape (1,)."""
        bounds = (self.constant([bound]) if isinstance(bound, int) else bound for bound in (first, end))
        return self.op("Slice", value, *bounds, self.constant([axis]))

    def length(self, value: str, axis: int) -> str:
        """(1,) int64: the length of an axis."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def count(self, first: str, end: str) -> str:
        """int64 numbers from `first` up to `end` (exclusive), values of shape (1,)."""
        scalars = (self.op("Squeeze", bound) for bound in (first, end))
        return self.op("Range", *scalars, self.constant(1))

    def affine(self, value: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """(..., in) -> (..., out) by an (in, out) matrix and (out,) offsets."""
        product = self.op("MatMul", value, self.weight(weight))
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def model(self, metadata: Mapping[str, Any]) -> Any:
        """The finished onnx.ModelProto, checked.

        Args:
          metadata: is kept in the model, as strings.
        """
        graph = helper.make_graph(self._nodes, "asr_kd", self._inputs, self._outputs, self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="asr_kd", opset_imports=opset, ir_version=_IR)
        helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"


def save(model: Any, path: Path) -> None:
    """Writes a model; the file is whole or not there."""
    with replacing_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))

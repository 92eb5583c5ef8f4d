"""ONNX → Graph: float networks, and those quantized by QuantizeLinear / DequantizeLinear pairs or QLinear operators."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.quant import Array
from crosslayer.read.channels_first import ChannelsFirst, fewest_moves
from crosslayer.read.folding import FOLDS
from crosslayer.read.onnx_call import Call, Operator
from crosslayer.read.onnx_file import TYPES, Attributes, OnnxFile, array, load
from crosslayer.read.onnx_integers import INTEGERS, MICROSOFT
from crosslayer.read.onnx_operators import FLOATS
from crosslayer.read.problems import Problems, Unreadable, checked_size
from crosslayer.read.tensors import Fixed, Order, Reading, Tensor

_OPSETS = range(6, 29)
_REPLACE = "replace it by operators that are supported (docs/onnx.md lists them)"
OPERATORS: Mapping[str, Operator] = {**FLOATS, **INTEGERS}
"""The operators of the standard that are read; `MICROSOFT` has those of com.microsoft."""


def read_onnx(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """The network in an ONNX file, or in its bytes; of a quantized one the integers, with this rounding.

    The batch axis is dropped: the graph is the model at batch size 1. The graph takes and makes channels-last values:
    what the file calls (batch, channels, height, width) is (height, width, channels), and (batch, channels, length) is
    (1, length, channels) where the network slides over the length. Unsigned codes become signed ones, code and zero
    less by half their range. Raises `ReadError` that lists all operators, types and shapes that cannot be read.
    """
    return onnx_reading(source, rounding).graph


def onnx_reading(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE, *, batched: bool = True) -> Reading:
    """As `read_onnx`, with how the file's tensors lie in the graph; not `batched`: the input is one sample."""
    file = load(source)
    name, shape, kind = _input(file)
    constants: dict[str, Array] = {}

    def build(order: Order) -> Reading:
        problems = Problems(file.where)
        network = _Network(file, problems, constants)
        batch = 0 if batched and shape else None
        return network.reading(name, shape, batch, order, rounding, integers=kind != "float32")

    with np.errstate(all="ignore"):  # what is not finite is refused
        return fewest_moves(build, shape, batched=batched)


def _input(file: OnnxFile) -> tuple[str, Shape, str]:
    """Name, shape (batch size 1 where it is not fixed) and element type of the one input."""
    problems = Problems(file.where)
    graph = file.model.graph
    known = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in known]
    if len(inputs) != 1:
        problems.add("the network", f"has {len(inputs)} inputs", "give it one input, the others as constants")
        problems.raise_if_any()
    (value,) = inputs
    kind = TYPES.get(value.type.tensor_type.elem_type, "")
    place = f"input '{value.name}'"
    if kind not in ("float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16"):
        problems.add(place, f"has elements of type {kind or 'unknown'}", "use float32, int8 or uint8")
    shape: list[int] = []
    if not value.type.tensor_type.HasField("shape"):
        problems.add(place, "has no shape", "export the network with a fixed input shape")
    for axis, side in enumerate(value.type.tensor_type.shape.dim):
        size = side.dim_value if side.WhichOneof("value") == "dim_value" else 0
        if size < 1 and axis > 0:
            problems.add(place, f"axis {axis} has no fixed size", "export the network with a fixed input shape")
        shape.append(max(size, 1))
    with problems.at(place):
        checked_size(shape)
    problems.raise_if_any()
    return value.name, tuple(shape), "float32" if "float" in kind else kind


@final
class _Network:
    """Turns the nodes of a file into operations, one by one; what depends on one that failed is left out in silence."""

    def __init__(self, file: OnnxFile, problems: Problems, constants: dict[str, Array]) -> None:
        self._graph = file.model.graph
        self._folder = file.folder
        self._problems = problems
        self._build = ChannelsFirst()
        self._constants = constants
        self._initializers = {tensor.name: tensor for tensor in self._graph.initializer}
        self._values: dict[str, Tensor] = {}
        self._failed: set[str] = set()
        self._opset = 0
        for entry in file.model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                self._opset = entry.version
        if self._opset not in _OPSETS:
            problems.add(
                "the network",
                f"is written in version {self._opset} of the operators",
                f"export it in one of {_OPSETS[0]}…{_OPSETS[-1]}",
            )

    def reading(
        self, name: str, shape: Shape, batch: int | None, order: Order, rounding: Rounding, *, integers: bool
    ) -> Reading:
        """The graph of the file. Raises `ReadError` with all that is wrong."""
        with self._problems.at(f"input '{name}'"):
            self._values[name] = self._build.input(name, shape, batch, order, integers=integers)
        self._problems.raise_if_any()
        for i, node in self._needed():
            place = f"node {i} '{node.name or (node.output[0] if node.output else '')}' ({node.op_type})"
            with self._problems.at(place):
                self._node(node)
            self._failed.update(name for name in node.output if name not in self._values)
        outputs = [value.name for value in self._graph.output]
        for output in outputs:
            with self._problems.at(f"output '{output}'"):
                self._find(output)
        self._problems.raise_if_any()
        with self._problems.at("the network"):
            reading = self._build.reading([self._values[output] for output in outputs], rounding)
            _ = reading.graph.lowered
            return reading
        self._problems.raise_if_any()
        raise AssertionError

    def _needed(self) -> list[tuple[int, Any]]:
        """The nodes that some output depends on, with their positions."""
        wanted = {value.name for value in self._graph.output}
        needed: list[tuple[int, Any]] = []
        for i, node in reversed(list(enumerate(self._graph.node))):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                needed.append((i, node))
        return needed[::-1]

    def _node(self, node: Any) -> None:
        table = OPERATORS if node.domain in ("", "ai.onnx") else MICROSOFT if node.domain == "com.microsoft" else {}
        if node.op_type not in table and (node.op_type not in FOLDS or node.domain not in ("", "ai.onnx")):
            named = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            raise Unreadable(f"the operator {named} is not supported", _REPLACE)
        inputs = [self._find(name) if name else None for name in node.input]
        if any(tensor is None and name for tensor, name in zip(inputs, node.input, strict=True)):
            return  # what it needs has failed
        self._build.at(node.name or node.output[0])
        attributes = Attributes(node, self._folder)
        call = Call(build=self._build, opset=self._opset, inputs=inputs, attributes=attributes)
        try:
            results = call.fold(node.op_type) if call.is_constant(node.op_type) else table[node.op_type](call)
        except KeyError:
            raise Unreadable(f"{node.op_type} of a computed tensor is not supported", _REPLACE) from None
        except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError, MemoryError) as error:
            raise Unreadable(f"holds values that do not fit together ({error})", "export it again") from error
        if any(node.output[1:]):
            raise Unreadable(f"has {len(node.output)} results", "use the first one only")
        self._values[node.output[0]] = results

    def _find(self, name: str) -> Tensor | None:
        """A tensor by name; None if what makes it has failed."""
        if name in self._values:
            return self._values[name]
        if name in self._initializers:
            if name not in self._constants:
                self._constants[name] = array(self._initializers[name], self._folder)
            self._values[name] = Fixed(value=self._constants[name])
            return self._values[name]
        if name in self._failed:
            return None
        raise Unreadable(f"reads '{name[:80]}', which nothing computes before it", "export it again")

"""Graph → ONNX: float networks, and integer ones as QuantizeLinear / DequantizeLinear pairs around float operators.

Source: `Operators.md` of the ONNX project. A value (height, width, channels) of the graph is the tensor (batch,
channels, height, width) of the file; values with another number of axes only get a batch axis in front.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from crosslayer.core.errors import GraphError, ToolError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Clamp,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Dequantize,
    GlobalMean,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Relu,
    Relu6,
    Requantize,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
    Windows,
)
from crosslayer.core.quant import Array, Quant

if TYPE_CHECKING:
    import onnx

_OPSET = 21
"""The first with codes of 16 bits; its oldest runtime is ONNX Runtime 1.18."""
_IR_VERSION = 10


def write_onnx(graph: Graph) -> bytes:
    """The content of an ONNX file that computes what the graph does.

    A float network computes the same up to the order of float additions. For an integer one ONNX prescribes real
    arithmetic and rounds each result once, to even: codes may differ by one from those of the graph. Read back by
    `read_onnx` with the graph's rounding it gives the same codes, but for layers on 16 bits with a bias of 32 (it is
    read as one of 64, which rounds otherwise). Raises `GraphError` for codes that ONNX lacks.
    """
    try:
        import onnx
    except ImportError as error:
        raise ToolError("writing ONNX needs the package onnx; install crosslayer[convert]") from error
    return _Writer(graph, onnx).content()


@final
class _Writer:
    """Collects the nodes and initializers of the file. A value `x` of the graph is its tensor `x`: codes where it has a
    number code; `x@real` is then what they stand for."""

    def __init__(self, graph: Graph, package: Any) -> None:
        self._graph = graph
        self._onnx: Any = package
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._known: set[str] = set()

    def content(self) -> bytes:
        """The file."""
        helper = self._onnx.helper
        for node in self._graph.nodes:
            with_place = f"{node.name} ({type(node.op).__name__})"
            try:
                self._node(node)
            except GraphError as error:
                raise GraphError(f"{with_place}: {error}") from error
        body = helper.make_graph(
            self._nodes,
            "network",
            [self._port(name) for name in self._graph.inputs],
            [self._port(name) for name in self._graph.outputs],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(body, opset_imports=opset, ir_version=_IR_VERSION, producer_name="crosslayer")
        return model.SerializeToString(deterministic=True)

    def _port(self, name: str) -> Any:
        kind = self._graph.types[name]
        if kind.quant is not None:
            _check_code(kind.quant)
        element = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype("f4") if kind.quant is None else kind.quant.dtype)
        sides = [kind.shape[axis] for axis in _layout(len(kind.shape))]
        return self._onnx.helper.make_tensor_value_info(name, element, ["batch", *sides])

    def _node(self, node: Node) -> None:
        quant = self._graph.types[node.name].quant
        match node.op:
            case Quantize() | Requantize() if quant is not None:
                self._quantized(self.real(node.inputs[0]), node.name, node.name)
            case Dequantize() if self._graph.types[node.inputs[0]].quant is not None:
                self._dequantized(node.inputs[0], node.name, self._activation_code(node.inputs[0]), None)
            case Constant():
                self._constant(node)
            case Reshape() | Transpose():  # codes move as they are
                self._moved(node.op, node.inputs[0], node.name)
            case _:
                result = node.name if quant is None else f"{node.name}@result"
                activation: Activation = getattr(node.op, "activation", Activation.NONE)
                plain = result if activation is Activation.NONE else f"{node.name}@plain"
                _CALLS[type(node.op)](Call(writer=self, node=node, op=node.op, result=plain))
                if activation is Activation.RELU:
                    self.add("Relu", [plain], result, f"{node.name}@relu")
                elif activation is Activation.RELU6:
                    bounds = [self.constant("@zero", np.float32(0)), self.constant("@six", np.float32(6))]
                    self.add("Clip", [plain, *bounds], result, f"{node.name}@relu6")
                if quant is not None:
                    self._quantized(result, node.name, f"{node.name}@codes")

    def shape(self, name: str) -> Shape:
        """That of a value of the graph."""
        return self._graph.types[name].shape

    def value(self, name: str) -> Array:
        """A constant of the graph."""
        return self._graph.constants[name]

    def real(self, name: str) -> str:
        """The tensor of a value's real values."""
        if self._graph.types[name].quant is None:
            return name
        made = f"{name}@real"
        if made not in self._known:
            self._dequantized(name, made, self._activation_code(name), None)
        return made

    def weight(self, name: str, move: Callable[[Array], Array]) -> str:
        """The tensor of a constant's real values, its axes moved so that the first is that of its scales."""
        quant, value = self._graph.types[name].quant, move(self._graph.constants[name])
        if quant is None:
            return self.constant(name, value)
        made = f"{name}@real"
        if made not in self._known:
            if quant.bits > 16:  # ONNX decodes integers of at most 32 bits
                if np.abs(value).max(initial=0) >= 2**31:
                    raise GraphError("has a bias of more than 32 bits; ONNX decodes at most that many")
                quant, value = replace(quant, bits=32), value.astype(np.int32)
            self._dequantized(self.constant(name, value), made, quant, None if quant.axis is None else 0)
        return made

    def constant(self, name: str, value: Any) -> str:
        """The name of an initializer."""
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, kind: str, inputs: Sequence[str], result: str, name: str, **attributes: Any) -> str:
        """The name of the tensor that a new node makes."""
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [result], name, **attributes))
        self._known.add(result)
        return result

    def _activation_code(self, name: str) -> Quant:
        quant = self._graph.types[name].quant
        if quant is None:
            raise GraphError(f"reads '{name}', which has no number code; quantize it first")
        _check_code(quant)
        return quant

    def _quantized(self, real: str, result: str, name: str) -> None:
        self.add("QuantizeLinear", [real, *self._scale(result, self._activation_code(result))], result, name)

    def _dequantized(self, codes: str, result: str, quant: Quant, axis: int | None) -> None:
        given = {} if axis is None else {"axis": axis}
        self.add("DequantizeLinear", [codes, *self._scale(codes, quant)], result, f"{codes}@decoded", **given)

    def _scale(self, name: str, quant: Quant) -> list[str]:
        scale, zero = np.array(quant.scale, np.float32), np.array(quant.zero, quant.dtype)
        if quant.axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        return [self.constant(f"{name}@scale", scale), self.constant(f"{name}@zero", zero)]

    def _constant(self, node: Node) -> None:
        """The value, with a batch axis of one place, or repeated for each sample where a reader needs that."""
        value = self._graph.constants[node.inputs[0]]
        rank = value.ndim
        held = self.constant(f"{node.name}@value", value.transpose(_layout(rank))[None])
        spreads = all(isinstance(user.op, (Add, Mul)) for user in self._graph.users[node.name])
        if spreads and node.name not in self._graph.outputs:
            self.add("Identity", [held], node.name, node.name)
            return
        batch = self.add("Shape", [self._graph.inputs[0]], f"{node.name}@batch", f"{node.name}@shape", start=0, end=1)
        ones = self.constant(f"{node.name}@ones", np.ones(rank, np.int64))
        shape = self.add("Concat", [batch, ones], f"{node.name}@sides", f"{node.name}@join", axis=0)
        self.add("Expand", [held, shape], node.name, node.name)

    def _moved(self, op: Op, source: str, result: str) -> None:
        """A reshape or transposition, by way of channels-last order where a reshape needs it."""
        before, after = (_layout(len(self.shape(name))) for name in (source, result))
        if isinstance(op, Transpose):
            axes = [before.index(op.permutation[axis]) + 1 for axis in after]
            self.add("Transpose", [source], result, result, perm=[0, *axes])
            return
        last, first = sorted(before) != list(before), sorted(after) != list(after)
        if last:
            perm = [0, *(before.index(axis) + 1 for axis in range(len(before)))]
            source = self.add("Transpose", [source], f"{result}@last", f"{result}@last", perm=perm)
        sides = self.constant(f"{result}@shape", np.array([0, *self.shape(result)], np.int64))
        flat = self.add("Reshape", [source, sides], f"{result}@flat" if first else result, f"{result}@reshape")
        if first:
            self.add("Transpose", [flat], result, result, perm=[0, *(axis + 1 for axis in after)])


def _layout(rank: int) -> tuple[int, ...]:
    """Which axis of a value each axis of its tensor is, after the batch axis."""
    return (2, 0, 1) if rank == 3 else tuple(range(rank))


def _check_code(quant: Quant) -> None:
    if quant.bits not in (8, 16) or quant.axis is not None:
        raise GraphError(f"has activations of {quant.bits} bits; ONNX has 8 and 16, with one scale")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One node of the graph, to be written so that it makes the tensor `result` of real values."""

    writer: _Writer
    node: Node
    op: Any
    result: str

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> None:
        """The file's node of the same name."""
        self.writer.add(kind, inputs, self.result, self.node.name, **attributes)

    def sources(self) -> list[str]:
        """The real values of all operands."""
        return [self.writer.real(name) for name in self.node.inputs]


def _plain(kind: str) -> Callable[[Call], None]:
    return lambda call: call.add(kind, call.sources())


def _conv(call: Call) -> None:
    x, weight, bias = call.node.inputs
    taps = call.writer.weight(weight, lambda value: value.transpose(0, 3, 1, 2))
    windows = _windows(call.op.windows)
    real = [call.writer.real(x), taps, call.writer.weight(bias, lambda value: value)]
    call.add("Conv", real, group=call.op.groups, **windows)


def _depthwise(call: Call) -> None:
    x, weight, bias = call.node.inputs
    taps = call.writer.weight(weight, lambda value: value.transpose(2, 0, 1)[:, None])
    real = [call.writer.real(x), taps, call.writer.weight(bias, lambda value: value)]
    call.add("Conv", real, group=call.writer.shape(x)[2], **_windows(call.op.windows))


def _dense(call: Call) -> None:
    x, weight, bias = call.node.inputs
    constants = [call.writer.weight(name, lambda value: value) for name in (weight, bias)]
    call.add("Gemm", [call.writer.real(x), *constants], transB=1)


def _windows(windows: Windows) -> dict[str, list[int]]:
    top, bottom, left, right = windows.padding
    return {
        "kernel_shape": list(windows.kernel),
        "strides": list(windows.stride),
        "dilations": list(windows.dilation),
        "pads": [top, left, bottom, right],
    }


def _norm(call: Call) -> None:
    """Channels are the second axis of the file's operator; those of a value of two axes have to be brought there."""
    source, rank = call.node.inputs[0], len(call.writer.shape(call.node.inputs[0]))
    constants = [call.writer.weight(name, lambda value: value) for name in call.node.inputs[1:]]
    if rank in (1, 3):
        call.add("BatchNormalization", [source, *constants], epsilon=call.op.epsilon)
        return
    turned, made = f"{call.node.name}@turned", f"{call.node.name}@normal"
    order = [0, rank, *range(1, rank)]
    call.writer.add("Transpose", [source], turned, f"{call.node.name}@turn", perm=order)
    call.writer.add("BatchNormalization", [turned, *constants], made, call.node.name, epsilon=call.op.epsilon)
    back = [0, *range(2, rank + 1), 1]
    call.writer.add("Transpose", [made], call.result, f"{call.node.name}@back", perm=back)


def _global_mean(call: Call) -> None:
    pooled = f"{call.node.name}@pooled"
    call.writer.add("GlobalAveragePool", call.sources(), pooled, call.node.name)
    call.writer.add("Flatten", [pooled], call.result, f"{call.node.name}@flat")


def _softmax(call: Call) -> None:
    call.add("Softmax", call.sources(), axis=1 if len(call.writer.shape(call.node.name)) == 3 else -1)


def _concat(call: Call) -> None:
    rank = len(call.writer.shape(call.node.name))
    call.add("Concat", call.sources(), axis=_layout(rank).index(call.op.axis % rank) + 1)


def _pad(call: Call) -> None:
    top, bottom, left, right = call.op.margins
    margins = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    call.add("Pad", [*call.sources(), call.writer.constant(f"{call.node.name}@margins", margins)])


def _clamp(call: Call) -> None:
    name = call.node.name
    bounds = [
        call.writer.constant(f"{name}@{role}", np.float32(value))
        for role, value in (("low", call.op.low), ("high", call.op.high))
    ]
    call.add("Clip", [*call.sources(), *bounds])


def _relu6(call: Call) -> None:
    bounds = [call.writer.constant("@zero", np.float32(0)), call.writer.constant("@six", np.float32(6))]
    call.add("Clip", [*call.sources(), *bounds])


_CALLS: Mapping[type[Op], Callable[[Call], None]] = {
    Dequantize: _plain("Identity"),
    Quantize: _plain("Identity"),
    Requantize: _plain("Identity"),
    Add: _plain("Add"),
    AveragePool: lambda call: call.add("AveragePool", call.sources(), **_windows(call.op.windows)),
    BatchNorm: _norm,
    Clamp: _clamp,
    Concat: _concat,
    Conv2d: _conv,
    Dense: _dense,
    DepthwiseConv2d: _depthwise,
    GlobalMean: _global_mean,
    HardSigmoid: lambda call: call.add("HardSigmoid", call.sources(), alpha=call.op.slope, beta=call.op.offset),
    HardSwish: _plain("HardSwish"),
    LeakyRelu: lambda call: call.add("LeakyRelu", call.sources(), alpha=call.op.slope),
    MaxPool: lambda call: call.add("MaxPool", call.sources(), **_windows(call.op.windows)),
    Mul: _plain("Mul"),
    Pad: _pad,
    Relu: _plain("Relu"),
    Relu6: _relu6,
    Sigmoid: _plain("Sigmoid"),
    Softmax: _softmax,
    Tanh: _plain("Tanh"),
}
"""How each operation is written in real values; conversions, constants and moves are written by `_Writer` itself."""

"""Graph → TFLite flatbuffer, for other runtimes and for the compilers of neural accelerators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from crosslayer.core.errors import GraphError, ToolError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Op, TensorType
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Dequantize,
    GlobalMean,
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
from crosslayer.core.graph.ops.windows import same
from crosslayer.core.quant import Array

_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of constants, as the schema asks for (`force_align: 16`)
_SAME, _VALID = 0, 1
_FUSED = {Activation.NONE: 0, Activation.RELU: 1, Activation.RELU6: 3}
_ELEMENTS = {"float32": "FLOAT32", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """An operator of the schema: its name, its version for float, 8 and 16 bits, its options and further operands."""

    name: str
    versions: tuple[int, int, int] = (1, 2, 3)
    table: str = ""
    options: Mapping[str, int | float | bool] = field(default_factory=dict[str, "int | float | bool"])
    further: tuple[Array, ...] = ()


def write_tflite(graph: Graph, *, batch: int = 1) -> bytes:
    """The content of a TFLite file that computes what `graph` computes, for a fixed batch.

    Integer graphs become int8 or int16x8 models whose weights, codes and biases are those of the graph; which result
    ties are rounded to is the runtime's own choice, not the file's. Paddings that TFLite cannot say become pad
    operators. Raises `GraphError` for what has no TFLite form.
    """
    try:
        import flatbuffers
        import tflite
    except ImportError as error:
        raise ToolError("writing TFLite needs the package 'tflite'; pip install 'crosslayer[convert]'") from error
    writer = _Writer(tflite, flatbuffers.Builder(1 << 16), batch)
    return writer.model(graph)


@final
class _Writer:
    """Collects tensors and operators, then packs them."""

    def __init__(self, schema: Any, builder: Any, batch: int) -> None:
        self._schema = schema
        self._builder = builder
        self._batch = batch
        self._tensors: list[int] = []
        self._buffers: list[int] = []
        self._operators: list[int] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._index: dict[str, int] = {}

    def model(self, graph: Graph) -> bytes:
        self._buffer(b"")  # the schema's buffer 0 is empty
        for name in graph.inputs:
            self._value(graph, name)
        for node in graph.nodes:
            try:
                self._node(graph, node)
            except GraphError as error:
                raise GraphError(f"{node.name} ({type(node.op).__name__}): {error}") from error
        subgraph = self._table(
            "SubGraph",
            Tensors=self._offsets(self._tensors),
            Inputs=self._numbers([self._index[n] for n in graph.inputs]),
            Outputs=self._numbers([self._index[n] for n in graph.outputs]),
            Operators=self._offsets(self._operators),
            Name=self._builder.CreateString("main"),
        )
        codes = [self._code(name, version) for name, version in self._codes]
        root = self._table(
            "Model",
            Version=_SCHEMA_VERSION,
            OperatorCodes=self._offsets(codes),
            Subgraphs=self._offsets([subgraph]),
            Description=self._builder.CreateString("crosslayer"),
            Buffers=self._offsets(self._buffers),
        )
        self._builder.Finish(root, b"TFL3")
        return bytes(self._builder.Output())

    # tables

    def _table(self, kind: str, **fields: Any) -> int:
        """One table of the schema; `fields` by the schema's names, in camel case."""
        getattr(self._schema, f"{kind}Start")(self._builder)
        for name, value in fields.items():
            getattr(self._schema, f"{kind}Add{name}")(self._builder, value)
        return int(getattr(self._schema, f"{kind}End")(self._builder))

    def _offsets(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _numbers(self, values: Sequence[float] | Array, dtype: type[Any] = np.int32) -> int:
        return int(self._builder.CreateNumpyVector(np.array(values, dtype)))

    def _code(self, name: str, version: int) -> int:
        number = getattr(self._schema.BuiltinOperator, name)
        return self._table("OperatorCode", DeprecatedBuiltinCode=min(number, 127), Version=version, BuiltinCode=number)

    def _buffer(self, content: bytes) -> int:
        """The number of a buffer with this content."""
        if content:
            self._builder.StartVector(1, len(content), _ALIGNMENT)
            head = self._builder.head = self._builder.Head() - len(content)
            self._builder.Bytes[head : head + len(content)] = content
            self._buffers.append(self._table("Buffer", Data=self._builder.EndVector()))
        else:
            self._buffers.append(self._table("Buffer"))
        return len(self._buffers) - 1

    # tensors

    def _tensor(self, name: str, shape: Sequence[int], kind: TensorType, value: Array | None) -> int:
        """The number of a new tensor; `kind` says its number code, for a shape that may have further axes."""
        quant = kind.quant
        fields: dict[str, int] = {}
        if quant is not None:
            grown = len(shape) - len(kind.shape)
            fields["Quantization"] = self._table(
                "QuantizationParameters",
                Scale=self._numbers(quant.scale, np.float32),
                ZeroPoint=self._numbers(quant.zero, np.int64),
                QuantizedDimension=0 if quant.axis is None else quant.axis + grown,
            )
        dtype = "float32" if quant is None else str(quant.dtype)
        return self._plain(name, shape, dtype, None if value is None else value.tobytes(), fields)

    def _plain(
        self, name: str, shape: Sequence[int], dtype: str, content: bytes | None, fields: Mapping[str, int]
    ) -> int:
        vector, text = self._numbers(shape), self._builder.CreateString(name)
        buffer = 0 if content is None else self._buffer(content)
        element = getattr(self._schema.TensorType, _ELEMENTS[dtype])
        self._tensors.append(self._table("Tensor", Shape=vector, Type=element, Buffer=buffer, Name=text, **fields))
        return len(self._tensors) - 1

    def _value(self, graph: Graph, name: str) -> int:
        """The tensor of an input or a node's result."""
        kind = graph.types[name]
        if kind.quant is not None and kind.quant.bits not in {8, 16}:
            raise GraphError(f"'{name}' has {kind.quant.bits}-bit activations; TFLite has 8 and 16 bits only")
        if name not in self._index:
            self._index[name] = self._tensor(name, (self._batch, *kind.shape), kind, None)
        return self._index[name]

    def _constant(self, graph: Graph, name: str, lead: int) -> int:
        """The tensor of a weight or bias, with `lead` axes of size 1 before its own; written once."""
        if name not in self._index:
            kind, value = graph.types[name], graph.constants[name]
            if kind.quant is not None and 8 < kind.quant.bits <= 16 and len(kind.shape) > 2:
                raise GraphError(
                    f"'{name}' has {kind.quant.bits}-bit weights; TFLite's convolutions have at most 8 bits"
                )
            self._index[name] = self._tensor(name, (*[1] * lead, *kind.shape), kind, value)
        return self._index[name]

    def _operator(self, form: _Form, wide: int, inputs: Sequence[int], output: int) -> None:
        """`wide` picks the version: 0 for float, 1 for 8, 2 for 16 bits."""
        code = self._codes.setdefault((form.name, form.versions[wide]), len(self._codes))
        fields: dict[str, int] = {}
        if form.table:
            fields["BuiltinOptions"] = self._table(form.table, **form.options)
            fields["BuiltinOptionsType"] = getattr(self._schema.BuiltinOptions, form.table)
        operands, results = self._numbers(inputs), self._numbers([output])
        self._operators.append(self._table("Operator", OpcodeIndex=code, Inputs=operands, Outputs=results, **fields))

    # nodes

    def _node(self, graph: Graph, node: Node) -> None:
        kind = graph.types[node.name]
        if isinstance(node.op, Constant):  # a tensor of its own, not an operator
            held = graph.constants[node.inputs[0]]
            self._index[node.name] = self._tensor(node.name, (1, *kind.shape), kind, held)
            return
        lead = 1 if isinstance(node.op, DepthwiseConv2d) else 0
        inputs = [
            self._constant(graph, n, lead if len(graph.types[n].shape) == 3 else 0)
            if n in graph.constants
            else self._value(graph, n)
            for n in node.inputs
        ]
        source = graph.types[next(iter(graph.activations(node)))]
        op = self._placed(graph, node, source, inputs)
        form = _form(op, graph, node, self._batch)
        further = [self._operand(node.name, i, value) for i, value in enumerate(form.further)]
        self._operator(form, _wide(source, kind), [*inputs, *further], self._value(graph, node.name))

    def _operand(self, name: str, position: int, value: Array) -> int:
        """The tensor of axes, a shape or margins, which our operation has as a field."""
        return self._plain(f"{name}.operand{position}", value.shape, str(value.dtype), value.tobytes(), {})

    def _placed(self, graph: Graph, node: Node, source: TensorType, inputs: list[int]) -> Op:
        """The operation with SAME or VALID padding; a pad operator is put before it where it has another."""
        op = node.op
        if not isinstance(op, (Conv2d, DepthwiseConv2d, MaxPool, AveragePool)):
            return op
        windows = op.windows
        if not any(windows.padding) or windows.padding == _same(windows, source):
            return op
        if isinstance(op, AveragePool):
            raise GraphError(f"TFLite's average pools have no padding {windows.padding}; use SAME or none")
        top, bottom, left, right = windows.padding
        high, wide, channels = source.shape
        grown = TensorType(shape=(high + top + bottom, wide + left + right, channels), quant=source.quant)
        margins = self._operand(node.name, 9, _margins(windows.padding))
        padded = self._tensor(f"{node.name}.pad", (self._batch, *grown.shape), grown, None)
        if isinstance(op, MaxPool):
            lowest = np.full(1, np.finfo(np.float32).min if source.quant is None else source.quant.lowest)
            fill = self._tensor(
                f"{node.name}.lowest", (1,), grown, lowest.astype("float32" if source.quant is None else "int8")
            )
            self._operator(
                _Form(name="PADV2", table="PadV2Options"), _wide(source, source), [*inputs, margins, fill], padded
            )
        else:
            self._operator(_PAD, _wide(source, source), [inputs[0], margins], padded)
        inputs[0] = padded
        plain = Windows(kernel=windows.kernel, stride=windows.stride, dilation=windows.dilation)
        match op:
            case Conv2d():
                return Conv2d(windows=plain, groups=op.groups, activation=op.activation)
            case DepthwiseConv2d():
                return DepthwiseConv2d(windows=plain, multiplier=op.multiplier, activation=op.activation)
            case MaxPool():
                return MaxPool(windows=plain)


_PAD = _Form(name="PAD", table="PadOptions")


def _wide(source: TensorType, result: TensorType) -> int:
    quant = result.quant or source.quant
    return 0 if quant is None else 1 if quant.bits <= 8 else 2


def _same(windows: Windows, source: TensorType) -> tuple[int, int, int, int]:
    return same(source.shape, windows.kernel, windows.stride, windows.dilation)


def _margins(padding: Sequence[int]) -> Array:
    top, bottom, left, right = padding
    return np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)


def _form(op: Op, graph: Graph, node: Node, batch: int) -> _Form:
    """How TFLite says an operation (versions: TensorFlow `lite/tools/versioning/op_version.cc`)."""
    shape = graph.types[node.name].shape
    source = graph.types[graph.activations(node)[0]]
    match op:
        case Conv2d():
            options = {**_place(op.windows, source), **_dilation(op.windows), **_fused(op.activation)}
            options |= _bias_type(graph, node)
            return _Form(name="CONV_2D", versions=(1, 3, 4), table="Conv2DOptions", options=options)
        case DepthwiseConv2d():
            options = {**_place(op.windows, source), **_dilation(op.windows), **_fused(op.activation)}
            options["DepthMultiplier"] = op.multiplier
            versions = (1 if op.windows.dilation == (1, 1) else 2, 3, 5)
            return _Form(name="DEPTHWISE_CONV_2D", versions=versions, table="DepthwiseConv2DOptions", options=options)
        case Dense():
            options = {**_fused(op.activation), **_bias_type(graph, node)}
            return _Form(name="FULLY_CONNECTED", versions=(1, 4, 7), table="FullyConnectedOptions", options=options)
        case MaxPool() | AveragePool():
            if op.windows.dilation != (1, 1):
                raise GraphError("TFLite's pools have no dilation")
            high, wide = op.windows.kernel
            name = "MAX_POOL_2D" if isinstance(op, MaxPool) else "AVERAGE_POOL_2D"
            options = {**_place(op.windows, source), "FilterHeight": high, "FilterWidth": wide}
            return _Form(name=name, table="Pool2DOptions", options=options)
        case Add():
            options = _fused(op.activation) | ({"PotScaleInt16": False} if _wide(source, source) == 2 else {})
            return _Form(name="ADD", table="AddOptions", options=options)
        case Mul():
            return _Form(name="MUL", versions=(1, 2, 4), table="MulOptions", options=_fused(op.activation))
        case GlobalMean():
            axes = np.array([1, 2], np.int32)
            return _Form(name="MEAN", table="ReducerOptions", options={"KeepDims": False}, further=(axes,))
        case Reshape():
            sides = np.array([batch, *shape], np.int32)
            return _Form(name="RESHAPE", versions=(1, 1, 1), table="ReshapeOptions", further=(sides,))
        case Transpose():
            order = np.array([0, *(axis + 1 for axis in op.permutation)], np.int32)
            return _Form(name="TRANSPOSE", table="TransposeOptions", further=(order,))
        case Pad():
            return _Form(name="PAD", table="PadOptions", further=(_margins(op.margins),))
        case Concat():
            axis = op.axis % len(shape) + 1
            return _Form(name="CONCATENATION", table="ConcatenationOptions", options={"Axis": axis})
        case Softmax():
            return _Form(name="SOFTMAX", table="SoftmaxOptions", options={"Beta": 1.0})
        case LeakyRelu():
            return _Form(name="LEAKY_RELU", versions=(1, 2, 2), table="LeakyReluOptions", options={"Alpha": op.slope})
        case _ if type(op) in _PLAIN:
            return _PLAIN[type(op)]
        case BatchNorm():
            raise GraphError("TFLite has no normalization; fold it first (stage fold-norms)")
        case _:
            raise GraphError("TFLite has no such operator; write ONNX instead")


_PLAIN: Mapping[type[Op], _Form] = {
    Dequantize: _Form(name="DEQUANTIZE", table="DequantizeOptions"),
    HardSwish: _Form(name="HARD_SWISH", versions=(1, 1, 1), table="HardSwishOptions"),
    Quantize: _Form(name="QUANTIZE", versions=(1, 1, 2), table="QuantizeOptions"),
    Relu: _Form(name="RELU"),
    Relu6: _Form(name="RELU6"),
    Requantize: _Form(name="QUANTIZE", versions=(1, 2, 2), table="QuantizeOptions"),
    Sigmoid: _Form(name="LOGISTIC"),
    Tanh: _Form(name="TANH"),
}


def _place(windows: Windows, source: TensorType) -> dict[str, Any]:
    high, wide = windows.stride
    padding = _VALID if not any(windows.padding) else _SAME
    return {"Padding": padding, "StrideH": high, "StrideW": wide}


def _dilation(windows: Windows) -> dict[str, Any]:
    high, wide = windows.dilation
    return {"DilationHFactor": high, "DilationWFactor": wide}


def _bias_type(graph: Graph, node: Node) -> dict[str, Any]:
    """Tells int16 kernels whether sums are kept in 32 or in 64 bits."""
    source, bias = graph.types[node.inputs[0]].quant, graph.types[node.inputs[2]].quant
    if source is None or bias is None or source.bits <= 8:
        return {}
    return {"QuantizedBiasType": {32: 2, 64: 4}[bias.bits]}  # INT32 and INT64 of the schema's TensorType


def _fused(activation: Activation) -> dict[str, Any]:
    return {"FusedActivationFunction": _FUSED[activation]}

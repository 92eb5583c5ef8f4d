"""TFLite → Graph: float networks, and int8 or int16x8 ones with the integers they ship."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np

from crosslayer.core.errors import ReadError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
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
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.graph.ops.windows import Margins, same
from crosslayer.core.quant import Array, Quant
from crosslayer.read.names import Names
from crosslayer.read.problems import Problems, Unreadable, checked_size
from crosslayer.read.tflite_file import Operator, Tensor, parse

_MOST_WEIGHTS = 1 << 26
"""Elements of all constants together: far beyond any small device, and a bound on what a damaged file costs."""
_ACTIVATIONS = {0: Activation.NONE, 1: Activation.RELU, 3: Activation.RELU6}
_CONVERT = "convert it again with full integer quantization (int8), or as float32"
_REPLACE = "replace it by operators that are supported (docs/tflite.md lists them)"
_BITS = {"INT4": 4, "INT8": 8, "UINT8": 8, "INT16": 16, "INT32": 32, "INT64": 64}


def read_tflite(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """The network in a TFLite file, or in its bytes.

    Integers are kept as they are; `rounding` says which runtime's results they shall give. Integer weights of a float
    network (dynamic range quantization) are decoded: it is read as the float network that they stand for. The batch
    axis is dropped; unsigned 8-bit inputs and outputs become signed ones, code and zero less by 128. Raises `ReadError`
    that lists all operators, types and shapes that cannot be read.
    """
    where = source.name if isinstance(source, Path) else "the TFLite model"
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise ReadError(f"{source}: cannot be read ({error.strerror}); give a .tflite file") from error
    return _Reader(content, where, rounding).graph()


@final
class _Reader:
    """Turns the operators of a file into nodes, one by one; what depends on one that failed is left out in silence."""

    def __init__(self, content: bytes, where: str, rounding: Rounding) -> None:
        self._model = parse(content, where)
        self._where = where
        self._problems = Problems(where)
        self._builder = Builder(rounding)
        self._names = Names()
        self._values: dict[int, str] = {}  # tensor number -> value of the graph
        self._folded: dict[int, Array] = {}  # constants computed from constants
        self._shared: dict[tuple[int, str], str] = {}  # constants that are in the graph already
        self._lowest: dict[int, tuple[int, Margins]] = {}  # padded with the lowest value: its source and margins
        self._weights = 0
        self._batch = 1

    def graph(self) -> Graph:
        for index in self._model.inputs:
            with self._problems.at(f"input '{self._model.tensors[index].name}'"):
                self._input(index)
        for position, operator in enumerate(self._model.operators):
            self._node(position, operator)
        outputs: list[str] = []
        for index in self._model.outputs:
            if index in self._values:
                outputs.append(self._values[index])
            elif not self._problems.found:
                name = self._model.tensors[index].name
                self._problems.add(f"output '{name}'", "is not computed from an input", "export the network again")
        self._problems.raise_if_any()
        with self._problems.at("the network"):
            return self._builder.graph(*outputs)
        self._problems.raise_if_any()
        raise AssertionError

    def _input(self, index: int) -> None:
        tensor = self._model.tensors[index]
        if not tensor.shape:
            raise Unreadable("has no batch axis", "export the network with inputs (batch, …)")
        self._batch = tensor.shape[0]
        self._values[index] = self._builder.input(
            self._names.fresh(tensor.name), self._sample(tensor), self._code(tensor)
        )

    def _node(self, position: int, operator: Operator) -> None:
        tensors = self._model.tensors
        if not operator.outputs:
            return
        target = tensors[operator.outputs[0]]
        if self._fold(operator):
            return
        supported = operator.name in _OPERATORS
        if supported and any(i >= 0 and not self._known(i) for i in operator.inputs):
            return  # depends on one that could not be read, or on arithmetic with shapes
        with self._problems.at(f"operator {position} ({operator.name}) '{target.name}'"):
            if not supported:
                raise Unreadable("is not supported", _REPLACE)
            if len(operator.outputs) != 1:
                raise Unreadable(f"has {len(operator.outputs)} outputs", "export the network again")
            if operator.name == "PADV2" and self._for_max_pool(operator):
                return
            made = _OPERATORS[operator.name](self, operator)
            self._values[operator.outputs[0]] = self._shaped(made, target)

    def _fold(self, operator: Operator) -> bool:
        """Arithmetic of constants and shapes needs no node: weights stored in half precision, and a flatten's shape."""
        if operator.name in {"SHAPE", "PACK", "STRIDED_SLICE"}:
            return self._model.tensors[operator.outputs[0]].kind in {"INT32", "INT64"}
        if operator.name == "DEQUANTIZE" and operator.inputs and self._is_constant(operator.inputs[0]):
            tensor = self._model.tensors[operator.inputs[0]]
            with self._problems.at(f"tensor '{tensor.name}'"):
                code = None if tensor.kind == "FLOAT16" else self._weight_code(tensor)
                value = self._constant(operator.inputs[0])
                self._folded[operator.outputs[0]] = value.astype(np.float32) if code is None else code.decode(value)
            return True
        return False

    # values

    def _is_constant(self, index: int) -> bool:
        return index in self._folded or (index >= 0 and self._model.tensors[index].raw is not None)

    def _known(self, index: int) -> bool:
        return (
            index in self._values
            or index in self._lowest
            or self._is_constant(index)
            or self._model.tensors[index].kind == "INT32"
        )

    def _constant(self, index: int) -> Array:
        if index in self._folded:
            return self._folded[index]
        if not self._is_constant(index):
            raise Unreadable(f"'{self._model.tensors[index].name}' is computed at run time", "make it a constant")
        return self._model.tensors[index].value()

    def _integers(self, index: int, shape: tuple[int, ...] | None = None) -> list[int]:
        """A constant of axes or margins; of any length up to 8, or of a given shape."""
        value = self._constant(index)
        if value.dtype.kind != "i" or value.size > 8 or value.shape != (value.shape if shape is None else shape):
            raise Unreadable(f"has an operand {value.dtype}{list(value.shape)}", "export the network again")
        return [int(v) for v in value.ravel()]

    def _sample(self, tensor: Tensor) -> Shape:
        """The shape of one sample."""
        checked_size(tensor.shape)
        if not tensor.shape or tensor.shape[0] != self._batch or 0 in tensor.shape:
            raise Unreadable(
                f"'{tensor.name}' has shape {list(tensor.shape)}, its first axis is not the batch of {self._batch}",
                "export the network with a batch of 1",
            )
        return tensor.shape[1:] or (1,)

    def _code(self, tensor: Tensor) -> Quant | None:
        """The number code of an activation."""
        if tensor.kind == "FLOAT32":
            return None
        if tensor.kind not in {"INT8", "UINT8", "INT16"} or len(tensor.scale) != 1 or len(tensor.zero) != 1:
            raise Unreadable(f"'{tensor.name}' is {tensor.kind} with {len(tensor.scale)} scales", _CONVERT)
        shift = 128 if tensor.kind == "UINT8" else 0
        return Quant(bits=_BITS[tensor.kind], scale=tensor.scale, zero=(tensor.zero[0] - shift,))

    def _weight_code(self, tensor: Tensor) -> Quant:
        if tensor.kind not in {"INT4", "INT8", "INT16"} or not tensor.scale or any(tensor.zero):
            raise Unreadable(f"the weights '{tensor.name}' are {tensor.kind}, or not symmetric", _CONVERT)
        axis = tensor.axis if len(tensor.scale) > 1 else None
        return Quant(bits=_BITS[tensor.kind], scale=tensor.scale, axis=axis)

    def _activation(self, index: int) -> str:
        """An operand that is computed; a constant becomes a node."""
        if index in self._values:
            return self._values[index]
        value, code = self._coded(index)
        shape = value.shape[1:] if value.ndim and value.shape[0] == 1 else value.shape
        return self._held(index, self._model.tensors[index].name, value.reshape(shape or (1,)), code)

    def _coded(self, index: int) -> tuple[Array, Quant | None]:
        """A constant that stands where an activation could, and its number code."""
        tensor, value = self._model.tensors[index], self._constant(index)
        code = None if index in self._folded else self._code(tensor)
        return (value.astype(np.int16) - 128 if tensor.kind == "UINT8" else value), code

    def _held(self, index: int, name: str, value: Array, code: Quant | None) -> str:
        held = self._put(index, f"node{value.shape}", f"{name}.value", value, code)
        return self._builder.add(Constant(), held, name=self._names.fresh(name), quant=code)

    def _put(self, index: int, role: str, name: str, value: Array, code: Quant | None) -> str:
        """A constant of the graph, once."""
        if (index, role) not in self._shared or index < 0:
            self._weights += value.size
            if self._weights > _MOST_WEIGHTS:
                raise Unreadable(f"the network has more than {_MOST_WEIGHTS} weights", "use a smaller one")
            self._shared[index, role] = self._builder.constant(self._names.fresh(name), value, code)
        return self._shared[index, role]

    def _add(self, operator: Operator, op: Op, *inputs: str) -> str:
        tensor = self._model.tensors[operator.outputs[0]]
        return self._builder.add(op, *inputs, name=self._names.fresh(tensor.name), quant=self._code(tensor))

    def _shaped(self, made: str, tensor: Tensor) -> str:
        """`made` in the shape that the file gives its tensor."""
        wanted, found = self._sample(tensor), self._builder.shape(made)
        if wanted == found:
            return made
        if math.prod(wanted) != math.prod(found):
            raise Unreadable(f"makes shape {list(found)}, the file says {list(wanted)}", "export the network again")
        return self._builder.add(Reshape(shape=wanted), made, name=self._names.fresh(f"{tensor.name}.shape"))

    # operators

    def _fused(self, operator: Operator) -> Activation:
        number = int(operator.options.get("FusedActivationFunction", 0))
        if number not in _ACTIVATIONS:
            raise Unreadable(f"has the fused activation {number}", "use none, relu or relu6")
        return _ACTIVATIONS[number]

    def _clamped(self, operator: Operator, made: str) -> str:
        """`made` after a fused activation that our operation does not have."""
        match self._fused(operator):
            case Activation.NONE:
                return made
            case Activation.RELU:
                op: Op = Relu()
            case Activation.RELU6:
                op = Relu6()
        tensor = self._model.tensors[operator.outputs[0]]
        return self._builder.add(op, made, name=self._names.fresh(f"{tensor.name}.clamp"), quant=self._code(tensor))

    def _windows(self, operator: Operator, shape: Shape, kernel: tuple[int, int]) -> Windows:
        options = operator.options
        stride = int(options.get("StrideH", 0)), int(options.get("StrideW", 0))
        dilation = int(options.get("DilationHFactor", 1)), int(options.get("DilationWFactor", 1))
        plain = Windows(kernel=kernel, stride=stride, dilation=dilation)
        if len(shape) != 3:
            raise Unreadable(f"has an input of shape {list(shape)}", "give it (batch, height, width, channels)")
        match options.get("Padding", 0):
            case 0:
                return replace(plain, padding=same(shape, kernel, stride, dilation))
            case 1:
                return plain
            case other:
                raise Unreadable(f"has padding {other}", "use SAME or VALID")

    def _operands(self, operator: Operator, least: int) -> tuple[int, ...]:
        if len(operator.inputs) < least or min(operator.inputs[:least]) < 0:
            raise Unreadable(f"has {len(operator.inputs)} operands, not {least}", "export the network again")
        return operator.inputs

    def _layer(self, operator: Operator, op: Callable[[Array], tuple[Op, str, Array, int]], source: str) -> str:
        """A node with weight and bias; `op` makes the operation, the weight's role, its array and its channel axis."""
        operands = self._operands(operator, 2)
        weight = self._model.tensors[operands[1]]
        made, role, taps, axis = op(self._constant(operands[1]))
        code, x_code = None, self._builder.code(source)
        if taps.dtype != np.float32:
            code = self._weight_code(weight)
            if code.axis is not None and taps.shape[axis] != len(code.scale):
                raise Unreadable(f"has {len(code.scale)} weight scales for {taps.shape[axis]} channels", _CONVERT)
            code = Quant(bits=code.bits, scale=code.scale, axis=None if code.axis is None else axis)
            if x_code is None:
                taps, code = code.decode(taps), None
        name = self._put(operands[1], role, weight.name, taps, code)
        bias = self._bias(operator, operands[2] if len(operands) > 2 else -1, taps.shape[axis], x_code, code)
        return self._add(operator, made, source, name, bias)

    def _bias(self, operator: Operator, index: int, channels: int, source: Quant | None, taps: Quant | None) -> str:
        code = None if source is None or taps is None else bias_code(source, taps)
        if index < 0:
            name = f"{self._model.tensors[operator.outputs[0]].name}.bias"
            return self._put(-1 - operator.outputs[0], "bias", name, np.zeros(channels), code)
        tensor, value = self._model.tensors[index], self._constant(index)
        if value.shape != (channels,):
            raise Unreadable(f"has a bias of shape {list(value.shape)}, not [{channels}]", "export the network again")
        if code is not None:
            if tensor.kind not in {"INT32", "INT64"}:
                raise Unreadable(f"has a bias of type {tensor.kind}", _CONVERT)
            scale = tensor.scale if len(tensor.scale) == len(code.scale) else code.scale
            code = Quant(bits=_BITS[tensor.kind], scale=scale, axis=code.axis)
        return self._put(index, "bias", tensor.name, value, code)

    def conv_2d(self, operator: Operator) -> str:
        source = self._activation(self._operands(operator, 2)[0])
        shape = self._builder.shape(source)

        def make(weight: Array) -> tuple[Op, str, Array, int]:
            if weight.ndim != 4 or len(shape) != 3 or weight.shape[3] < 1 or shape[2] % weight.shape[3]:
                raise Unreadable(
                    f"has weights {list(weight.shape)} for an input {list(shape)}", "export the network again"
                )
            windows = self._windows(operator, shape, (weight.shape[1], weight.shape[2]))
            groups = shape[2] // weight.shape[3]
            return Conv2d(windows=windows, groups=groups, activation=self._fused(operator)), "conv", weight, 0

        return self._layer(operator, make, source)

    def depthwise_conv_2d(self, operator: Operator) -> str:
        source = self._activation(self._operands(operator, 2)[0])
        shape = self._builder.shape(source)

        def make(weight: Array) -> tuple[Op, str, Array, int]:
            if weight.ndim != 4 or weight.shape[0] != 1 or len(shape) != 3 or weight.shape[3] % shape[2]:
                raise Unreadable(
                    f"has weights {list(weight.shape)} for an input {list(shape)}", "export the network again"
                )
            windows = self._windows(operator, shape, (weight.shape[1], weight.shape[2]))
            op = DepthwiseConv2d(
                windows=windows, multiplier=weight.shape[3] // shape[2], activation=self._fused(operator)
            )
            return op, "depthwise", weight[0], 2

        return self._layer(operator, make, source)

    def fully_connected(self, operator: Operator) -> str:
        source = self._activation(self._operands(operator, 2)[0])
        shape = self._builder.shape(source)

        def make(weight: Array) -> tuple[Op, str, Array, int]:
            if operator.options.get("WeightsFormat", 0) != 0:
                raise Unreadable("has shuffled weights", _CONVERT)
            if weight.ndim != 2 or math.prod(shape) != weight.shape[1]:
                raise Unreadable(
                    f"has weights {list(weight.shape)} for a sample of {list(shape)}",
                    "apply it to one vector per sample, or use a 1×1 convolution",
                )
            return Dense(activation=self._fused(operator)), "dense", weight, 0

        if len(shape) != 1:
            name = self._names.fresh(f"{self._model.tensors[operator.outputs[0]].name}.flat")
            source = self._builder.add(Reshape(shape=(math.prod(shape),)), source, name=name)
        return self._layer(operator, make, source)

    def pool(self, operator: Operator) -> str:
        index, margins = self._lowest.get(self._operands(operator, 1)[0], (operator.inputs[0], None))
        source = self._activation(index)
        shape = self._builder.shape(source)
        kernel = int(operator.options.get("FilterHeight", 0)), int(operator.options.get("FilterWidth", 0))
        windows = self._windows(operator, shape, kernel)
        if margins is not None:
            if any(windows.padding):
                raise Unreadable("pads twice", "pad once")
            windows = replace(windows, padding=margins)
        op = MaxPool(windows=windows) if operator.name == "MAX_POOL_2D" else AveragePool(windows=windows)
        return self._clamped(operator, self._add(operator, op, source))

    def _for_max_pool(self, operator: Operator) -> bool:
        """Padding with the lowest value is no node: it is padding of the max pools that read it."""
        indices = self._operands(operator, 3)
        result, fill = operator.outputs[0], self._constant(indices[2])
        code = self._code(self._model.tensors[result])
        lowest = -1e30 if code is None else code.lowest
        readers = [o.name for o in self._model.operators if result in o.inputs]
        if set(readers) != {"MAX_POOL_2D"} or (fill > lowest).any():
            return False
        self._lowest[result] = indices[0], self._margins(indices[1])
        return True

    def add(self, operator: Operator) -> str:
        return self._add(operator, Add(activation=self._fused(operator)), *self._pair(operator))

    def mul(self, operator: Operator) -> str:
        return self._add(operator, Mul(activation=self._fused(operator)), *self._pair(operator))

    def sub(self, operator: Operator) -> str:
        """a − b for a constant b, as a + (−b)."""
        return self._add(operator, Add(activation=self._fused(operator)), *self._pair(operator, _negated))

    def div(self, operator: Operator) -> str:
        """a / b for a constant b of floats, as a · (1 / b)."""
        return self._add(operator, Mul(activation=self._fused(operator)), *self._pair(operator, _inverted))

    def _pair(
        self, operator: Operator, change: Callable[[Array, Quant | None], tuple[Array, Quant | None]] | None = None
    ) -> list[str]:
        """Two operands of one shape; a constant is repeated along the axes where it has one place."""
        indices = self._operands(operator, 2)[:2]
        if operator.options.get("PotScaleInt16") and self._model.tensors[operator.outputs[0]].kind == "INT16":
            raise Unreadable("adds 16-bit codes whose scales are powers of two", _CONVERT)
        shape = self._sample(self._model.tensors[operator.outputs[0]])
        if change is not None and indices[1] in self._values:
            raise Unreadable("has a second operand that is computed", _REPLACE)
        names: list[str] = []
        for index in indices:
            if index in self._values:
                names.append(self._values[index])
                continue
            value, code = self._coded(index)
            if change is not None:
                value, code = change(value, code)
            try:
                whole = np.broadcast_to(value, (1, *shape))[0]
            except ValueError as error:
                raise Unreadable(
                    f"has a constant {list(value.shape)} for {list(shape)}", "export the network again"
                ) from error
            names.append(self._held(index, self._model.tensors[index].name, whole, code))
        return names

    def mean(self, operator: Operator) -> str:
        indices = self._operands(operator, 2)
        source = self._activation(indices[0])
        shape = self._builder.shape(source)
        rank = len(shape) + 1
        axes = sorted(axis % rank for axis in self._integers(indices[1]))
        if rank == 3 and axes == [1]:
            name = self._names.fresh(f"{self._model.tensors[operator.outputs[0]].name}.row")
            source = self._builder.add(Reshape(shape=(1, *shape)), source, name=name)
        elif not (rank == 4 and axes == [1, 2]):
            raise Unreadable(f"takes the mean along axes {axes} of {rank}", "take it over height and width")
        return self._add(operator, GlobalMean(), source)

    def reshape(self, operator: Operator) -> str:
        source = self._activation(self._operands(operator, 1)[0])
        shape = self._sample(self._model.tensors[operator.outputs[0]])
        return source if self._builder.shape(source) == shape else self._add(operator, Reshape(shape=shape), source)

    def transpose(self, operator: Operator) -> str:
        indices = self._operands(operator, 2)
        source = self._activation(indices[0])
        order = self._integers(indices[1])
        if not order or order[0] != 0:
            raise Unreadable(f"moves the batch axis ({order})", "keep it first")
        return self._add(operator, Transpose(permutation=tuple(i - 1 for i in order[1:])), source)

    def pad(self, operator: Operator) -> str:
        indices = self._operands(operator, 2)
        source = self._activation(indices[0])
        margins = self._margins(indices[1])
        if len(indices) > 2 and indices[2] >= 0:
            code = self._builder.code(source)
            if (self._constant(indices[2]) != (0 if code is None else code.zero[0])).any():
                raise Unreadable("pads with another value than zero", "pad with zeros")
        return self._add(operator, Pad(margins=margins), source)

    def _margins(self, index: int) -> Margins:
        margins = self._integers(index, (4, 2))
        if any(margins[:2]) or any(margins[6:]):
            raise Unreadable(f"pads by {margins}", "pad height and width of (batch, height, width, channels)")
        return margins[2], margins[3], margins[4], margins[5]

    def concatenation(self, operator: Operator) -> str:
        parts = [self._activation(i) for i in self._operands(operator, 1)]
        axis, rank = int(operator.options.get("Axis", 0)), len(self._builder.shape(parts[0])) + 1
        if not -rank <= axis < rank or axis % rank == 0:
            raise Unreadable(f"joins along axis {axis} of {rank}", "join along another axis than the batch")
        return self._clamped(operator, self._add(operator, Concat(axis=axis % rank - 1), *parts))

    def softmax(self, operator: Operator) -> str:
        if operator.options.get("Beta", 0.0) != 1.0:
            raise Unreadable(f"has beta {operator.options.get('Beta', 0.0)}", "use beta 1")
        return self._add(operator, Softmax(), self._activation(self._operands(operator, 1)[0]))

    def leaky_relu(self, operator: Operator) -> str:
        slope = float(operator.options.get("Alpha", 0.0))
        if not math.isfinite(slope):
            raise Unreadable(f"has slope {slope}", "use a finite one")
        return self._add(operator, LeakyRelu(slope=slope), self._activation(self._operands(operator, 1)[0]))

    def unary(self, operator: Operator) -> str:
        return self._add(operator, _UNARY[operator.name], self._activation(self._operands(operator, 1)[0]))

    def quantize(self, operator: Operator) -> str:
        source = self._activation(self._operands(operator, 1)[0])
        before, after = self._builder.code(source), self._code(self._model.tensors[operator.outputs[0]])
        if before == after:  # between signed and unsigned codes of one scale
            return source
        return self._add(operator, Quantize() if before is None else Requantize(), source)

    def dequantize(self, operator: Operator) -> str:
        return self._add(operator, Dequantize(), self._activation(self._operands(operator, 1)[0]))


def _negated(value: Array, code: Quant | None) -> tuple[Array, Quant | None]:
    if code is None:
        return -value, None
    if (value == code.lowest).any() or code.zero[0] == code.lowest:
        raise Unreadable("subtracts codes that have no negative", _REPLACE)
    return (-value.astype(np.int32)), Quant(bits=code.bits, scale=code.scale, zero=(-code.zero[0],))


def _inverted(value: Array, code: Quant | None) -> tuple[Array, Quant | None]:
    if code is not None or not value.all():
        raise Unreadable("divides integers, or by zero", _REPLACE)
    return (1.0 / value.astype(np.float64)).astype(np.float32), None


_UNARY: Mapping[str, Op] = {
    "HARD_SWISH": HardSwish(),
    "LOGISTIC": Sigmoid(),
    "RELU": Relu(),
    "RELU6": Relu6(),
    "TANH": Tanh(),
}

_OPERATORS: Mapping[str, Callable[[_Reader, Operator], str]] = {
    "ADD": _Reader.add,
    "AVERAGE_POOL_2D": _Reader.pool,
    "CONCATENATION": _Reader.concatenation,
    "CONV_2D": _Reader.conv_2d,
    "DEPTHWISE_CONV_2D": _Reader.depthwise_conv_2d,
    "DEQUANTIZE": _Reader.dequantize,
    "DIV": _Reader.div,
    "EXPAND_DIMS": _Reader.reshape,
    "FULLY_CONNECTED": _Reader.fully_connected,
    "LEAKY_RELU": _Reader.leaky_relu,
    "MAX_POOL_2D": _Reader.pool,
    "MEAN": _Reader.mean,
    "MUL": _Reader.mul,
    "PAD": _Reader.pad,
    "PADV2": _Reader.pad,
    "QUANTIZE": _Reader.quantize,
    "RESHAPE": _Reader.reshape,
    "SOFTMAX": _Reader.softmax,
    "SQUEEZE": _Reader.reshape,
    "SUB": _Reader.sub,
    "TRANSPOSE": _Reader.transpose,
    **dict.fromkeys(_UNARY, _Reader.unary),
}
"""What each operator of the schema becomes."""

"""ONNX → Graph: float networks, and those quantized by QuantizeLinear / DequantizeLinear pairs or QLinear operators.

Source: `Operators.md` of the ONNX project; `ContribOperators.md` of ONNX Runtime for those of com.microsoft.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import (
    Clamp,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Relu,
    Relu6,
    Sigmoid,
    Tanh,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.graph.ops.windows import Margins, Pair
from crosslayer.core.quant import Array, Quant
from crosslayer.read.channels_first import ChannelsFirst, Fixed, Live, Order, Reading, Tensor, fewest_moves, pair
from crosslayer.read.folding import FOLDS
from crosslayer.read.onnx_file import TYPES, Attributes, OnnxFile, array, load
from crosslayer.read.problems import Problems, Unreadable, checked_size

_OPSETS = range(6, 29)
_REPLACE = "replace it by operators that are supported (docs/onnx.md lists them)"
_BITS = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int4": 4, "uint4": 4, "int32": 32}


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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One operator of the file, applied."""

    build: ChannelsFirst
    opset: int
    inputs: Sequence[Tensor | None]
    attributes: Attributes

    def is_constant(self, operator: str) -> bool:
        """True if the operator is computed while reading."""
        if operator in ("Shape", "Size"):
            return True
        return operator in FOLDS and all(tensor is None or isinstance(tensor, Fixed) for tensor in self.inputs)

    def fold(self, operator: str) -> Fixed:
        """The result as a constant."""
        arrays: list[Array | None] = []
        for tensor in self.inputs:
            if isinstance(tensor, Live):
                arrays.append(np.empty(0) if operator not in ("Shape", "Size") else np.asarray(tensor.shape, np.int64))
            else:
                arrays.append(None if tensor is None else tensor.real())
        if operator in ("Shape", "Size") and isinstance(self.inputs[0], Fixed):
            arrays = [np.asarray(self.inputs[0].shape, np.int64)]
        return Fixed(value=FOLDS[operator](self.build.spend, self.attributes, *arrays))

    def tensor(self, i: int) -> Tensor:
        """An operand that must be there."""
        found = self.inputs[i] if i < len(self.inputs) else None
        if found is None:
            raise Unreadable(f"lacks its operand {i}", "export it again")
        return found

    def live(self, i: int = 0) -> Live:
        """An operand as one that is computed at run time."""
        return self.build.live(self.tensor(i))

    def fixed(self, i: int) -> Fixed:
        """A constant operand."""
        found = self.tensor(i)
        if isinstance(found, Live):
            raise Unreadable(f"needs a constant as its operand {i}, which is computed", "make it a constant")
        return found

    def optional(self, i: int) -> Fixed | None:
        """A constant operand that may be absent."""
        return self.fixed(i) if i < len(self.inputs) and self.inputs[i] is not None else None

    def integers(self, i: int, attribute: str) -> tuple[int, ...] | None:
        """A list of integers that is an attribute in old versions and an operand in new ones; None if absent."""
        if attribute in self.attributes:
            return self.attributes.integers(attribute)
        given = self.optional(i)
        return None if given is None else tuple(int(value) for value in given.value.ravel())

    def axis(self, rank: int, default: int) -> int:
        """The attribute `axis`, counted from 0."""
        return _axis(self.attributes.integer("axis", default), rank)


Operator = Callable[[Call], Tensor]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Unreadable(f"axis {axis} is not one of {rank}", "correct the axis")
    return axis % rank


def _unary(op: Op) -> Operator:
    return lambda call: call.build.unary(op, call.live())


def _two(call: Call) -> tuple[Tensor, Tensor]:
    """The operands of an arithmetic operator, which spread as in NumPy since version 7."""
    if call.opset < 7 and "axis" in call.attributes:
        raise Unreadable("spreads its second operand along an axis", "export it in version 7 of the operators or later")
    return call.tensor(0), call.tensor(1)


def _add(call: Call) -> Tensor:
    return call.build.sum(*_two(call))


def _sub(call: Call) -> Tensor:
    a, b = _two(call)
    return call.build.sum(a, call.build.negated(b))


def _mul(call: Call) -> Tensor:
    return call.build.product(*_two(call))


def _div(call: Call) -> Tensor:
    a, b = _two(call)
    if isinstance(b, Live):
        raise Unreadable("divides by a computed tensor", "divide by a constant")
    return call.build.product(a, Fixed(value=(1.0 / b.real().astype(np.float64)).astype(np.float32)))


def _neg(call: Call) -> Tensor:
    return call.build.negated(call.live())


def _sum(call: Call) -> Tensor:
    total = call.tensor(0)
    for i in range(1, len(call.inputs)):
        total = call.build.sum(total, call.tensor(i))
    return total


def _conv(call: Call) -> Tensor:
    x = call.live(0)
    weight = call.fixed(1)
    windows = _windows(call, x, weight.shape[2:])
    return call.build.conv(x, weight, call.optional(2), windows, call.attributes.integer("group", 1))


def _gemm(call: Call) -> Tensor:
    x, weight, bias = call.live(0), call.fixed(1), call.optional(2)
    alpha, beta = call.attributes.real("alpha", 1.0), call.attributes.real("beta", 1.0)
    if len(x.shape) != 2 or len(weight.shape) != 2:
        raise Unreadable(f"multiplies {list(x.shape)} by {list(weight.shape)}", "give it two matrices")
    if call.attributes.integer("transA", 0):
        moved = call.build.transposed(x, (1, 0))
        assert isinstance(moved, Live)
        x = moved
    weight = weight if call.attributes.integer("transB", 0) else weight.moved(1, 0)
    weight = weight if alpha == 1 else Fixed(value=weight.real() * np.float32(alpha))
    if bias is not None and beta != 1:
        bias = Fixed(value=bias.real() * np.float32(beta))
    out = weight.shape[0]
    if bias is not None and math.prod(bias.shape) == out and bias.shape[-1:] == (out,):
        return call.build.dense(x, weight, bias.reshaped((out,)))
    made = call.build.dense(x, weight, None)
    return made if bias is None else call.build.sum(made, bias)


def _matmul(call: Call) -> Tensor:
    x, weight = call.live(0), call.fixed(1)
    if len(weight.shape) > 2 and math.prod(weight.shape[:-2]) == 1 and len(weight.shape) <= len(x.shape):
        weight = weight.reshaped(weight.shape[-2:])
    if len(weight.shape) == 1:
        y = call.build.dense(x, weight.reshaped((1, *weight.shape)), None)
        return call.build.reshaped(y, y.shape[:-1])
    if len(weight.shape) != 2:
        raise Unreadable(f"multiplies {list(x.shape)} by {list(weight.shape)}", "multiply by a matrix")
    return call.build.dense(x, weight.moved(1, 0), None)


def _norm(call: Call) -> Tensor:
    if call.attributes.integer("training_mode", 0):
        raise Unreadable("normalizes by the statistics of the batch", "export the network for inference")
    constants = [call.fixed(i).real() for i in (1, 2, 3, 4)]
    return call.build.norm(call.live(), constants, call.attributes.real("epsilon", 1e-5))


def _clip(call: Call) -> Tensor:
    low, high = -math.inf, math.inf
    if call.opset < 11:
        low = call.attributes.real("min", -3.4028234663852886e38)
        high = call.attributes.real("max", 3.4028234663852886e38)
    else:
        bounds = [call.optional(i) for i in (1, 2)]
        low, high = (d if b is None else float(b.real().reshape(())) for b, d in zip(bounds, (low, high), strict=True))
    low, high = (-math.inf if low < -3.4e38 else low), (math.inf if high > 3.4e38 else high)
    if low == 0 and high == math.inf:
        return call.build.unary(Relu(), call.live())
    if low == 0 and high == 6:
        return call.build.unary(Relu6(), call.live())
    if low == -math.inf and high == math.inf:
        return call.tensor(0)
    return call.build.unary(Clamp(low=max(low, -3.4e38), high=min(high, 3.4e38)), call.live())


def _leaky(call: Call) -> Tensor:
    return call.build.unary(LeakyRelu(slope=call.attributes.real("alpha", 0.01)), call.live())


def _prelu(call: Call) -> Tensor:
    slope = call.fixed(1).real()
    if slope.size != 1:
        raise Unreadable(f"has {slope.size} slopes", "use one slope for all channels")
    return call.build.unary(LeakyRelu(slope=float(slope.ravel()[0])), call.live())


def _hard_sigmoid(call: Call) -> Tensor:
    slope, offset = call.attributes.real("alpha", 0.2), call.attributes.real("beta", 0.5)
    return call.build.unary(HardSigmoid(slope=slope, offset=offset), call.live())


def _softmax(call: Call) -> Tensor:
    return _shares(call, call.live(), call.opset)


def _shares(call: Call, x: Live, opset: int) -> Live:
    rank = len(x.shape)
    if opset >= 13:
        return call.build.softmax(x, [call.axis(rank, -1)])
    return call.build.softmax(x, range(call.axis(rank, 1), rank))


def _max_pool(call: Call) -> Tensor:
    x = call.live()
    return call.build.max_pool(x, _pool_windows(call, x), ceil=bool(call.attributes.integer("ceil_mode", 0)))


def _average_pool(call: Call) -> Tensor:
    return _averaged(call, call.live())


def _averaged(call: Call, x: Live) -> Live:
    ceil, counts = (bool(call.attributes.integer(name, 0)) for name in ("ceil_mode", "count_include_pad"))
    return call.build.average_pool(x, _pool_windows(call, x), ceil=ceil, counts=counts)


def _global_mean(call: Call) -> Tensor:
    return _spatial_mean(call, call.live())


def _spatial_mean(call: Call, x: Live) -> Live:
    if call.attributes.integer("channels_last", 0):
        raise Unreadable("has its channels last", "export the network channels first")
    return call.build.mean(x, range(2, len(x.shape)), keep=True)


def _global_max(call: Call) -> Tensor:
    x = call.live()
    return call.build.max_pool(x, Windows(kernel=pair(x.shape[2:])), ceil=False)


def _reduce_mean(call: Call) -> Tensor:
    x = call.live()
    axes = call.integers(1, "axes")
    if not axes and call.attributes.integer("noop_with_empty_axes", 0):
        return x
    chosen = sorted({_axis(axis, len(x.shape)) for axis in axes or range(len(x.shape))})
    return call.build.mean(x, chosen, keep=bool(call.attributes.integer("keepdims", 1)))


def _flatten(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.attributes.integer("axis", 1)
    if axis != len(x.shape):
        axis = _axis(axis, len(x.shape))
    return call.build.reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _reshape(call: Call) -> Tensor:
    x, wanted = call.tensor(0), call.integers(1, "shape") or ()
    if not call.attributes.integer("allowzero", 0):
        wanted = tuple(x.shape[i] if side == 0 else side for i, side in enumerate(wanted))
    return call.build.reshaped(x, _filled(wanted, math.prod(x.shape)))


def _filled(shape: Sequence[int], size: int) -> Shape:
    """A shape with its −1 replaced by what is left."""
    rest = math.prod(side for side in shape if side != -1)
    if any(side < -1 for side in shape) or list(shape).count(-1) > 1 or (-1 in shape and rest < 1):
        raise Unreadable(f"reshapes to {list(shape)}", "correct the shape")
    return tuple(size // rest if side == -1 else side for side in shape)


def _squeeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.integers(1, "axes")
    rank = len(x.shape)
    gone = {_axis(a, rank) for a in axes} if axes is not None else {i for i, s in enumerate(x.shape) if s == 1}
    return call.build.reshaped(x, tuple(side for i, side in enumerate(x.shape) if i not in gone))


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.integers(1, "axes") or ()
    rank = len(x.shape) + len(axes)
    added = {_axis(axis, rank) for axis in axes}
    if len(added) != len(axes):
        raise Unreadable(f"adds the axes {list(axes)}", "name each axis once")
    sides = iter(x.shape)
    return call.build.reshaped(x, tuple(1 if i in added else next(sides) for i in range(rank)))


def _transpose(call: Call) -> Tensor:
    x = call.tensor(0)
    order = call.attributes.integers("perm")
    return call.build.transposed(x, order if order is not None else range(len(x.shape))[::-1])


def _concat(call: Call) -> Tensor:
    parts = [call.tensor(i) for i in range(len(call.inputs))]
    return call.build.joined(parts, call.axis(len(parts[0].shape), 0))


def _pad(call: Call) -> Tensor:
    x = call.live()
    rank = len(x.shape)
    mode = call.attributes.text("mode", "constant")
    margins = call.integers(1, "pads") or ()
    value = call.attributes.real("value", 0.0)
    given = call.optional(2) if call.opset >= 11 else None
    if given is not None and given.value.size:
        value = float(given.real().reshape(()))
    axes = [_axis(a, rank) for a in (call.integers(3, "axes") if call.opset >= 18 else None) or range(rank)]
    if mode != "constant" or value != 0:
        raise Unreadable(f"pads in mode '{mode}' with {value}", "pad with zeros")
    if len(margins) != 2 * len(axes):
        raise Unreadable(f"has {len(margins)} margins for {len(axes)} axes", "give two for each axis")
    pairs: list[Pair] = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pairs[axis] = margins[i], margins[i + len(axes)]
    return call.build.padded(x, pairs)


def _identity(call: Call) -> Tensor:
    return call.tensor(0)


def _dropout(call: Call) -> Tensor:
    training = call.optional(2)
    if training is not None and bool(training.value.any()):
        raise Unreadable("drops at random", "export the network for inference")
    return call.tensor(0)


def _cast(call: Call) -> Tensor:
    x, kind = call.live(), TYPES.get(call.attributes.integer("to", 0), "")
    if "float" not in kind:
        raise Unreadable(f"turns computed values into {kind or 'an unknown type'}", "quantize them")
    if not x.is_open:
        return call.build.real(x)
    raise Unreadable("takes the integers of the input as numbers", "give the network a float input")


def _constant(call: Call) -> Tensor:
    return Fixed(value=call.attributes.value())


def _quantize(call: Call) -> Tensor:
    x, zero = call.tensor(0), call.optional(2)
    kind = TYPES.get(call.attributes.integer("output_dtype", 0), "uint8")
    _check_blocks(call)
    return call.build.mark(x, _code(call.fixed(1), zero, _kind(zero, kind), _code_axis(call, x))[0])


def _dequantize(call: Call) -> Tensor:
    _check_blocks(call)
    return _decoded(call.build, call.tensor(0), call.fixed(1), call.optional(2), _code_axis(call, call.tensor(0)))


def _code_axis(call: Call, x: Tensor) -> int:
    rank = len(x.shape)
    axis = call.attributes.integer("axis", 1)
    return axis % rank if -rank <= axis < rank else 0


def _check_blocks(call: Call) -> None:
    if call.attributes.integer("block_size", 0):
        raise Unreadable("has a scale for each block", "quantize per tensor or per channel")


def _kind(zero: Fixed | None, otherwise: str) -> str:
    return otherwise if zero is None else zero.value.dtype.name


def _code(scale: Fixed, zero: Fixed | None, kind: str, axis: int) -> tuple[Quant, int]:
    """The signed number code of a scale and a zero point, and what its codes are less than the file's."""
    bits = _BITS.get(kind)
    if bits is None:
        raise Unreadable(f"has codes of type {kind}", f"use one of {', '.join(_BITS)}")
    scales = tuple(float(value) for value in scale.real().ravel())
    zeros = (0,) * len(scales) if zero is None else tuple(int(value) for value in zero.value.ravel())
    if len(zeros) not in (1, len(scales)):
        raise Unreadable(f"has {len(scales)} scales and {len(zeros)} zeros", "give one zero for each scale")
    half = 1 << (bits - 1) if kind.startswith("uint") else 0
    shifted = tuple(value - half for value in zeros)
    return Quant(bits=bits, scale=scales, zero=shifted, axis=axis if len(scales) > 1 else None), half


def _decoded(build: ChannelsFirst, x: Tensor, scale: Fixed, zero: Fixed | None, axis: int) -> Tensor:
    """What integers stand for. Without a zero point they have the type that they have, and zero 0."""
    if zero is None and x.code is not None:  # their type is forgotten, their zero must have been 0
        return build.unmark(x, x.code, 0)
    return build.unmark(
        x, *_code(scale, zero, _kind(zero, "int8" if isinstance(x, Live) else x.value.dtype.name), axis)
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Quantized:
    """The operands of a QLinear operator: tensor, scale and zero point, one after the other."""

    call: Call

    def tensor(self, i: int, axis: int = 0) -> Tensor:
        """The real values of operands i, i + 1, i + 2."""
        call = self.call
        return _decoded(call.build, call.tensor(i), call.fixed(i + 1), call.optional(i + 2), axis)

    def live(self, i: int = 0) -> Live:
        """As `tensor`, as one that is computed at run time."""
        return self.call.build.live(self.tensor(i))

    def weight(self, i: int, axis: int) -> Fixed:
        """As `tensor`, constant."""
        found = self.tensor(i, axis)
        if isinstance(found, Live):
            raise Unreadable(f"needs a constant as its operand {i}, which is computed", "make it a constant")
        return found

    def bias(self, i: int, taps: Fixed) -> Fixed | None:
        """Operand i in the code of the products of operands 0 and weights `taps`, outputs on axis 0."""
        found = self.call.optional(i)
        if found is None or taps.code is None:
            return None
        source, _ = _code(self.call.fixed(1), None, "int8", 0)
        return Fixed(value=found.value.astype(np.int32), code=bias_code(source, taps.code))

    def result(self, x: Tensor, i: int) -> Tensor:
        """`x` in the code of operands i (scale) and i + 1 (zero)."""
        zero = self.call.optional(i + 1)
        return self.call.build.mark(x, _code(self.call.fixed(i), zero, _kind(zero, "uint8"), 0)[0])


def _qlinear_conv(call: Call) -> Tensor:
    q = _Quantized(call=call)
    x, weight = q.live(0), q.weight(3, 0)
    windows = _windows(call, x, weight.shape[2:])
    y = call.build.conv(x, weight, q.bias(8, weight), windows, call.attributes.integer("group", 1))
    return q.result(y, 6)


def _qlinear_matmul(call: Call) -> Tensor:
    q = _Quantized(call=call)
    weight = q.weight(3, 1)
    if len(weight.shape) != 2:
        raise Unreadable(f"multiplies by {list(weight.shape)}", "multiply by a matrix")
    return q.result(call.build.dense(q.live(0), weight.moved(1, 0), None), 6)


def _qgemm(call: Call) -> Tensor:
    q = _Quantized(call=call)
    turned = call.attributes.integer("transB", 0)
    if call.attributes.integer("transA", 0) or call.attributes.real("alpha", 1.0) != 1:
        raise Unreadable("transposes or scales its first operand", "export it without")
    weight = q.weight(3, 0 if turned else 1)
    if len(weight.shape) != 2:
        raise Unreadable(f"multiplies by {list(weight.shape)}", "multiply by a matrix")
    weight = weight if turned else weight.moved(1, 0)
    bias = q.bias(6, weight)
    y = call.build.dense(q.live(0), weight, None if bias is None else bias.reshaped((weight.shape[0],)))
    return q.result(y, 7) if call.optional(7) is not None else y


def _qlinear_add(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(call.build.sum(q.tensor(0), q.tensor(3)), 6)


def _qlinear_mul(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(call.build.product(q.tensor(0), q.tensor(3)), 6)


def _qlinear_average(call: Call) -> Tensor:
    if call.attributes.integer("channels_last", 0):
        raise Unreadable("has its channels last", "export the network channels first")
    q = _Quantized(call=call)
    return q.result(_averaged(call, q.live()), 3)


def _qlinear_mean(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(_spatial_mean(call, q.live()), 3)


def _qlinear_softmax(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(_shares(call, q.live(), call.attributes.integer("opset", call.opset)), 3)


def _qlinear_unary(make: Callable[[Call], Op]) -> Operator:
    def apply(call: Call) -> Tensor:
        q = _Quantized(call=call)
        return q.result(call.build.unary(make(call), q.live()), 3)

    return apply


def _qlinear_concat(call: Call) -> Tensor:
    q = _Quantized(call=call)
    parts = [q.tensor(i) for i in range(2, len(call.inputs), 3)]
    return q.result(call.build.joined(parts, call.axis(len(parts[0].shape), 0)), 0)


def _windows(call: Call, x: Live, kernel: Shape) -> Windows:
    """Where a kernel lies, from the attributes that convolutions and pools share."""
    sides = x.shape[2:]
    ones = (1,) * len(sides)
    if not len(sides) == len(kernel) == len(call.attributes.integers("kernel_shape") or kernel):
        raise Unreadable(f"has a kernel {list(kernel)} on {list(x.shape)}", "correct the shapes")
    stride = pair(call.attributes.integers("strides") or ones)
    dilation = pair(call.attributes.integers("dilations") or ones)
    size = pair(kernel)
    windows = Windows(kernel=size, stride=stride, dilation=dilation)
    return Windows(kernel=size, stride=stride, dilation=dilation, padding=_margins(call, pair(sides), windows))


def _margins(call: Call, sides: Pair, windows: Windows) -> Margins:
    mode = call.attributes.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = call.attributes.integers("pads") or (0, 0)
        if len(pads) == 2:
            pads = (0, pads[0], 0, pads[1])
        if len(pads) != 4:
            raise Unreadable(f"has the margins {list(pads)}", "give two for each axis")
        return pads[0], pads[2], pads[1], pads[3]
    if mode == "VALID":
        return 0, 0, 0, 0
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unreadable(f"has auto_pad '{mode}'", "use explicit margins")
    margins: list[int] = []
    for side, reach, stride in zip(sides, windows.reach(), windows.stride, strict=True):
        total = max((-(-side // stride) - 1) * stride + reach - side, 0)
        less, more = total // 2, total - total // 2
        margins += [less, more] if mode == "SAME_UPPER" else [more, less]
    return margins[0], margins[1], margins[2], margins[3]


def _pool_windows(call: Call, x: Live) -> Windows:
    """The windows of a pool."""
    kernel = call.attributes.integers("kernel_shape")
    if kernel is None or call.attributes.integer("storage_order", 0):
        raise Unreadable("has no kernel, or stores columns first", "use a plain pool")
    return _windows(call, x, kernel)


OPERATORS: Mapping[str, Operator] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "GlobalMaxPool": _global_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(HardSwish()),
    "Identity": _identity,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _prelu,
    "Pad": _pad,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": _unary(Relu()),
    "Reshape": _reshape,
    "Sigmoid": _unary(Sigmoid()),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _sum,
    "Tanh": _unary(Tanh()),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""The operators of the standard that are read."""
MICROSOFT: Mapping[str, Operator] = {
    "DequantizeLinear": _dequantize,
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_add,
    "QLinearAveragePool": _qlinear_average,
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _qlinear_mean,
    "QLinearLeakyRelu": _qlinear_unary(lambda call: LeakyRelu(slope=call.attributes.real("alpha", 0.01))),
    "QLinearMul": _qlinear_mul,
    "QLinearSoftmax": _qlinear_softmax,
    "QLinearSigmoid": _qlinear_unary(lambda call: Sigmoid()),
    "QuantizeLinear": _quantize,
}
"""Those of com.microsoft, ONNX Runtime's own."""

"""PyTorch → Graph: exported programs (`torch.export`), from .pt2 files or from a module."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from crosslayer.core.errors import CrosslayerError, ReadError, ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import Clamp, HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Tanh, Windows
from crosslayer.core.graph.ops.windows import same
from crosslayer.core.quant import Array, Quant
from crosslayer.read.channels_first import ChannelsFirst, Fixed, Live, Order, Reading, Tensor, fewest_moves, pair
from crosslayer.read.problems import Problems, Unreadable
from crosslayer.read.pt2_file import Argument, Operator, Pt2

if TYPE_CHECKING:
    import torch

_REPLACE = "replace it by operations that are supported, or export to ONNX"
_FLOATS = ("float32", "float16", "bfloat16")


def read_pt2(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """The network in a .pt2 file of `torch.export.save`, or in its bytes; of a quantized one the integers.

    The file's JSON and raw tensors are read; pickled parts are refused, and no code of the file is run. The batch axis
    is dropped. What the network takes as (batch, channels, height, width) the graph takes as (height, width, channels),
    and (batch, channels, length) as (1, length, channels) where the network slides over the length. Raises `ReadError`
    that lists all operations, types and shapes that cannot be read.
    """
    return pt2_reading(source, rounding).graph


def from_module(module: "torch.nn.Module", shape: Shape) -> Graph:
    """The network of a module in evaluation mode; `shape` is that of one sample as the module takes it.

    The module takes channels first, (channels, height, width); the graph takes channels last. See `read_pt2`.
    """
    return pt2_reading(exported(module, shape)).graph


def exported(module: "torch.nn.Module", shape: Shape) -> bytes:
    """The content of the .pt2 file of a module, for samples of this shape."""
    try:
        import torch
    except ImportError as error:
        raise ToolError("reading a PyTorch module needs the package torch; install crosslayer[train]") from error
    training = module.training
    buffer = io.BytesIO()
    try:
        program = torch.export.export(module.eval(), (torch.zeros(1, *shape),))
        torch.export.save(program, buffer)
    except Exception as error:  # torch.export raises errors of dozens of types for what it cannot trace
        what = str(error).partition("\n")[0]
        raise ReadError(f"the module cannot be exported ({what}); make torch.export.export accept it") from error
    finally:
        module.train(training)
    return buffer.getvalue()


def pt2_reading(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE) -> Reading:
    """As `read_pt2`, with how the tensors of the program lie in the graph."""
    file = Pt2(source)
    problems = Problems(file.where)
    parts: list[_Program] = []
    with problems.at("the program"):
        parts.append(_program(file))
    problems.raise_if_any()
    (program,) = parts
    with np.errstate(all="ignore"):  # what is not finite is refused
        return fewest_moves(
            lambda order: _Network(file.where, program).reading(order, rounding), program.shape, batched=True
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """What the file says, before any of it is understood."""

    operators: Sequence[Operator]
    source: str
    shape: Shape
    kind: str
    outputs: Sequence[str]
    constants: Mapping[str, Callable[[], Array]]


def _program(file: Pt2) -> _Program:
    inputs = file.inputs()
    sources = [name for name, read in inputs.items() if read is None]
    if len(sources) != 1:
        raise Unreadable(f"has {len(sources)} inputs", "export it with one tensor as its input")
    shape, kind = file.type(sources[0])
    if kind not in (*_FLOATS, "int8", "uint8"):
        raise Unreadable(f"takes elements of type {kind}", "use float32, int8 or uint8")
    return _Program(
        operators=file.operators(),
        source=sources[0],
        shape=shape,
        kind=kind,
        outputs=file.outputs(),
        constants={name: read for name, read in inputs.items() if read is not None},
    )


@final
class _Network:
    """Turns the operations of a program into nodes, one by one; what depends on one that failed is left out."""

    def __init__(self, where: str, program: _Program) -> None:
        self._problems = Problems(where)
        self._program = program
        self._build = ChannelsFirst()
        self._values: dict[str, Tensor | int] = {}
        self._failed: set[str] = set()

    def reading(self, order: Order, rounding: Rounding) -> Reading:
        """The graph of the program. Raises `ReadError` with all that is wrong."""
        program = self._program
        with self._problems.at(f"input '{program.source}'"):
            batch = 0 if program.shape else None
            integers = program.kind not in _FLOATS
            live = self._build.input(program.source, program.shape, batch, order, integers=integers)
            self._values[program.source] = live
        self._problems.raise_if_any()
        for operator in program.operators:
            place = f"'{operator.name}' ({operator.target.removeprefix('torch.ops.')})"
            with self._problems.at(place):
                self._operator(operator)
            if operator.results and operator.results[0] not in self._values:
                self._failed.update(operator.results)
        outputs: list[Tensor] = []
        for name in program.outputs:
            with self._problems.at(f"output '{name}'"):
                found = self._find(name)
                if isinstance(found, int):
                    raise Unreadable("is a number", "return tensors")
                if found is not None:
                    outputs.append(found)
        self._problems.raise_if_any()
        with self._problems.at("the network"):
            reading = self._build.reading(outputs, rounding)
            _ = reading.graph.lowered
            return reading
        self._problems.raise_if_any()
        raise AssertionError

    def _operator(self, operator: Operator) -> None:
        target = operator.target.removeprefix("torch.ops.")
        if target not in OPERATIONS:
            raise Unreadable(f"the operation {target} is not supported", _REPLACE)
        names = [name for told in operator.arguments.values() for name in _reads(told)]
        if any(self._find(name) is None for name in names):
            return  # what it needs has failed
        self._build.at(operator.name)
        call = Call(build=self._build, arguments=operator.arguments, values=self._values)
        try:
            result = OPERATIONS[target](call)
        except CrosslayerError:
            raise
        except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError, MemoryError) as error:
            raise Unreadable(f"holds values that do not fit together ({error})", "save it again") from error
        if not operator.results:
            raise Unreadable("has no result", "save it again")
        self._values[operator.results[0]] = result

    def _find(self, name: str) -> Tensor | int | None:
        if name in self._values:
            return self._values[name]
        if name in self._program.constants:
            self._values[name] = Fixed(value=self._program.constants[name]())
            return self._values[name]
        if name in self._failed:
            return None
        raise Unreadable(f"reads '{name[:80]}', which nothing computes before it", "save it again")


def _reads(told: Argument) -> list[str]:
    """The names of tensors and numbers that an argument reads."""
    if told.kind in ("as_tensor", "as_sym_int"):
        return [told.value]
    if told.kind == "as_tensors":
        return list(told.value)
    if told.kind == "as_sym_ints":
        return [name for item in told.value for name in _reads(item)]
    return []


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One operation of the program, applied. Arguments that the file leaves out have the default that is given."""

    build: ChannelsFirst
    arguments: Mapping[str, Argument]
    values: Mapping[str, Tensor | int]

    def tensor(self, name: str) -> Tensor:
        """A tensor, or a number as one."""
        told = self.arguments.get(name)
        if told is not None and told.kind in ("as_float", "as_int"):
            return Fixed(value=np.asarray(float(told.value)))
        found = None if told is None or told.kind != "as_tensor" else self.values[told.value]
        if found is None or isinstance(found, int):
            raise Unreadable(f"lacks the tensor '{name}'", "save it again")
        return found

    def live(self, name: str) -> Live:
        """A tensor as one that is computed at run time."""
        return self.build.live(self.tensor(name))

    def fixed(self, name: str) -> Fixed:
        """A constant tensor."""
        found = self.tensor(name)
        if isinstance(found, Live):
            raise Unreadable(f"needs a constant as its '{name}', which is computed", "make it a constant")
        return found

    def optional(self, name: str) -> Fixed | None:
        """A constant tensor that may be absent."""
        told = self.arguments.get(name)
        return None if told is None or told.kind == "as_none" else self.fixed(name)

    def tensors(self, name: str) -> list[Tensor]:
        """A list of tensors."""
        told = self.arguments.get(name)
        found = [self.values[item] for item in told.value] if told is not None and told.kind == "as_tensors" else []
        tensors = [item for item in found if not isinstance(item, int)]
        if not tensors or len(tensors) != len(found):
            raise Unreadable(f"lacks the tensors '{name}'", "save it again")
        return tensors

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer, also one that the program computes from shapes."""
        found = self.integers(name, None if default is None else (default,))
        if len(found) != 1:
            raise Unreadable(f"has {len(found)} numbers as its '{name}'", "save it again")
        return found[0]

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers, or one."""
        told = self.arguments.get(name)
        if told is None or told.kind == "as_none":
            if default is None:
                raise Unreadable(f"lacks '{name}'", "save it again")
            return tuple(default)
        items = told.value if told.kind in ("as_ints", "as_sym_ints") else [told.value]
        return tuple(self._number(item) for item in items)

    def _number(self, item: Any) -> int:
        if isinstance(item, Argument):
            item = item.value
        if isinstance(item, str):
            item = self.values.get(item)
        if not isinstance(item, int) or not -(2**63) <= item < 2**63:
            raise Unreadable("has something else where an integer is expected", "save it again")
        return int(item)

    def real(self, name: str, default: float) -> float:
        """A finite real number."""
        told = self.arguments.get(name)
        value = default if told is None or told.kind == "as_none" else told.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(float(value)):
            raise Unreadable(f"has {value!r} as its '{name}'", "use a finite number")
        return float(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """One number, or those of a constant tensor."""
        return tuple(float(value) for value in self.fixed(name).real().ravel())

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false."""
        told = self.arguments.get(name)
        return default if told is None or told.kind == "as_none" else bool(told.value)

    def text(self, name: str, default: str) -> str:
        """A text."""
        told = self.arguments.get(name)
        return default if told is None or told.kind != "as_string" else str(told.value)

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """An axis, counted from 0."""
        return _axis(self.integer(name, default), rank)


Operation = Callable[[Call], Tensor | int]


def _axis(axis: int, rank: int) -> int:
    if not -max(rank, 1) <= axis < max(rank, 1):
        raise Unreadable(f"axis {axis} is not one of {rank}", "correct the axis")
    return axis % max(rank, 1)


def _unary(op: Op) -> Operation:
    return lambda call: call.build.unary(op, call.live("self" if "self" in call.arguments else "input"))


def _silu(call: Call) -> Tensor:
    x = call.live("self")
    return call.build.product(x, call.build.unary(Sigmoid(), x))


def _same(name: str) -> Operation:
    return lambda call: call.tensor(name)


def _add(call: Call) -> Tensor:
    return call.build.sum(call.tensor("self"), _scaled(call, call.tensor("other"), call.real("alpha", 1.0)))


def _sub(call: Call) -> Tensor:
    other = _scaled(call, call.tensor("other"), call.real("alpha", 1.0))
    return call.build.sum(call.tensor("self"), call.build.negated(other))


def _rsub(call: Call) -> Tensor:
    own = _scaled(call, call.tensor("self"), call.real("alpha", 1.0))
    return call.build.sum(call.tensor("other"), call.build.negated(own))


def _scaled(call: Call, x: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return x
    if isinstance(x, Fixed):
        return Fixed(value=(x.real() * factor).astype(np.float32))
    return call.build.product(x, Fixed(value=np.full((), factor, np.float32)))


def _mul(call: Call) -> Tensor:
    return call.build.product(call.tensor("self"), call.tensor("other"))


def _div(call: Call) -> Tensor:
    if call.text("rounding_mode", ""):
        raise Unreadable("rounds its quotient", "divide without rounding")
    divisor = call.fixed("other").real().astype(np.float64)
    return call.build.product(call.live("self"), Fixed(value=(1.0 / divisor).astype(np.float32)))


def _neg(call: Call) -> Tensor:
    return call.build.negated(call.live("self"))


def _conv(call: Call) -> Tensor:
    x, weight = call.live("input"), call.fixed("weight")
    slid = len(weight.shape) - 2
    if call.flag("transposed"):
        raise Unreadable("is a transposed convolution", _REPLACE)
    if len(x.shape) != len(weight.shape):
        raise Unreadable(f"slides {list(weight.shape)} over {list(x.shape)}", "give the input a batch axis")
    kernel, stride, dilation = (
        pair(_many(values, slid))
        for values in (weight.shape[2:], call.integers("stride", (1,)), call.integers("dilation", (1,)))
    )
    windows = Windows(
        kernel=kernel, stride=stride, dilation=dilation, padding=_padding(call, x, kernel, dilation, slid)
    )
    return call.build.conv(x, weight, call.optional("bias"), windows, call.integer("groups", 1))


def _padding(call: Call, x: Live, kernel: Shape, dilation: Shape, slid: int) -> tuple[int, int, int, int]:
    told = call.arguments.get("padding")
    if told is not None and told.kind == "as_string":
        if told.value == "valid":
            return 0, 0, 0, 0
        if told.value != "same":
            raise Unreadable(f"has the padding '{told.value}'", "use 'same', 'valid' or numbers")
        (kh, kw), (dh, dw) = kernel, dilation
        return same(pair(x.shape[2:]), (kh, kw), (1, 1), (dh, dw))
    high, wide = pair(_many(call.integers("padding", (0,)), slid)) if slid == 2 else (0, call.integer("padding", 0))
    return high, high, wide, wide


def _many(values: Sequence[int], count: int) -> tuple[int, ...]:
    """One number for each axis; PyTorch lets one stand for all."""
    if len(values) not in (1, count):
        raise Unreadable(f"has {len(values)} numbers for {count} axes", "give one for each axis")
    return tuple(values) if len(values) == count else tuple(values) * count


def _linear(call: Call) -> Tensor:
    return call.build.dense(call.live("input"), call.fixed("weight"), call.optional("bias"))


def _addmm(call: Call) -> Tensor:
    if call.real("alpha", 1.0) != 1 or call.real("beta", 1.0) != 1:
        raise Unreadable("scales its operands", "scale the weights instead")
    weight = call.fixed("mat2")
    bias = call.fixed("self")
    if math.prod(bias.shape) != weight.shape[-1] or len(weight.shape) != 2:
        raise Unreadable(f"adds {list(bias.shape)} to a product with {list(weight.shape)}", "add a vector")
    return call.build.dense(call.live("mat1"), weight.moved(1, 0), bias.reshaped((weight.shape[1],)))


def _matmul(call: Call) -> Tensor:
    x = call.live("self")
    weight = call.fixed("mat2" if "mat2" in call.arguments else "other")
    if len(weight.shape) != 2:
        raise Unreadable(f"multiplies by {list(weight.shape)}", "multiply by a matrix")
    return call.build.dense(x, weight.moved(1, 0), None)


def _norm(call: Call) -> Tensor:
    if call.flag("training"):
        raise Unreadable("normalizes by the statistics of the batch", "export it in evaluation mode: module.eval()")
    mean, variance = call.fixed("running_mean").real(), call.fixed("running_var").real()
    scale, shift = call.optional("weight"), call.optional("bias")
    constants = (
        np.ones_like(mean) if scale is None else scale.real(),
        np.zeros_like(mean) if shift is None else shift.real(),
        mean,
        variance,
    )
    return call.build.norm(call.live("input"), constants, call.real("eps", 1e-5))


def _clamp(low: str, high: str, least: float, most: float) -> Operation:
    def apply(call: Call) -> Tensor:
        x = call.live("self")
        bounds = call.real(low, least), call.real(high, most)
        if bounds == (0, _ENDLESS):
            return call.build.unary(Relu(), x)
        return call.build.unary(Relu6() if bounds == (0, 6) else Clamp(low=bounds[0], high=bounds[1]), x)

    return apply


_ENDLESS = 3.0e38  # in place of infinity, where there is no bound


def _leaky(call: Call) -> Tensor:
    return call.build.unary(LeakyRelu(slope=call.real("negative_slope", 0.01)), call.live("self"))


def _prelu(call: Call) -> Tensor:
    slope = call.fixed("weight").real()
    if slope.size != 1:
        raise Unreadable(f"has {slope.size} slopes", "use one slope for all channels")
    return call.build.unary(LeakyRelu(slope=float(slope.ravel()[0])), call.live("self"))


def _softmax(call: Call) -> Tensor:
    x = call.live("self")
    return call.build.softmax(x, [call.axis("dim", len(x.shape))])


def _max_pool(call: Call) -> Tensor:
    x, windows = _pool(call)
    return call.build.max_pool(x, windows, ceil=call.flag("ceil_mode"))


def _average_pool(call: Call) -> Tensor:
    if call.arguments.get("divisor_override", Argument(kind="as_none", value=True)).kind != "as_none":
        raise Unreadable("divides by another number than that of its elements", "leave divisor_override out")
    x, windows = _pool(call)
    counts = call.flag("count_include_pad", default=True)
    return call.build.average_pool(x, windows, ceil=call.flag("ceil_mode"), counts=counts)


def _pool(call: Call) -> tuple[Live, Windows]:
    x = call.live("self")
    slid = len(x.shape) - 2
    if slid < 1:
        raise Unreadable(f"slides over a tensor of shape {list(x.shape)}", "give the input a batch axis")
    kernel = _many(call.integers("kernel_size"), slid)
    stride = _many(call.integers("stride", ()) or kernel, slid)
    dilation, padding = (
        _many(call.integers(name, (default,)), slid) for name, default in (("dilation", 1), ("padding", 0))
    )
    high, wide = (0, padding[0]) if slid == 1 else pair(padding)
    return x, Windows(
        kernel=pair(kernel), stride=pair(stride), dilation=pair(dilation), padding=(high, high, wide, wide)
    )


def _adaptive(mean: bool) -> Operation:  # an argument of this table only
    def apply(call: Call) -> Tensor:
        x = call.live("self")
        slid = len(x.shape) - 2
        sizes = _many(call.integers("output_size"), max(slid, 1))
        if any(size < 1 or side % size for size, side in zip(sizes, x.shape[2:], strict=True)):
            raise Unreadable(f"divides {list(x.shape[2:])} into {list(sizes)} unequal parts", "use equal parts")
        if mean and all(size == 1 for size in sizes):
            return call.build.mean(x, range(2, len(x.shape)), keep=True)
        kernel = pair([side // size for size, side in zip(sizes, x.shape[2:], strict=True)])
        windows = Windows(kernel=kernel, stride=kernel)
        if mean:
            return call.build.average_pool(x, windows, ceil=False, counts=False)
        return call.build.max_pool(x, windows, ceil=False)

    return apply


def _mean(call: Call) -> Tensor:
    x = call.live("self")
    rank = len(x.shape)
    axes = sorted({_axis(axis, rank) for axis in call.integers("dim", range(rank))}) or range(rank)
    return call.build.mean(x, axes, keep=call.flag("keepdim"))


def _flatten(call: Call) -> Tensor:
    x = call.tensor("self")
    rank = len(x.shape)
    start, end = call.axis("start_dim", rank, 0), call.axis("end_dim", rank, -1)
    if start > end:
        raise Unreadable(f"flattens axes {start} to {end}", "correct the axes")
    return call.build.reshaped(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _view(call: Call) -> Tensor:
    x = call.tensor("self")
    wanted = call.integers("size" if "size" in call.arguments else "shape")
    rest = math.prod(side for side in wanted if side != -1)
    if any(side < -1 for side in wanted) or wanted.count(-1) > 1 or (-1 in wanted and rest < 1):
        raise Unreadable(f"reshapes to {list(wanted)}", "correct the shape")
    size = math.prod(x.shape)
    return call.build.reshaped(x, tuple(size // rest if side == -1 else side for side in wanted))


def _unflatten(call: Call) -> Tensor:
    x = call.tensor("self")
    axis, sizes = call.axis("dim", len(x.shape)), call.integers("sizes")
    rest = math.prod(side for side in sizes if side != -1)
    sides = tuple(x.shape[axis] // max(rest, 1) if side == -1 else side for side in sizes)
    return call.build.reshaped(x, (*x.shape[:axis], *sides, *x.shape[axis + 1 :]))


def _squeeze(call: Call) -> Tensor:
    x = call.tensor("self")
    rank = len(x.shape)
    chosen = {_axis(axis, rank) for axis in call.integers("dim", range(rank))}
    return call.build.reshaped(x, tuple(side for i, side in enumerate(x.shape) if i not in chosen or side != 1))


def _unsqueeze(call: Call) -> Tensor:
    x = call.tensor("self")
    axis = call.axis("dim", len(x.shape) + 1)
    return call.build.reshaped(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _permute(call: Call) -> Tensor:
    x = call.tensor("self")
    return call.build.transposed(x, [_axis(axis, len(x.shape)) for axis in call.integers("dims")])


def _transpose(call: Call) -> Tensor:
    x = call.tensor("self")
    order = list(range(len(x.shape)))
    a, b = (call.axis(name, len(order), default) for name, default in (("dim0", 0), ("dim1", min(1, len(order) - 1))))
    order[a], order[b] = order[b], order[a]
    return call.build.transposed(x, order)


def _cat(call: Call) -> Tensor:
    parts = call.tensors("tensors")
    return call.build.joined(parts, call.axis("dim", len(parts[0].shape), 0))


def _pad(call: Call) -> Tensor:
    x, margins = call.live("self"), call.integers("pad")
    if call.text("mode", "constant") != "constant" or call.real("value", 0.0) != 0:
        raise Unreadable("pads with something else than zeros", "pad with zeros")
    if len(margins) % 2 or len(margins) > 2 * len(x.shape):
        raise Unreadable(f"has {len(margins)} margins for {len(x.shape)} axes", "give two for each axis")
    pairs = [(0, 0)] * len(x.shape)
    for i in range(len(margins) // 2):  # from the last axis on
        pairs[-1 - i] = margins[2 * i], margins[2 * i + 1]
    return call.build.padded(x, pairs)


def _dropout(call: Call) -> Tensor:
    if call.flag("train"):
        raise Unreadable("drops at random", "export it in evaluation mode: module.eval()")
    return call.tensor("input")


def _converted(call: Call) -> Tensor:
    return call.build.real(call.live("self"))


def _size(call: Call) -> int:
    x = call.tensor("self")
    return x.shape[call.axis("dim", len(x.shape))]


def _code(call: Call, *, channels: bool) -> tuple[Quant, int]:
    """The signed number code of a conversion, and what its codes are less than the file's."""
    scales = call.numbers("scales" if channels else "scale")
    zeros = call.numbers("zero_points" if channels else "zero_point")
    low, high = call.integer("quant_min"), call.integer("quant_max")
    bits = (high - low).bit_length()
    if high - low not in ((1 << bits) - 1, (1 << bits) - 2):  # all codes, or all but the least
        raise Unreadable(f"quantizes to {low}…{high}", "use all codes of some number of bits")
    shift = high - ((1 << (bits - 1)) - 1)
    if any(zero != int(zero) for zero in zeros):
        raise Unreadable("has a zero point that is no integer", "use integers")
    zero = tuple(int(value) - shift for value in zeros)
    return Quant(bits=bits, scale=scales, zero=zero, axis=call.integer("axis") if channels else None), shift


def _quantize(*, channels: bool) -> Operation:
    return lambda call: call.build.mark(call.tensor("input"), _code(call, channels=channels)[0])


def _dequantize(*, channels: bool) -> Operation:
    return lambda call: call.build.unmark(call.tensor("input"), *_code(call, channels=channels))


_DECOMPOSED = "quantized_decomposed."
OPERATIONS: Mapping[str, Operation] = {
    "aten._native_batch_norm_legit_no_training.default": _norm,
    "aten._softmax.default": _softmax,
    "aten._to_copy.default": _converted,
    "aten._unsafe_view.default": _view,
    "aten.adaptive_avg_pool1d.default": _adaptive(mean=True),
    "aten.adaptive_avg_pool2d.default": _adaptive(mean=True),
    "aten.adaptive_max_pool1d.default": _adaptive(mean=False),
    "aten.adaptive_max_pool2d.default": _adaptive(mean=False),
    "aten.add.Scalar": _add,
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.addmm.default": _addmm,
    "aten.alias.default": _same("self"),
    "aten.avg_pool1d.default": _average_pool,
    "aten.avg_pool2d.default": _average_pool,
    "aten.batch_norm.default": _norm,
    "aten.cat.default": _cat,
    "aten.clamp.default": _clamp("min", "max", -_ENDLESS, _ENDLESS),
    "aten.clone.default": _same("self"),
    "aten.constant_pad_nd.default": _pad,
    "aten.contiguous.default": _same("self"),
    "aten.conv1d.default": _conv,
    "aten.conv1d.padding": _conv,
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.convolution.default": _conv,
    "aten.detach.default": _same("self"),
    "aten.detach_.default": _same("self"),
    "aten.div.Scalar": _div,
    "aten.div.Tensor": _div,
    "aten.dropout.default": _dropout,
    "aten.feature_dropout.default": _dropout,
    "aten.flatten.using_ints": _flatten,
    "aten.hardsigmoid.default": _unary(HardSigmoid()),
    "aten.hardsigmoid_.default": _unary(HardSigmoid()),
    "aten.hardswish.default": _unary(HardSwish()),
    "aten.hardswish_.default": _unary(HardSwish()),
    "aten.hardtanh.default": _clamp("min_val", "max_val", -1.0, 1.0),
    "aten.hardtanh_.default": _clamp("min_val", "max_val", -1.0, 1.0),
    "aten.leaky_relu.default": _leaky,
    "aten.leaky_relu_.default": _leaky,
    "aten.lift_fresh_copy.default": _same("self"),
    "aten.linear.default": _linear,
    "aten.matmul.default": _matmul,
    "aten.max_pool1d.default": _max_pool,
    "aten.max_pool2d.default": _max_pool,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.mean.default": _mean,
    "aten.mean.dim": _mean,
    "aten.mm.default": _matmul,
    "aten.mul.Scalar": _mul,
    "aten.mul.Tensor": _mul,
    "aten.mul_.Tensor": _mul,
    "aten.neg.default": _neg,
    "aten.pad.default": _pad,
    "aten.permute.default": _permute,
    "aten.prelu.default": _prelu,
    "aten.relu.default": _unary(Relu()),
    "aten.relu6.default": _unary(Relu6()),
    "aten.relu_.default": _unary(Relu()),
    "aten.reshape.default": _view,
    "aten.rsub.Scalar": _rsub,
    "aten.sigmoid.default": _unary(Sigmoid()),
    "aten.silu.default": _silu,
    "aten.silu_.default": _silu,
    "aten.softmax.int": _softmax,
    "aten.squeeze.default": _squeeze,
    "aten.squeeze.dim": _squeeze,
    "aten.squeeze.dims": _squeeze,
    "aten.sub.Scalar": _sub,
    "aten.sub.Tensor": _sub,
    "aten.sym_size.int": _size,
    "aten.t.default": _transpose,
    "aten.tanh.default": _unary(Tanh()),
    "aten.to.dtype": _converted,
    "aten.transpose.int": _transpose,
    "aten.unflatten.int": _unflatten,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.view.default": _view,
    f"{_DECOMPOSED}dequantize_per_channel.default": _dequantize(channels=True),
    f"{_DECOMPOSED}dequantize_per_tensor.default": _dequantize(channels=False),
    f"{_DECOMPOSED}dequantize_per_tensor.tensor": _dequantize(channels=False),
    f"{_DECOMPOSED}quantize_per_channel.default": _quantize(channels=True),
    f"{_DECOMPOSED}quantize_per_tensor.default": _quantize(channels=False),
    f"{_DECOMPOSED}quantize_per_tensor.tensor": _quantize(channels=False),
}
"""What is read, by the target that the file names."""

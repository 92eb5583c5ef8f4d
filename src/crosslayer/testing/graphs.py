"""Random networks: one around a given operation, or of many, in floats or in integers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Operand, Shape, TensorType, is_wide
from crosslayer.core.graph.ops import (
    OPS,
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
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Requantize,
    Reshape,
    Softmax,
    Transpose,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code, largest_sum
from crosslayer.core.quant import Array, Quant, affine, symmetric
from crosslayer.testing.chance import Chance

_SAMPLES = 6
_LARGEST = 600  # values of one activation in a network of many operations

Codes = Sequence[Quant | None]


@final
class Growth:
    """A random network under construction. Each value comes with what it is for a few inputs, so that number codes can
    be chosen that fit. `rounding` None means a float network. In half of the integer ones all scales are powers of two,
    so that results lie exactly between two codes."""

    def __init__(self, chance: Chance, rounding: Rounding | None) -> None:
        """Start without any value."""
        self.chance = chance
        self.rounding = rounding
        self._builder = Builder(rounding or Rounding.DOUBLE)
        self._codes: dict[str, Quant | None] = {}
        self._samples: dict[str, Array] = {}
        self._constants = 0
        self._halves = rounding is not None and chance.rarely(2)

    @property
    def values(self) -> tuple[str, ...]:
        """The names of all activations so far."""
        return tuple(self._samples)

    def shape(self, name: str) -> Shape:
        """The shape of a value."""
        return self._builder.shape(name)

    def code(self, name: str) -> Quant | None:
        """The number code of a value."""
        return self._codes[name]

    def input(self, shape: Shape, *, coded: bool, wide: bool = False) -> str:
        """The input, float32 or with a random number code, of more than 8 bits if `wide`."""
        real = (self.chance.rng().normal(size=(_SAMPLES, *shape)) * 10.0 ** self.chance.integer(-1, 1)).astype("f4")
        quant = self.fitting(real, wide=wide) if coded else None
        return self._record(self._builder.input("x", shape, quant), real, quant)

    def apply(self, op: Op, *inputs: str, constants: Sequence[Array] = ()) -> str:
        """The result of `op` on values and then float constants. Operands that must share a code get one first.

        Raises `GraphError`, with no node of `op` added, if it cannot be applied or has no integer meaning here.
        """
        shapes = [*(self.shape(n) for n in inputs), *(c.shape for c in constants)]
        shape = op.infer(shapes)
        if not op.takes([self._codes[n] for n in inputs], shapes) or len({self._wide(n) for n in inputs}) > 1:
            inputs = self._alike(inputs)
        codes = [self._codes[n] for n in inputs]
        stored = self._stored(op, codes, constants)
        weights = [value if quant is None else quant.decode(value) for value, quant in stored]
        real = np.asarray(op.real(np, *(self._samples[n] for n in inputs), *weights), np.float32)
        quant = self._result_code(op, codes, shapes, real)
        if self.rounding is not None:
            operands = [Operand(type=TensorType(shape=self.shape(n), quant=self._codes[n])) for n in inputs]
            result = TensorType(shape=shape, quant=quant)
            _ = op.kernel_for([*(o.type for o in operands), result])
            operands += [Operand(type=TensorType(shape=v.shape, quant=q), value=v) for v, q in stored]
            op.lower(operands, result, self.rounding)
        names = [self._constant(value, code) for value, code in stored]
        return self._record(self._builder.add(op, *inputs, *names, quant=quant), real, quant)

    def fixed(self, shape: Shape) -> str:
        """A constant of a shape."""
        real = self.chance.rng().normal(size=shape).astype(np.float32)
        quant = None if self._float else self.fitting(real)
        name = self._constant(real if quant is None else quant.encode(real), quant)
        return self._record(
            self._builder.add(Constant(), name, quant=quant), np.broadcast_to(real, (_SAMPLES, *shape)), quant
        )

    def graph(self, output: str) -> Graph:
        """The network that ends in a value."""
        return self._builder.graph(output)

    def fitting(self, real: Array, *, floor: float = 0.0, wide: bool = False) -> Quant:
        """A random code for values like these: mostly 8 bits, sometimes too narrow or too wide. It reaches `floor`.

        With `wide` 9…16 bits, mostly 16.
        """
        peak = max(float(np.abs(real).max(initial=0.0)), floor, 1e-3)
        if wide:
            bits, stretch = self.chance.one_of((16, 16, 16, 12, 9)), self.chance.one_of((1.0, 1.2, 0.6))
            code = symmetric(np.array([peak * stretch]), bits)
            return replace(code, scale=(_power_above(code.scale[0]),)) if self._halves else code
        bits = self.chance.one_of((8, 8, 8, 8, 8, 7, 5, 4, 2))
        lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        if self._halves:
            zero = self.chance.integer(lowest, highest)
            return Quant(bits=bits, scale=(_power_above(peak / highest),), zero=(zero,))
        stretch = self.chance.one_of((1.0, 1.2, 0.6))
        low, high = float(real.min(initial=0.0)) * stretch, float(real.max(initial=0.0)) * stretch
        return affine(low, high, bits) if high - low >= peak / 2 else affine(-peak, peak, bits)

    def weights(self, *shape: int) -> Array:
        """Random weights, sometimes all alike, of a layer that keeps values about as large as they are."""
        drawn = self.chance.rng().normal(size=shape) / math.sqrt(max(1, math.prod(shape[1:])))
        return np.full(shape, 0.25, np.float32) if self.chance.rarely(8) else drawn.astype(np.float32)

    def windows(self, shape: Shape) -> Windows:
        """Random windows with at least one place; strides, dilations and each margin on their own."""
        sides = [self._window_side(size) for size in shape[:2]]
        (kh, sh, dh, top, bottom), (kw, sw, dw, left, right) = sides
        return Windows(kernel=(kh, kw), stride=(sh, sw), dilation=(dh, dw), padding=(top, bottom, left, right))

    def mixed(self, x: str, channels: int | None = None) -> str:
        """A random linear function of each pixel of `x`: another value, of the same shape but for its channels."""
        shape = self.shape(x)
        out = channels or shape[-1]
        if len(shape) == 1:
            return self.apply(Dense(), x, constants=(self.weights(out, shape[0]), self.weights(out)))
        pixels = x if len(shape) == 3 else self.apply(Reshape(shape=(1, math.prod(shape[:-1]), shape[-1])), x)
        op = Conv2d(windows=Windows(kernel=(1, 1)))
        y = self.apply(op, pixels, constants=(self.weights(out, 1, 1, shape[-1]), self.weights(out)))
        return y if len(shape) == 3 else self.apply(Reshape(shape=(*shape[:-1], out)), y)

    def partner(self, x: str) -> str:
        """A value of the same shape as `x`: an older one, `x` itself, a constant, or a new one."""
        if self.chance.rarely(8):
            return self.fixed(self.shape(x))
        twins = [n for n in self.values if self.shape(n) == self.shape(x) and (self.code(n) is None) == self._float]
        return self.mixed(x) if self.chance.rarely(2) else self.chance.one_of(twins)

    def _wide(self, name: str) -> bool:
        code = self._codes[name]
        return code is not None and is_wide(code)

    @property
    def _float(self) -> bool:
        return self.rounding is None

    def _record(self, name: str, real: Array, quant: Quant | None) -> str:
        self._codes[name] = quant
        self._samples[name] = real if quant is None else quant.decode(quant.encode(real))
        return name

    def _constant(self, value: Array, quant: Quant | None) -> str:
        self._constants += 1
        return self._builder.constant(f"c{self._constants}", value, quant)

    def _alike(self, inputs: Sequence[str]) -> tuple[str, ...]:
        """The operands in one code."""
        wide = self.chance.one_of([self._wide(n) for n in inputs])
        common = self.fitting(np.concatenate([self._samples[n].ravel() for n in inputs]), wide=wide)
        alike: list[str] = []
        for name in inputs:
            if self._codes[name] != common:
                real = self._samples[name]
                name = self._record(self._builder.add(Requantize(), name, quant=common), real, common)
            alike.append(name)
        return tuple(alike)

    def _stored(self, op: Op, codes: Codes, constants: Sequence[Array]) -> list[tuple[Array, Quant | None]]:
        """Constants as a graph stores them: float32, or weight and bias in random codes."""
        source, axis = codes[0], op.channel_axis
        if self.rounding is None or not constants:
            return [(c.astype(np.float32), None) for c in constants]
        if source is None or axis is None:
            raise GraphError("has no integer form of its constants")
        weight, bias = constants
        shared = self.chance.rarely(4)
        others = None if shared else tuple(i for i in range(weight.ndim) if i != axis)
        bits = self.chance.one_of((8, 8, 8, 4, 2, 1, 3, 5, 6, 7) + ((16, 12) if is_wide(source) else ()))
        taps = symmetric(np.abs(weight).max(axis=others), bits, None if shared else axis)
        if self._halves:
            taps = replace(taps, scale=tuple(_power_above(scale) for scale in taps.scale))
        sums, values = bias_code(source, taps), np.maximum(taps.encode(weight), -taps.highest)
        if is_wide(source) and self.chance.rarely(3):
            short = replace(sums, bits=32)
            sums = short if largest_sum(source, values, short.encode(bias), axis) < 2**31 else sums
        return [(values, taps), (sums.encode(bias), sums)]

    def _result_code(self, op: Op, codes: Codes, shapes: Sequence[Shape], real: Array) -> Quant | None:
        """The code that the operation forces, or one that fits its result and is not far finer than its operands'."""
        if self.rounding is None or isinstance(op, Dequantize):
            return None
        coarsest = max((code.scale[0] for code in codes if code is not None), default=0.0)
        wide = any(is_wide(code) for code in codes if code is not None)
        if op.converts or isinstance(op, Quantize):
            wide = self.chance.rarely(3)
        return op.code(codes, shapes) or self.fitting(real, floor=coarsest * (3000 if wide else 0.01), wide=wide)

    def _window_side(self, size: int) -> tuple[int, int, int, int, int]:
        kernel, stride, dilation = (self.chance.integer(1, most) for most in (4, 3, 3))
        reach = (kernel - 1) * dilation + 1
        before, after = (self.chance.integer(0, min(reach - 1, 3)) for _ in range(2))
        if size + before + after < reach:
            kernel, dilation, before, after = min(kernel, size), 1, 0, 0
        return kernel, stride, dilation, before, after


def _power_above(value: float) -> float:
    """The least power of two that is not below a positive value."""
    return 2.0 ** math.ceil(math.log2(value))


Apply = Callable[[Growth, str], str]
"""Applies an operation with random attributes to a value; returns the result."""


@final
@dataclass(frozen=True, slots=True)
class Example:
    """How to apply an operation at random, and the rank that its operand must have (None: any)."""

    apply: Apply
    rank: int | None = None


def _conv2d(growth: Growth, x: str) -> str:
    windows, channels = growth.windows(growth.shape(x)), growth.shape(x)[2]
    groups = growth.chance.one_of([1, 1, *(g for g in range(1, channels + 1) if channels % g == 0)])
    out = groups * growth.chance.integer(1, 4)
    constants = growth.weights(out, *windows.kernel, channels // groups), growth.weights(out)
    return growth.apply(Conv2d(windows=windows, groups=groups, activation=_activation(growth)), x, constants=constants)


def _depthwise(growth: Growth, x: str) -> str:
    windows, multiplier = growth.windows(growth.shape(x)), growth.chance.one_of((1, 1, 2, 3))
    out = growth.shape(x)[2] * multiplier
    op = DepthwiseConv2d(windows=windows, multiplier=multiplier, activation=_activation(growth))
    return growth.apply(op, x, constants=(growth.weights(*windows.kernel, out), growth.weights(out)))


def _dense(growth: Growth, x: str) -> str:
    out, size = growth.chance.integer(1, 12), growth.shape(x)[0]
    constants = growth.weights(out, size), growth.weights(out)
    return growth.apply(Dense(activation=_activation(growth)), x, constants=constants)


def _batch_norm(growth: Growth, x: str) -> str:
    rng, channels = growth.chance.rng(), growth.shape(x)[-1]
    constants = *rng.normal(size=(3, channels)), rng.uniform(0.2, 3.0, channels)
    return growth.apply(BatchNorm(epsilon=growth.chance.one_of((1e-3, 1e-5))), x, constants=constants)


def _pool(kind: type[MaxPool] | type[AveragePool]) -> Apply:
    def apply(growth: Growth, x: str) -> str:
        windows, shape = growth.windows(growth.shape(x)), growth.shape(x)
        try:
            return growth.apply(kind(windows=windows), x)
        except GraphError:  # some window lies wholly in the padding
            size = min(windows.kernel[0], shape[0]), min(windows.kernel[1], shape[1])
            return growth.apply(kind(windows=Windows(kernel=size, stride=windows.stride)), x)

    return apply


def _pad(growth: Growth, x: str) -> str:
    top, bottom, left, right = (growth.chance.integer(0, 2) for _ in range(4))
    return growth.apply(Pad(margins=(top, bottom, left, right)), x)


def _concat(growth: Growth, x: str) -> str:
    axis = growth.chance.integer(-1, len(growth.shape(x)) - 1)
    parts = [x, *(growth.partner(x) for _ in range(growth.chance.integer(0, 2)))]
    if axis in (-1, len(growth.shape(x)) - 1) and growth.chance.rarely(2):
        parts.append(growth.mixed(x, growth.chance.integer(1, 4)))
    return growth.apply(Concat(axis=axis), *parts)


def _reshape(growth: Growth, x: str) -> str:
    shape, size = growth.shape(x), math.prod(growth.shape(x))
    divisor = growth.chance.one_of([d for d in range(1, size + 1) if size % d == 0])
    shapes = (size,), (size // shape[-1], shape[-1]), (divisor, size // divisor), (1, size // divisor, divisor)
    return growth.apply(Reshape(shape=growth.chance.one_of(shapes)), x)


def _transpose(growth: Growth, x: str) -> str:
    axes = tuple(growth.chance.rng().permutation(len(growth.shape(x))).tolist())
    last = len(axes) - 1  # mostly the channels stay last, so that they can still be removed
    kept = (*(axis for axis in axes if axis != last), last)
    return growth.apply(Transpose(permutation=axes if growth.chance.rarely(3) else kept), x)


def _combined(kind: type[Add] | type[Mul]) -> Apply:
    return lambda growth, x: growth.apply(kind(activation=_activation(growth)), x, growth.partner(x))


def _activation(growth: Growth) -> Activation:
    return growth.chance.one_of(tuple(Activation))


EXAMPLES: Mapping[type[Op], Example] = MappingProxyType(
    {
        Add: Example(_combined(Add)),
        AveragePool: Example(_pool(AveragePool), 3),
        BatchNorm: Example(_batch_norm),
        Concat: Example(_concat),
        Constant: Example(lambda growth, x: growth.fixed(growth.shape(x))),
        Conv2d: Example(_conv2d, 3),
        Dense: Example(_dense, 1),
        DepthwiseConv2d: Example(_depthwise, 3),
        GlobalMean: Example(lambda growth, x: growth.apply(GlobalMean(), x), 3),
        LeakyRelu: Example(lambda growth, x: growth.apply(LeakyRelu(slope=growth.chance.between(0, 1)), x)),
        MaxPool: Example(_pool(MaxPool), 3),
        Mul: Example(_combined(Mul)),
        Pad: Example(_pad, 3),
        Reshape: Example(_reshape),
        Transpose: Example(_transpose),
    }
)
"""How to apply the operations that have attributes, constants or a rank. Any other one needs no row."""


def example(op: type[Op]) -> Example:
    """How to apply an operation: its row, or without attributes to as many values of one shape as it takes."""

    def plain(growth: Growth, x: str) -> str:
        return growth.apply(op(), x, *(growth.partner(x) for _ in op.operands[1:]))

    return EXAMPLES.get(op, Example(plain))


def has_integers(op: type[Op]) -> bool:
    """True if the operation has an integer meaning: a kernel, or it only renames bytes."""
    return bool(op.kernel) or op.is_view


def has_wide_integers(op: type[Op]) -> bool:
    """True if the operation has a meaning on codes of more than 8 bits."""
    return bool(op.wide_kernel) or op.is_view


def operation_graph(chance: Chance, op: type[Op], rounding: Rounding | None, *, wide: bool = False) -> Graph:
    """A network of one input that ends in `op`; before it only what gives it several different operands.

    With `wide` its input has a code of more than 8 bits.
    """
    growth, row = Growth(chance, rounding), example(op)
    rank = row.rank or chance.integer(1, 3)
    high, across, channels = chance.integer(1, 8), chance.integer(1, 8), chance.integer(1, 6)
    shape = {1: (channels * across,), 2: (high * across, channels), 3: (high, across, channels)}[rank]
    x = growth.input(shape, coded=rounding is not None and op is not Quantize, wide=wide)
    return growth.graph(row.apply(growth, x))


def float_graph(chance: Chance) -> Graph:
    """A random float network of several operations, mostly a classifier."""
    return _network(chance, None)


def integer_graph(chance: Chance, rounding: Rounding) -> Graph:
    """A random integer network of several operations; its input and output are sometimes float32."""
    return _network(chance, rounding)


def _network(chance: Chance, rounding: Rounding | None) -> Graph:
    growth = Growth(chance, rounding)
    coded = rounding is not None and not chance.rarely(3)
    shape = chance.integer(2, 7), chance.integer(2, 7), chance.integer(1, 4)
    x = growth.input(shape, coded=coded, wide=chance.rarely(4))
    if rounding is not None and not coded:
        x = growth.apply(Quantize(), x)
    kinds = [op for op in OPS if op not in (Quantize, Dequantize) and (rounding is None or has_integers(op))]
    kinds += [op for op in kinds if op in EXAMPLES and op not in (Constant, GlobalMean, Reshape, Transpose)] * 2
    if not chance.rarely(4):
        x = _conv2d(growth, x)
    for _ in range(chance.integer(1, 8)):
        row, x = example(chance.one_of(kinds)), chance.one_of(growth.values[-1:-4:-1])
        if row.rank in (None, len(growth.shape(x))) and (rounding is None or growth.code(x) is not None):
            _try(growth, row, x)
    y = growth.values[-1]
    if not chance.rarely(4):
        size = math.prod(growth.shape(y))
        y = _dense(growth, y if len(growth.shape(y)) == 1 else growth.apply(Reshape(shape=(size,)), y))
        if chance.rarely(2):
            _try(growth, example(Softmax), y)
            y = growth.values[-1]
    if rounding is not None and chance.rarely(3):
        y = growth.apply(Dequantize(), y)
    return growth.graph(y)


def _try(growth: Growth, row: Example, x: str) -> None:
    """Apply an operation unless it has no meaning here or the value is large already."""
    if math.prod(growth.shape(x)) <= _LARGEST:
        try:
            row.apply(growth, x)
        except GraphError:
            return

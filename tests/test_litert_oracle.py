"""The integer meaning of each operation against LiteRT's kernels, byte by byte, under each rounding rule.

For codes of more than 8 bits: docs/adr/0006-number-codes.md.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from crosslayer.core.fixed import Rounding, doubling_high
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Shape, rescaler, scalar, table
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Mul,
    Relu,
    Relu6,
    Requantize,
    Sigmoid,
    Softmax,
    Tanh,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.graph.ops.windows import same
from crosslayer.core.quant import Array, Quant
from crosslayer.evaluate.litert import answer
from crosslayer.execute import exact, reference
from crosslayer.execute.litert import Kernels, run
from crosslayer.write.tflite import write_tflite

MODELS = 240
"""Random models for each operation and rule; at least 200 of them have different shapes."""

Draw = Callable[[np.random.Generator, Rounding], Graph]
"""A random one-node graph."""


def draw_conv(rng: np.random.Generator, rounding: Rounding) -> Graph:
    x, windows = draw_windows(rng)
    groups = int(rng.choice([g for g in (1, 2, 3, 4) if x[2] % g == 0])) if rng.random() < 0.2 else 1
    outputs = groups * int(rng.integers(1, 20))
    weight = draw_weight(rng, (outputs, *windows.kernel, x[2] // groups))
    op = Conv2d(windows=windows, groups=groups, activation=draw_activation(rng))
    return draw_layer(rng, rounding, op, x, weight)


def draw_depthwise(rng: np.random.Generator, rounding: Rounding) -> Graph:
    x, windows = draw_windows(rng)
    multiplier = int(rng.choice([1, 1, 2, 3, 8]))
    weight = draw_weight(rng, (*windows.kernel, x[2] * multiplier))
    op = DepthwiseConv2d(windows=windows, multiplier=multiplier, activation=draw_activation(rng))
    return draw_layer(rng, rounding, op, x, weight)


def draw_dense(rng: np.random.Generator, rounding: Rounding) -> Graph:
    inputs, outputs = int(rng.integers(1, rng.choice([2, 9, 65, 701]))), int(rng.integers(1, 65))
    weight = draw_weight(rng, (outputs, inputs))
    return draw_layer(rng, rounding, Dense(activation=draw_activation(rng)), (inputs,), weight)


def draw_max_pool(rng: np.random.Generator, rounding: Rounding) -> Graph:
    x, windows = draw_windows(rng, dilated=False)
    b = Builder(rounding)
    return b.graph(b.add(MaxPool(windows=windows), b.input("x", x, draw_code(rng))))


def draw_average_pool(rng: np.random.Generator, rounding: Rounding) -> Graph:
    x, windows = draw_windows(rng, dilated=False)
    b = Builder(rounding)
    return b.graph(b.add(AveragePool(windows=windows), b.input("x", x, draw_code(rng))))


def draw_global_mean(rng: np.random.Generator, rounding: Rounding) -> Graph:
    shape, code = draw_shape(rng), draw_code(rng)
    other = replace(draw_code(rng), scale=(code.scale[0] * 2.0 ** rng.uniform(-3, 1),))
    b = Builder(rounding)
    return b.graph(b.add(GlobalMean(), b.input("x", shape, code), quant=code if rng.random() < 0.3 else other))


def draw_add(rng: np.random.Generator, rounding: Rounding) -> Graph:
    shape, apart = draw_shape(rng), np.array([rng.uniform(-4, 4), rng.uniform(-2, 4)])
    if rng.random() < 0.3:
        apart = np.rint(apart)  # scales that are powers of two apart make exact ties
    a, b, y = draw_code(rng), draw_code(rng), draw_code(rng)
    b = replace(b, scale=(a.scale[0] * 2.0 ** apart[0],))
    y = replace(y, scale=(draw_step(rng, max(a.scale[0], b.scale[0]) * 2.0 ** apart[1]),))
    builder = Builder(rounding)
    inputs = builder.input("a", shape, a), builder.input("b", shape, b)
    return builder.graph(builder.add(Add(activation=draw_activation(rng)), *inputs, quant=y))


def draw_mul(rng: np.random.Generator, rounding: Rounding) -> Graph:
    shape, a, b = draw_shape(rng), draw_code(rng), draw_code(rng)
    apart = rng.uniform(4, 9) if rng.random() < 0.7 else rng.integers(4, 9)  # a power of two makes exact ties
    step = draw_step(rng, a.scale[0] * b.scale[0] * 2.0**apart)
    builder = Builder(rounding)
    inputs = builder.input("a", shape, a), builder.input("b", shape, b)
    y = replace(draw_code(rng), scale=(step,))
    return builder.graph(builder.add(Mul(activation=draw_activation(rng)), *inputs, quant=y))


def draw_softmax(rng: np.random.Generator, rounding: Rounding) -> Graph:
    shape = draw_shape(rng) if rng.random() < 0.3 else (int(rng.integers(1, 300)),)
    code = draw_code(rng)
    if rng.random() < 0.3:  # the share of the larger of two classes, some codes apart, is a tie
        shape, share = (int(rng.integers(50, 200)), 1, 2), int(rng.integers(128, 255)) + 0.5
        code = replace(code, scale=(np.log(share / (256 - share)) / int(rng.integers(1, 128)),))
    b = Builder(rounding)
    return b.graph(b.add(Softmax(), b.input("x", shape, code)))


DRAWS: Mapping[str, Draw] = {
    "conv": draw_conv,
    "depthwise": draw_depthwise,
    "dense": draw_dense,
    "max_pool": draw_max_pool,
    "average_pool": draw_average_pool,
    "global_mean": draw_global_mean,
    "add": draw_add,
    "mul": draw_mul,
    "softmax": draw_softmax,
}


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("op", DRAWS)
def test_integers_are_those_of_litert(op: str, rounding: Rounding) -> None:
    shapes: set[object] = set()
    for number in range(MODELS):
        rng = random_for(op, rounding, number)
        graph = DRAWS[op](rng, rounding)
        inputs = draw_inputs(rng, graph)
        expected = answer(graph, inputs)
        shapes.add((graph.nodes[0].op, *(kind.shape for kind in graph.types.values())))
        for ours in our_answers(graph, inputs):
            differing = np.count_nonzero(ours != expected)
            assert differing == 0, f"model {number}: {differing} of {ours.size} bytes differ: {graph.nodes[0].op}"
    assert len(shapes) >= 200


WIDE_MODELS = 60
WIDE_LAYERS: Mapping[str, tuple[str, int, int]] = {  # draw, bits of the weights, bits of the bias
    "conv": ("conv", 8, 64),
    "conv with int32 bias": ("conv", 3, 32),
    "depthwise": ("depthwise", 8, 64),
    "dense": ("dense", 8, 64),
    "dense with int32 bias": ("dense", 3, 32),
    "dense with int16 weights": ("dense", 16, 64),
    "dense with int16 weights and int32 bias": ("dense", 12, 32),
}


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("layer", WIDE_LAYERS)
def test_layers_of_16_bits_are_those_of_litert(layer: str, rounding: Rounding) -> None:
    draw, bits, bias_bits = WIDE_LAYERS[layer]
    if rounding is Rounding.FLOAT and (bits, bias_bits) == (3, 32):
        pytest.skip("LiteRT's optimised kernels of int32 biases round the second tie upward")
    for number in range(WIDE_MODELS):
        rng = random_for(layer, rounding, number)
        check_litert(number, draw_wide_layer(rng, rounding, draw, bits, bias_bits), rng)


WIDE_OPS: Mapping[str, Draw] = {
    "max_pool": lambda rng, rounding: draw_wide_pool(rng, rounding, MaxPool),
    "average_pool": lambda rng, rounding: draw_wide_pool(rng, rounding, AveragePool),
    "global_mean": lambda rng, rounding: draw_wide(rng, rounding, GlobalMean()),
    "add": lambda rng, rounding: draw_wide_pair(rng, rounding, Add(activation=draw_activation(rng))),
    "mul": lambda rng, rounding: draw_wide_pair(rng, rounding, Mul(activation=draw_activation(rng))),
    "relu": lambda rng, rounding: draw_wide(rng, rounding, Relu()),
    "relu6": lambda rng, rounding: draw_wide(rng, rounding, Relu6()),
    "leaky_relu": lambda rng, rounding: draw_wide(rng, rounding, LeakyRelu(slope=float(np.float32(rng.random())))),
    "sigmoid": lambda rng, rounding: draw_wide(rng, rounding, Sigmoid()),
    "tanh": lambda rng, rounding: draw_wide(rng, rounding, Tanh()),
    "softmax": lambda rng, rounding: draw_wide(rng, rounding, Softmax()),
    "requantize": lambda rng, rounding: draw_wide(rng, rounding, Requantize()),
    "requantize from 8 bits": lambda rng, rounding: draw_wide(rng, rounding, Requantize(), bits=(8, 16)),
    "requantize to 8 bits": lambda rng, rounding: draw_wide(rng, rounding, Requantize(), bits=(16, 8)),
}


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("op", WIDE_OPS)
def test_operations_on_16_bits_are_those_of_litert(op: str, rounding: Rounding) -> None:
    for number in range(WIDE_MODELS):
        rng = random_for(op, rounding, number)
        check_litert(number, WIDE_OPS[op](rng, rounding), rng)


def check_litert(number: int, graph: Graph, rng: np.random.Generator) -> None:
    """Raises `AssertionError` if LiteRT answers otherwise."""
    inputs = draw_inputs(rng, graph)
    expected = answer(graph, inputs)
    for ours in our_answers(graph, inputs):
        differing = np.count_nonzero(ours != expected)
        assert differing == 0, f"model {number}: {differing} of {ours.size} codes differ: {graph.nodes[0].op}"


def draw_wide_layer(rng: np.random.Generator, rounding: Rounding, kind: str, bits: int, bias_bits: int) -> Graph:
    """The layer of another draw with int16 activations; half of its sums of zeros are near a rounding tie."""
    other = {"conv": draw_conv, "depthwise": draw_depthwise, "dense": draw_dense}[kind](rng, rounding)
    (node,), (x, weight, bias) = other.nodes, other.nodes[0].inputs
    top, dtype = 2 ** (bits - 1) - 1, np.int8 if bits <= 8 else np.int16
    values = rng.integers(-top, top + 1, other.types[weight].shape).astype(dtype)
    taps, source, channels = other.types[weight].quant, draw_wide_code(rng, rounding), other.types[bias].size
    assert taps is not None
    taps = replace(taps, bits=bits)
    sums = 0.33 * top * 2.0**15 * np.sqrt(values.size / channels)  # the typical size of a sum of products
    step = taps.scale[0] * source.scale[0] * sums / 2.0 ** rng.uniform(12, 15)
    ties = (rng.integers(-33000, 33000, channels) + 0.5) * step / (source.scale[0] * np.array(taps.scale))
    near = np.rint(ties) + rng.integers(-1, 2, channels)
    largest = 2.0 ** (30 if bias_bits == 32 else 40)
    drawn = np.where(rng.random(channels) < 0.5, near, rng.uniform(-sums, sums, channels))
    b = Builder(rounding)
    result = b.add(
        node.op,
        b.input("x", other.types[x].shape, source),
        b.constant("weight", values, taps),
        b.constant("bias", np.clip(drawn, -largest, largest), replace(bias_code(source, taps), bits=bias_bits)),
        quant=Quant(bits=16, scale=(step,)),
    )
    return b.graph(result)


def draw_wide(rng: np.random.Generator, rounding: Rounding, op: Op, bits: tuple[int, int] = (16, 16)) -> Graph:
    """An operation on one value, with another code for its result unless it forces one."""
    source = draw_wide_code(rng, rounding) if bits[0] == 16 else draw_code(rng)
    apart = rng.uniform(-2, 3) if rng.random() < 0.6 else rng.integers(-2, 4)  # a power of two makes exact ties
    scale = source.scale[0] * 2.0 ** (apart + bits[0] - bits[1])
    result = Quant(bits=bits[1], scale=(scale,), zero=(draw_code(rng).zero[0] if bits[1] == 8 else 0,))
    b, shape = Builder(rounding), draw_shape(rng)
    forced = op.code([source], [shape])
    return b.graph(b.add(op, b.input("x", shape, source), quant=forced or result))


def draw_wide_pair(rng: np.random.Generator, rounding: Rounding, op: Add | Mul) -> Graph:
    """An operation on two values."""
    a, b = draw_wide_code(rng, rounding), draw_wide_code(rng, rounding)
    apart, between = (rng.uniform(-4, 4), rng.uniform(-2, 4)) if rng.random() < 0.7 else rng.integers(-2, 5, 2)
    if isinstance(op, Add):
        b = replace(b, scale=(a.scale[0] * 2.0**apart,))
        scale = max(a.scale[0], b.scale[0]) * 2.0**between
    else:
        scale = a.scale[0] * b.scale[0] * 2.0 ** (between + 13)
    builder, shape = Builder(rounding), draw_shape(rng)
    inputs = builder.input("a", shape, a), builder.input("b", shape, b)
    return builder.graph(builder.add(op, *inputs, quant=Quant(bits=16, scale=(scale,))))


def draw_wide_pool(rng: np.random.Generator, rounding: Rounding, kind: type[MaxPool] | type[AveragePool]) -> Graph:
    x, windows = draw_windows(rng, dilated=False)
    b = Builder(rounding)
    return b.graph(b.add(kind(windows=windows), b.input("x", x, draw_wide_code(rng, rounding))))


def draw_wide_code(rng: np.random.Generator, rounding: Rounding) -> Quant:
    """Any scale, or one that makes ties likely; LiteRT's optimised tanh and sigmoid treat 2^-12 and 2^-11 apart."""
    apart = () if rounding is Rounding.FLOAT else (-12, -11)
    power = 2.0 ** rng.choice([-16, -15, -14, -13, -10, -9, *apart])
    return Quant(bits=16, scale=(float(power if rng.random() < 0.3 else np.exp(rng.uniform(-10, -5))),))


def test_the_optimised_dense_kernel_differs_from_the_double_rule_in_ties_alone() -> None:
    """It rounds the shift's halves up, not away from zero; the factor and the first rounding are ours."""
    for number in range(MODELS):
        rng = random_for("optimised dense", Rounding.DOUBLE, number)
        graph = draw_dense(rng, Rounding.DOUBLE)
        (codes,) = draw_inputs(rng, graph)
        params = graph.lowered[graph.nodes[0].name]
        factor, centred = rescaler(params), codes.astype(np.int64) - scalar(params, "zero_in")
        sums = centred @ table(params, "weight").astype(np.int64).T + table(params, "bias")
        right = np.maximum(-factor.shift.astype(np.int64), 0)
        high = doubling_high(sums << np.maximum(factor.shift, 0), factor.mult)
        rounded = (high + ((1 << right) >> 1)) >> right
        ours = np.clip(rounded + scalar(params, "zero_out"), scalar(params, "low"), scalar(params, "high"))
        assert np.array_equal(ours, run(write_tflite(graph, batch=len(codes)), [codes], Kernels.OPTIMISED)), (
            f"model {number}"
        )


def draw_shape(rng: np.random.Generator) -> Shape:
    high, wide = rng.integers(1, 13, 2).tolist()
    return high, wide, int(rng.choice([1, 2, 3, 4, 6, 8, 12, 16, 24, 33]))


def draw_windows(rng: np.random.Generator, *, dilated: bool = True) -> tuple[Shape, Windows]:
    """An input shape and windows that TFLite can express on it: SAME or VALID, strided, dilated."""
    while True:
        x = draw_shape(rng)
        kernel, stride = tuple(rng.integers(1, 6, 2).tolist()), tuple(rng.integers(1, 4, 2).tolist())
        dilation = tuple(rng.integers(1, 4, 2).tolist()) if dilated and rng.random() < 0.3 else (1, 1)
        padding = same(x, kernel, stride, dilation) if rng.random() < 0.5 else (0, 0, 0, 0)
        windows = Windows(kernel=kernel, stride=stride, dilation=dilation, padding=padding)
        span = windows.reach()
        if x[0] + sum(padding[:2]) >= span[0] and x[1] + sum(padding[2:]) >= span[1]:
            return x, windows


def draw_activation(rng: np.random.Generator) -> Activation:
    return list(Activation)[rng.integers(3)]


def draw_code(rng: np.random.Generator) -> Quant:
    """Any scale, or one that makes ties likely; any zero, the ends included."""
    scale = float(2.0 ** rng.integers(-8, 1)) if rng.random() < 0.3 else float(np.exp(rng.uniform(-7, 0)))
    return Quant(bits=8, scale=(scale,), zero=(int(rng.choice([-128, 127, *rng.integers(-128, 128, 4)])),))


def draw_step(rng: np.random.Generator, scale: float) -> float:
    """About `scale`, or a scale near it for which the upper bound of ReLU6 lies between two codes."""
    return 12.0 / (2 * max(round(6.0 / scale), 0) + 1) if rng.random() < 0.3 and scale < 12 else scale


def draw_weight(rng: np.random.Generator, shape: Shape) -> Array:
    """Uniform codes, sometimes extremes only."""
    if rng.random() < 0.2:
        return rng.choice(np.array([-127, 127], np.int8), shape)
    return rng.integers(-127, 128, shape).astype(np.int8)


def draw_layer(
    rng: np.random.Generator, rounding: Rounding, op: Conv2d | DepthwiseConv2d | Dense, x: Shape, weight: Array
) -> Graph:
    """`op` with biases that bring half of the sums of an input of zeros as near to a rounding tie as integers can."""
    source, axis = draw_code(rng), op.channel_axis
    assert axis is not None
    channels = weight.shape[axis]
    spread = np.exp(rng.uniform(-1, 1, channels if channels > 1 and rng.random() < 0.7 else 1))
    spread = np.exp2(np.round(np.log2(spread))) if rng.random() < 0.3 else spread
    scales = (np.exp(rng.uniform(-9, -2)) * spread).tolist()
    taps = Quant(bits=8, scale=tuple(scales), axis=axis if len(scales) > 1 else None)
    sums = 74.0 * 73.0 * np.sqrt(weight.size / channels)  # the typical size of a sum of products
    small, large = rng.uniform(3, 12), rng.uniform(20, 29)  # factors above 1; biases beyond float32's integers
    reach = rng.choice([sums, 2.0**small, 2.0**large], p=[0.6, 0.1, 0.3])
    step = draw_step(rng, taps.scale[0] * source.scale[0] * reach / 2.0 ** rng.uniform(4, 7))
    result = Quant(bits=8, scale=(step,), zero=draw_code(rng).zero)
    ties = (rng.integers(-140, 140, channels) + 0.5) * result.scale[0] / (source.scale[0] * np.array(taps.scale))
    near = np.rint(ties) + rng.integers(-1, 2, channels)
    bias = np.where(rng.random(channels) < 0.5, near, rng.uniform(-sums, sums, channels))
    bias = np.clip(bias, -(2.0**30), 2.0**30).astype(np.int32)
    b = Builder(rounding)
    node = b.add(
        op,
        b.input("x", x, source),
        b.constant("weight", weight, taps),
        b.constant("bias", bias, bias_code(source, taps)),
        quant=result,
    )
    return b.graph(node)


def draw_inputs(rng: np.random.Generator, graph: Graph) -> list[Array]:
    """For each input a batch: both ends, ends at random, zero, noise around it, and uniform codes."""
    batches: list[Array] = []
    for name in graph.inputs:
        kind = graph.types[name]
        assert kind.quant is not None
        zero, low, high = kind.quant.zero[0], kind.quant.lowest, kind.quant.highest
        samples = [
            *(np.full(kind.shape, v) for v in (low, high, zero)),
            rng.choice(np.array([low, high]), kind.shape),
            *(np.clip(zero + rng.integers(-width, width + 1, kind.shape), low, high) for width in (2, high // 4)),
            *rng.integers(low, high + 1, (2, *kind.shape)),
        ]
        order = rng.permutation(len(samples)) if batches else range(len(samples))
        batches.append(np.stack([samples[i] for i in order]).astype(kind.quant.dtype))
    return batches


def our_answers(graph: Graph, inputs: list[Array]) -> list[Array]:
    """The judge's and the fast executor's; `run` takes graphs with one input only."""
    if len(inputs) == 1:
        return [reference.run(graph, inputs[0]), exact.run(graph, inputs[0])]
    (node,) = graph.nodes
    return [reference.evaluate(graph, node, inputs), exact.evaluate(graph, node, inputs)]


def random_for(op: str, rounding: Rounding, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(f"{op} {rounding}".encode()), number])

"""Integer graphs made smaller: the same bytes for every input, and what can be known without any input."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import (
    OPS,
    Activation,
    Add,
    AveragePool,
    Clamp,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Relu,
    Requantize,
    Reshape,
    Tanh,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant
from crosslayer.execute import exact, reference
from crosslayer.execute.intervals import bounds
from crosslayer.read.tflite import read_tflite
from crosslayer.simplify.constants import remove_constant_channels
from crosslayer.simplify.integers import simplification, simplify_integers
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import check_executors, random_inputs
from crosslayer.testing.graphs import float_graph, has_integers, integer_graph, operation_graph

CODE = Quant(bits=8, scale=(0.1,), zero=(-3,))
POINT = Windows(kernel=(1, 1))
SAME = Windows(kernel=(3, 3), padding=(1, 1, 1, 1))
FAR = 1 << 28  # in a bias: beyond what the inputs of these layers can make up for


def sharpened(chance: Chance) -> Graph:
    """A random integer network in which many channels are constant or unread: biases far out, weights of zero."""
    graph = integer_graph(chance, chance.one_of(tuple(Rounding)))
    constants = dict(graph.constants)
    for node in graph.nodes:
        if node.op.channel_axis is not None:
            rng, (weight, bias) = chance.rng(), node.inputs[1:]
            far = rng.choice([0, 0, -FAR, FAR], len(constants[bias]))
            constants[bias] = np.where(far == 0, constants[bias], far).astype(constants[bias].dtype)
            quant = graph.types[weight].quant
            if quant is not None and quant.bits > 1:  # 1 bit has no code for zero
                constants[weight] = constants[weight] * rng.choice([0, 1, 1], constants[weight].shape[-1]).astype("i1")
    return replace(graph, constants=constants)


def check_same(before: Graph, after: Graph, x: Array) -> None:
    with np.errstate(all="ignore"):  # float inputs hold infinities
        truth = reference.run(before, x)
        assert exact.run(after, x).tobytes() == truth.tobytes()
        assert reference.run(after, x).tobytes() == truth.tobytes()
    assert sum(after.macs.values()) <= sum(before.macs.values())
    assert after.parameters <= before.parameters and len(after.nodes) <= len(before.nodes)


def check_bounds(graph: Graph, x: Array) -> None:
    found = bounds(graph)
    with np.errstate(all="ignore"):
        values = exact.trace(graph, x)
    for name, ends in found.items():
        assert ends.low.shape == (1, *graph.types[name].shape)
        assert (values[name] >= ends.low).all() and (values[name] <= ends.high).all(), name


# any network


@settings(max_examples=150, deadline=None)
@given(grown(sharpened))
def test_simpler_networks_give_the_same_bytes(graph: Graph) -> None:
    x = random_inputs(graph, Seeded(0), 9)
    check_same(graph, remove_constant_channels(graph), x)
    check_same(graph, simplify_integers(graph), x)


@settings(max_examples=100, deadline=None)
@given(grown(sharpened))
def test_no_value_leaves_its_bounds(graph: Graph) -> None:
    check_bounds(graph, random_inputs(graph, Seeded(0), 9))


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("op", [op for op in OPS if has_integers(op)])
def test_no_result_of_an_operation_leaves_its_bounds(op: type[Op], rounding: Rounding) -> None:
    for seed in range(12):
        graph = operation_graph(Seeded(seed), op, rounding)
        check_bounds(graph, random_inputs(graph, Seeded(seed, 1), 30))


def test_many_random_networks_lose_channels() -> None:
    """So that the properties above say something."""
    graphs = [sharpened(Seeded(seed)) for seed in range(60)]
    assert sum(remove_constant_channels(graph).parameters < graph.parameters for graph in graphs) >= 12


@settings(max_examples=20, deadline=None)
@given(grown(float_graph))
def test_float_networks_stay_as_they_are(graph: Graph) -> None:
    assert simplify_integers(graph) is graph


# what is known of values


def layer(
    b: Builder, op: Op, x: str, weight: Array, bias: Array, name: str, *, scale: float = 0.2, each: bool = False
) -> str:
    """A convolution or dense layer of these codes; with `each`, one scale (all alike) per channel."""
    code, axis = b.code(x), op.channel_axis
    assert code is not None and axis is not None
    taps = Quant(bits=8, scale=(0.01,) * (weight.shape[axis] if each else 1), axis=axis if each else None)
    names = b.constant(f"{name}.w", weight, taps), b.constant(f"{name}.b", bias, bias_code(code, taps))
    return b.add(op, x, *names, name=name, quant=replace(CODE, scale=(scale,)))


def every_input(graph: Graph) -> Array:
    """All inputs of a network of few values of few bits."""
    kind = graph.types[graph.inputs[0]]
    assert kind.quant is not None
    codes = range(kind.quant.lowest, kind.quant.highest + 1)
    return np.array(list(itertools.product(codes, repeat=kind.size)), np.int8).reshape(-1, *kind.shape)


LAYERS: list[tuple[Op, tuple[int, ...], tuple[int, ...]]] = [  # operation, input, weight
    (Dense(), (4,), (5, 4)),
    (Conv2d(windows=Windows(kernel=(1, 3), padding=(0, 0, 1, 1))), (1, 2, 2), (5, 1, 3, 2)),
    (Conv2d(windows=Windows(kernel=(1, 2), padding=(0, 0, 1, 0)), groups=2), (1, 2, 2), (4, 1, 2, 1)),
    (DepthwiseConv2d(windows=Windows(kernel=(1, 3), padding=(0, 0, 1, 1)), multiplier=2), (1, 2, 2), (1, 3, 4)),
]


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(("op", "shape", "weight"), LAYERS)
def test_bounds_of_a_layer_are_reached_at_every_place(
    op: Op, shape: tuple[int, ...], weight: tuple[int, ...], rounding: Rounding
) -> None:
    rng, b = np.random.default_rng(len(weight)), Builder(rounding)
    x = b.input("x", shape, Quant(bits=3, scale=(0.1,), zero=(1,)))
    out = weight[op.channel_axis or 0]
    y = layer(b, op, x, rng.integers(-127, 128, weight), rng.integers(-99, 99, out), "y", scale=0.003)
    graph = b.graph(y)
    values, found = exact.run(graph, every_input(graph)), bounds(graph)[y]
    assert np.array_equal(values.min(0, keepdims=True), found.low)
    assert np.array_equal(values.max(0, keepdims=True), found.high)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(
    "op",
    [HardSwish(), LeakyRelu(slope=-0.5), Tanh(), Relu(), Requantize(), Add(), Mul(activation=Activation.RELU)],
    ids=lambda op: type(op).__name__,
)
def test_bounds_of_an_operation_on_one_value_are_reached(op: Op, rounding: Rounding) -> None:
    b = Builder(rounding)
    x = b.input("x", (1, 1, 2), CODE)
    rng = np.random.default_rng(0)
    pair = [
        layer(b, Conv2d(windows=POINT), x, weight, rng.integers(-999, 999, 3), f"y{i}", scale=0.1)
        for i, weight in enumerate((np.eye(3, 2).reshape(3, 1, 1, 2) * (50, -90), np.zeros((3, 1, 1, 2))))
    ]
    y = b.add(op, *pair[: len(op.operands)], quant=Quant(bits=8, scale=(0.05,), zero=(7,)))
    graph = b.graph(y)
    codes = np.stack(np.meshgrid(np.arange(-128, 128), [-128, 0, 127]), -1).reshape(-1, 1, 1, 2).astype(np.int8)
    x_all = np.concatenate([codes, codes[..., ::-1]])
    values, found = exact.run(graph, x_all), bounds(graph)[y]
    assert np.array_equal(values.min(0, keepdims=True), found.low)
    assert np.array_equal(values.max(0, keepdims=True), found.high)


def test_where_a_left_shift_wraps_every_code_is_possible() -> None:
    b = Builder()
    x = b.input("x", (1,), Quant(bits=8, scale=(1.0,)))
    big = b.constant("w", np.full((1, 1), 127), Quant(bits=8, scale=(1.0,)))
    bias = b.constant("b", np.array([3 << 17]), Quant(bits=32, scale=(1.0,)))
    graph = b.graph(b.add(Dense(), x, big, bias, quant=Quant(bits=8, scale=(2.0**-13,))))
    check_bounds(graph, np.arange(-128, 128, dtype=np.int8)[:, None])
    assert len(np.unique(exact.run(graph, np.arange(-128, 128, dtype=np.int8)[:, None]))) > 1


# channels


def chain(
    middle: Callable[[Builder, str], str], after: Op, bias: Array, *, rounding: Rounding = Rounding.DOUBLE
) -> Graph:
    """A convolution with these biases, something, and a layer that reads it."""
    rng, b = np.random.default_rng(1), Builder(rounding)
    x = b.input("x", (4, 4, 2), CODE)
    weight = rng.integers(40, 128, (len(bias), 1, 1, 2))
    y = middle(b, layer(b, Conv2d(windows=POINT, activation=Activation.RELU), x, weight, bias, "first"))
    inside = b.shape(y)[-1]
    taps = (3, inside) if isinstance(after, Dense) else (3, *after.windows.kernel, inside)  # type: ignore[attr-defined]
    return b.graph(layer(b, after, y, rng.integers(-127, 128, taps), rng.integers(-99, 99, 3), "last", scale=2.0))


def depthwise(kernel: Windows, bias: Array) -> Callable[[Builder, str], str]:
    rng = np.random.default_rng(2)

    def add(b: Builder, x: str) -> str:
        taps = rng.integers(1, 6, (*kernel.kernel, b.shape(x)[-1]))
        return layer(b, DepthwiseConv2d(windows=kernel), x, taps, bias, "middle")

    return add


def flat(b: Builder, x: str) -> str:
    return b.add(Reshape(shape=(int(np.prod(b.shape(x))),)), x)


def doubled(b: Builder, x: str) -> str:
    return b.add(
        Concat(), b.add(MaxPool(windows=Windows(kernel=(2, 2))), x), b.add(MaxPool(windows=Windows(kernel=(2, 2))), x)
    )


def beside_a_constant(b: Builder, x: str) -> str:
    value = b.constant("value", np.full((4, 4, 2), 9), b.code(x))
    return b.add(Concat(), x, b.add(Constant(), value, quant=b.code(x)))


ZERO, HIGH, NONE = -FAR, FAR, 0  # a channel held at its zero by relu, at its largest code, or not held
CHAINS: list[tuple[str, Callable[[Builder, str], str], Op, list[int], int, int]] = [
    # what is between, what reads, biases, channels left of the first layer, inputs left of the last
    ("nothing", lambda b, x: x, Conv2d(windows=POINT), [ZERO, HIGH, NONE, NONE], 2, 2),
    ("zeros under padding", lambda b, x: x, Conv2d(windows=SAME), [ZERO, ZERO, NONE, NONE], 2, 2),
    ("others under padding", lambda b, x: x, Conv2d(windows=SAME), [HIGH, HIGH, NONE, NONE], 4, 4),
    ("others without it", lambda b, x: x, Conv2d(windows=Windows(kernel=(3, 3))), [HIGH, HIGH, NONE, NONE], 2, 2),
    ("no others", lambda b, x: x, Conv2d(windows=POINT), [ZERO, HIGH, ZERO], 1, 1),
    ("depthwise on zeros", depthwise(SAME, np.zeros(3)), Conv2d(windows=POINT), [ZERO, NONE, NONE], 2, 2),
    ("depthwise on others", depthwise(SAME, np.zeros(3)), Conv2d(windows=POINT), [HIGH, NONE, NONE], 3, 3),
    ("held depthwise", depthwise(SAME, np.array([0, FAR, 0])), Conv2d(windows=POINT), [NONE, NONE, NONE], 2, 2),
    ("flattened", flat, Dense(), [ZERO, HIGH, NONE], 1, 16),
    ("margins", lambda b, x: b.add(Pad(margins=(1, 1, 1, 1)), x), Conv2d(windows=POINT), [HIGH, ZERO, NONE], 2, 2),
    ("margins, flattened", lambda b, x: flat(b, b.add(Pad(margins=(1, 0, 0, 0)), x)), Dense(), [HIGH, NONE], 1, 20),
    ("twice", doubled, Conv2d(windows=POINT), [ZERO, NONE, NONE], 2, 4),
    ("a constant", beside_a_constant, Conv2d(windows=POINT), [NONE, NONE], 2, 3),
    ("a table", lambda b, x: b.add(Clamp(low=0.0, high=0.2), x, quant=CODE), Conv2d(windows=POINT), [HIGH, NONE], 1, 1),
    ("a mean", lambda b, x: b.add(GlobalMean(), x, quant=CODE), Dense(), [HIGH, ZERO, NONE], 1, 1),
    (
        "a mean of windows with padding",
        lambda b, x: b.add(AveragePool(windows=SAME), x),
        Conv2d(windows=POINT),
        [HIGH, ZERO, NONE],
        1,
        1,
    ),
]


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(
    ("middle", "after", "bias", "first", "last"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS]
)
def test_channels_go_where_every_reader_can_take_them_into_its_bias(
    middle: Callable[[Builder, str], str], after: Op, bias: list[int], first: int, last: int, rounding: Rounding
) -> None:
    graph = chain(middle, after, np.array(bias), rounding=rounding)
    smaller = remove_constant_channels(graph)
    assert smaller.types["first"].shape[-1] == first
    assert smaller.types["last.w"].shape[-1] == last
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 40))


def two_branches(left: list[int], right: list[int], *, unread: bool = False) -> Graph:
    """Two convolutions, summed, read by a third; with `unread` it takes nothing from the first channel."""
    rng, b = np.random.default_rng(3), Builder()
    x = b.input("x", (4, 4, 2), CODE)
    pair = [
        layer(b, Conv2d(windows=POINT), x, rng.integers(-20, 20, (3, 1, 1, 2)), np.array(bias), name)
        for name, bias in (("left", left), ("right", right))
    ]
    y = b.add(Add(), *pair, quant=replace(CODE, scale=(0.4,)))
    weight = rng.integers(-127, 128, (3, 1, 1, 3)) * ([0, 1, 1] if unread else [1, 1, 1])
    return b.graph(layer(b, Conv2d(windows=POINT), y, weight, np.zeros(3), "last", scale=2.0))


@pytest.mark.parametrize(
    ("graph", "left"),
    [
        (two_branches([HIGH, NONE, NONE], [NONE, NONE, NONE]), 3),
        (two_branches([HIGH, NONE, NONE], [NONE, HIGH, NONE]), 3),
        (two_branches([HIGH, NONE, HIGH], [HIGH, NONE, HIGH]), 1),
        (two_branches([NONE, NONE, NONE], [NONE, NONE, NONE], unread=True), 2),
    ],
    ids=["one operand", "crosswise", "both operands", "unread"],
)
def test_operands_of_a_sum_lose_a_channel_together(graph: Graph, left: int) -> None:
    smaller = remove_constant_channels(graph)
    assert [smaller.types[name].shape[-1] for name in ("left", "right")] == [left, left]
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 40))


def test_what_only_a_removed_channel_read_goes_too() -> None:
    rng, b = np.random.default_rng(4), Builder()
    y = b.input("x", (6,), CODE)
    y = layer(b, Dense(), y, rng.integers(-20, 20, (6, 6)), np.zeros(6), "first")
    weight = rng.integers(-9, 9, (6, 6))
    weight[1:, :3] = 0  # the first three are read by a neuron that is always the same
    y = layer(b, Dense(), y, weight, np.array([FAR, 0, 0, 0, 0, 0]), "second")
    graph = b.graph(layer(b, Dense(), y, rng.integers(-99, 99, (2, 6)), np.zeros(2), "third", scale=2.0))
    smaller = remove_constant_channels(graph)
    assert [smaller.types[name].shape for name in ("first", "second", "third")] == [(3,), (5,), (2,)]
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 100))


@pytest.mark.parametrize(("each", "left"), [(False, 1), (True, 2)], ids=["shared scale", "scale per channel"])
def test_scales_per_channel_stay_more_than_one(each: bool, left: int) -> None:
    """A dense layer with one scale computes its factor otherwise (`dense_rescale`)."""
    rng, b = np.random.default_rng(5), Builder()
    weight, bias = rng.integers(-20, 20, (4, 6)), np.array([0, FAR, FAR, -FAR])
    y = layer(b, Dense(), b.input("x", (6,), CODE), weight, bias, "first", each=each)
    graph = b.graph(layer(b, Dense(), y, rng.integers(-99, 99, (2, 4)), np.zeros(2), "last", scale=2.0))
    smaller = remove_constant_channels(graph)
    assert smaller.types["first"].shape == (left,)
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 100))


def test_a_bias_of_several_layers_takes_nothing() -> None:
    rng, b = np.random.default_rng(6), Builder()
    x = b.input("x", (4,), CODE)
    pair = [
        layer(b, Dense(), x, rng.integers(-9, 9, (3, 4)), np.array([far, 0, 0]), f"y{i}")
        for i, far in enumerate((FAR, -FAR))
    ]
    taps = Quant(bits=8, scale=(0.01,))
    weights = [b.constant(f"w{i}", rng.integers(-99, 99, (2, 3)), taps) for i in range(2)]
    shared = b.constant("shared", np.zeros(2), bias_code(CODE, taps))
    ends = [b.add(Dense(), y, w, shared, quant=CODE) for y, w in zip(pair, weights, strict=True)]
    graph = b.graph(b.add(Concat(), *ends))
    assert remove_constant_channels(graph) is graph


# operations


def conv(b: Builder, x: str, windows: Windows, name: str) -> str:
    weight = np.random.default_rng(len(name)).integers(-50, 50, (3, *windows.kernel, b.shape(x)[-1]))
    return layer(b, Conv2d(windows=windows), x, weight, np.zeros(3), name, scale=0.5)


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


@pytest.mark.parametrize("rounding", Rounding)
def test_margins_before_convolutions_become_their_padding(rounding: Rounding) -> None:
    b = Builder(rounding)
    margins = b.add(Pad(margins=(0, 2, 5, 1)), b.add(Pad(margins=(1, 0, 0, 0)), b.input("x", (4, 5, 3), CODE)))
    made = conv(b, margins, SAME, "dense")
    deep = layer(b, DepthwiseConv2d(windows=SAME), margins, np.full((3, 3, 3), 31), np.zeros(3), "deep", scale=0.5)
    graph = b.graph(b.add(Concat(), made, deep))
    smaller = simplify_integers(graph)
    assert kinds(smaller) == ["Conv2d", "DepthwiseConv2d", "Concat"]
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 20))


def test_margins_that_something_else_reads_stay() -> None:
    b = Builder()
    margins = b.add(Pad(margins=(1, 1, 1, 1)), b.input("x", (4, 5, 3), CODE))
    graph = b.graph(
        b.add(Concat(), conv(b, margins, SAME, "y"), b.add(Requantize(), margins, quant=replace(CODE, scale=(0.5,))))
    )
    assert simplify_integers(graph) == graph


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(
    ("op", "code"),
    [
        (Requantize(), CODE),
        (Requantize(), Quant(bits=16, scale=(0.1,))),
        (Concat(), CODE),
        (Pad(margins=(0, 0, 0, 0)), CODE),
        (Reshape(shape=(4, 5, 3)), CODE),
        (MaxPool(windows=POINT), CODE),
        (AveragePool(windows=POINT), CODE),
        (Relu(), replace(CODE, zero=(-128,))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_operation_that_changes_nothing_goes(op: Op, code: Quant, rounding: Rounding) -> None:
    b = Builder(rounding)
    y = b.add(op, b.input("x", (4, 5, 3), code), quant=code)
    graph = b.graph(b.add(Requantize(), y, quant=Quant(bits=8, scale=(0.3,))))
    smaller = simplify_integers(graph)
    assert kinds(smaller) == ["Requantize"]
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 200))


def test_requantizations_that_change_codes_or_make_an_output_stay() -> None:
    b = Builder()
    y = b.add(Requantize(), b.input("x", (4,), CODE), quant=replace(CODE, scale=(0.3,)))
    y = b.add(Requantize(), y, quant=CODE)  # not the first value again: it was rounded
    graph = b.graph(b.add(Requantize(), y, quant=CODE))
    assert simplify_integers(graph) == graph


def test_a_rectifier_after_a_layer_that_clamps_goes() -> None:
    b = Builder()
    y = layer(b, Dense(activation=Activation.RELU), b.input("x", (4,), CODE), np.eye(4) * 9, np.zeros(4), "y")
    graph = b.graph(layer(b, Dense(), b.add(Relu(), y, quant=b.code(y)), np.eye(4) * 9, np.zeros(4), "z"))
    smaller = simplify_integers(graph)
    assert kinds(smaller) == ["Dense", "Dense"]
    check_same(graph, smaller, random_inputs(graph, Seeded(0), 200))


def test_what_no_output_needs_goes() -> None:
    b = Builder()
    x = b.input("x", (4, 5, 3), CODE)
    conv(b, x, SAME, "unread")
    graph = b.graph(conv(b, x, SAME, "y"))
    smaller = simplify_integers(graph)
    assert (kinds(smaller), sorted(smaller.constants)) == (["Conv2d"], ["y.b", "y.w"])


def test_an_input_in_floats_says_nothing() -> None:
    b = Builder()
    x = b.add(Quantize(), b.input("x", (2,)), quant=replace(CODE, bits=4))
    found = bounds(b.graph(b.add(Requantize(), x, quant=CODE)))
    assert "x" not in found and (found[x].low.min(), found[x].high.max()) == (-8, 7)


def test_every_executor_runs_the_simpler_network(tmp_path: Path) -> None:
    graph = chain(depthwise(SAME, np.zeros(4)), Conv2d(windows=POINT), np.array([ZERO, HIGH, NONE, NONE]))
    smaller = simplify_integers(graph)
    assert simplification(graph, smaller)["channels"] == {"first": [4, 3], "middle": [4, 3]}
    x = random_inputs(graph, Seeded(0), 50)
    check_executors(smaller, tmp_path / "firmware", x)
    check_same(graph, smaller, x)


# the reference models of MLPerf Tiny

FOLDER = Path(os.environ["CROSSLAYER_DATA"]) / "mlperf_tiny"
mlperf = pytest.mark.skipif(not FOLDER.is_dir(), reason="the data set mlperf_tiny is absent")
VWW = "visual_wake_words/vww_96_int8"


def model(name: str, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    return read_tflite(FOLDER / f"{name}.tflite", rounding)


def images(count: int, side: int, seed: int) -> Iterator[Array]:
    """Batches of images of three channels: noise, blocks, ramps, stripes, constants and extremes, in turn."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, side)
    for start in range(0, count, 500):
        size = min(500, count - start)
        x = rng.integers(-128, 128, (size, side, side, 3)).astype(np.int16)
        for i in range(size):
            kind, one = i % 8, rng.integers(-128, 128, 3)
            if kind == 0:
                x[i] = one if i % 16 else rng.choice([-128, 127], 3)
            elif kind == 1:
                x[i] = rng.choice([-128, 127], (side, side, 3))
            elif kind == 2:
                coarse = rng.integers(-128, 128, (side // 8, side // 8, 3))
                x[i] = coarse.repeat(8, 0).repeat(8, 1)
            elif kind == 3:
                slope = rng.normal(size=(2, 3))
                x[i] = (ramp[:, None, None] * slope[0] + ramp[:, None] * slope[1]) * 100 + one
            elif kind == 4:
                x[i] = 127 * np.sin(ramp[:, None] * rng.uniform(1, 90, 3) + rng.uniform(0, 7, 3))
            elif kind == 5:
                x[i] = np.where(rng.random((side, side, 1)) < rng.random() / 20, 127, -128)
        yield np.clip(x, -128, 127).astype(np.int8)


@mlperf
@pytest.mark.parametrize("rounding", Rounding)
def test_the_person_detector_of_mlperf_tiny_is_half_as_much_work(rounding: Rounding) -> None:
    graph = model(VWW, rounding)
    smaller = simplify_integers(graph)

    def weights(graph: Graph) -> int:
        return sum(
            graph.constants[n.inputs[1]].size for n in graph.nodes if isinstance(n.op, (Conv2d, DepthwiseConv2d))
        )

    assert sum(smaller.macs.values()) <= 0.55 * sum(graph.macs.values())
    assert weights(smaller) <= 0.2 * weights(graph)
    for x in images(300, 96, 7):
        assert exact.run(smaller, x).tobytes() == exact.run(graph, x).tobytes()


@mlperf
def test_no_value_of_the_person_detector_leaves_its_bounds() -> None:
    for x in images(24, 96, 8):
        check_bounds(model(VWW), x)


@mlperf
@pytest.mark.parametrize("name", ["keyword_spotting/kws_ref_model", "image_classification/pretrainedResnet_quant"])
def test_other_models_of_mlperf_tiny_have_nothing_to_lose(name: str) -> None:
    graph = model(name)
    assert simplify_integers(graph) == graph


@mlperf
@pytest.mark.slow
def test_the_smaller_person_detector_gives_the_same_bytes_for_a_hundred_thousand_images() -> None:
    graph = model(VWW)
    smaller = simplify_integers(graph)
    seen = 0
    for x in images(100_000, 96, 9):
        assert exact.run(smaller, x).tobytes() == exact.run(graph, x).tobytes()
        seen += len(x)
    assert seen == 100_000

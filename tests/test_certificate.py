"""Interval bounds hold for every input, and what they certify is never contradicted."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sensor import Sensor
from crosslayer.core.dataset import Split
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import (
    OPS,
    Dense,
    Dequantize,
    HardSwish,
    LeakyRelu,
    Quantize,
    Relu,
    Requantize,
    Softmax,
    Tanh,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant
from crosslayer.evaluate.certificate import certificate_score, certified, decided, reachable
from crosslayer.execute import exact, reference
from crosslayer.execute.intervals import Bounds, bounds, bounds_between
from crosslayer.quantize.affine import quantize
from crosslayer.testing.chance import Seeded
from crosslayer.testing.graphs import has_integers, has_wide_integers, integer_graph, operation_graph

CODE = Quant(bits=8, scale=(0.05,), zero=(3,))
LEVELS = Sensor(low=0.0, high=1.0, steps=15)


def pixels(rng: np.random.Generator, count: int, size: int, classes: int = 3) -> Split:
    """Samples of few pixels of 4 bits."""
    codes = rng.integers(0, 16, (count, size)).astype(np.uint8)
    return Split(codes=codes, labels=rng.integers(0, classes, count), scale=1 / 15)


def classifier(rng: np.random.Generator, size: int, classes: int = 3, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """Two dense layers of random weights, in int8, and a softmax."""
    b = Builder()
    x = b.input("x", (size,))
    for name, shape in (("hidden", (6, size)), ("logits", (classes, 6))):
        weight = b.constant(f"{name}.w", rng.normal(size=shape))
        x = b.add(Dense(), x, weight, b.constant(f"{name}.b", rng.normal(size=shape[0]) / 3), name=name)
        x = b.add(Relu(), x) if name == "hidden" else b.add(Softmax(), x)
    graph = b.graph(x)
    seen = reference.calibrate(graph, [rng.random((64, size), np.float32)], reference.evaluate)
    return quantize(graph, seen, rounding)


def box(graph: Graph, rng: np.random.Generator, samples: int) -> tuple[Array, Array]:
    """Inputs between which others lie: mostly near, some of them the same, some as far apart as codes are."""
    kind = graph.types[graph.inputs[0]]
    shape = samples, *kind.shape
    if kind.quant is None:
        middle, far = rng.normal(size=shape) * 3, rng.exponential(0.5, shape)
        return (middle - far).astype(np.float32), (middle + far).astype(np.float32)
    low, high = kind.quant.lowest, kind.quant.highest
    most = np.array([0, 2, (high - low) // 8, high - low])[np.arange(samples) % 4].reshape(-1, *(1 for _ in kind.shape))
    middle, far = rng.integers(low, high + 1, shape), rng.integers(0, 1 + most, shape)
    ends = [np.clip(end, low, high).astype(kind.quant.dtype) for end in (middle - far, middle + far)]
    return ends[0], ends[1]


def between(low: Array, high: Array, rng: np.random.Generator) -> Array:
    """Random inputs of a box, half of their places at an end."""
    if np.issubdtype(low.dtype, np.floating):
        inside = np.clip(low + (high - low) * rng.random(low.shape, np.float32), low, high)
    else:
        inside = rng.integers(low, high.astype(np.int64) + 1).astype(low.dtype)
    end = np.where(rng.random(low.shape) < 0.5, low, high)
    return np.where(rng.random(low.shape) < 0.5, inside, end)


def last_with_bounds(graph: Graph) -> str:
    """The last value before the first operation that has no rule."""
    before = itertools.takewhile(lambda node: not isinstance(node.op, Softmax), graph.nodes)
    return [graph.inputs[0], *(node.name for node in before)][-1]


def check_between(graph: Graph, rng: np.random.Generator, *, samples: int = 8, draws: int = 15) -> int:
    """How many bounds are narrower than all codes; no value that is drawn lies outside."""
    low, high = box(graph, rng, samples)
    found = bounds_between(graph, low, high, last_with_bounds(graph))
    for _ in range(draws):
        with np.errstate(all="ignore"):
            values = exact.trace(graph, between(low, high, rng))
        for name, ends in found.items():
            assert ends.low.dtype == values[name].dtype and ends.low.shape == values[name].shape, name
            assert (values[name] >= ends.low).all() and (values[name] <= ends.high).all(), name
    every = bounds(graph)
    return sum(bool((found[name].high < every[name].high).any()) for name in every if name in found)


@pytest.mark.parametrize("rounding", Rounding)
def test_no_value_of_a_random_network_leaves_its_bounds_between_two_inputs(rounding: Rounding) -> None:
    graphs = [integer_graph(Seeded(seed), rounding) for seed in range(25)]
    narrower = sum(check_between(graph, np.random.default_rng(seed)) for seed, graph in enumerate(graphs))
    assert narrower > 25


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("op", [op for op in OPS if has_integers(op) and op is not Softmax])
def test_no_result_of_an_operation_leaves_its_bounds_between_two_inputs(
    op: type[Op], wide: bool, rounding: Rounding
) -> None:
    if wide and not has_wide_integers(op):
        pytest.skip("has no meaning on more than 8 bits")
    for seed in range(5):
        graph = operation_graph(Seeded(seed), op, rounding, wide=wide)
        check_between(graph, np.random.default_rng(seed))


def dense(rng: np.random.Generator, size: int, bits: int = 3, out: int = 5) -> Graph:
    b = Builder()
    x = b.input("x", (size,), Quant(bits=bits, scale=(0.1,), zero=(1,)))
    taps = Quant(bits=8, scale=(0.01,))
    code = b.code(x)
    assert code is not None
    weight = b.constant("w", rng.integers(-127, 128, (out, size)), taps)
    bias = b.constant("b", rng.integers(-99, 99, out), bias_code(code, taps))
    return b.graph(b.add(Dense(), x, weight, bias, name="y", quant=replace(CODE, scale=(0.004,))))


def points(low: Array, high: Array) -> Array:
    """All inputs between two (size,)."""
    sides = [range(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    return np.array(list(itertools.product(*sides)), low.dtype)


def test_bounds_of_a_layer_between_two_inputs_are_reached() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        graph = dense(rng, 4)
        low, high = np.sort(rng.integers(-4, 4, (2, 1, 4)), axis=0).astype(np.int8)
        values, found = exact.run(graph, points(low[0], high[0])), bounds_between(graph, low, high, "y")["y"]
        assert np.array_equal(values.min(0), found.low[0]) and np.array_equal(values.max(0), found.high[0])


NARROW, WIDE = Quant(bits=8, scale=(0.06,), zero=(10,)), Quant(bits=16, scale=(2.0**-12,))


@pytest.mark.parametrize(
    ("op", "code", "result"),
    [
        (HardSwish(), NARROW, replace(NARROW, scale=(0.02,))),
        (LeakyRelu(slope=-0.5), NARROW, NARROW),
        (LeakyRelu(slope=0.1), WIDE, replace(WIDE, scale=(2.0**-15,))),  # shifts to the left, and wraps
        (Tanh(), WIDE, None),
        (Requantize(), WIDE, NARROW),
    ],
)
def test_bounds_of_a_function_of_one_code_are_those_of_all_codes_between(
    op: Op, code: Quant, result: Quant | None
) -> None:
    b = Builder()
    graph = b.graph(b.add(op, b.input("x", (1,), code), name="y", quant=result))
    codes = np.arange(code.lowest, code.highest + 1, dtype=code.dtype)[:, None]
    values = exact.run(graph, codes)[:, 0]
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, len(codes), (200, 2)), axis=1)
    found = bounds_between(graph, codes[ends[:, 0]], codes[ends[:, 1]], "y")["y"]
    wanted = [(values[a : b + 1].min(), values[a : b + 1].max()) for a, b in ends.tolist()]
    assert np.array_equal(np.concatenate([found.low, found.high], axis=1), wanted)


def test_an_operation_without_a_rule_is_named() -> None:
    graph = classifier(np.random.default_rng(0), 3)
    x = np.zeros((1, 3), np.float32)
    with pytest.raises(GraphError, match=r"softmax1 \(Softmax\): has no rule for interval bounds"):
        bounds_between(graph, x, x, graph.outputs[0])


def reached(split: Split, index: int, levels: int) -> Array:
    """All samples that the sensor can give so many levels away, real."""
    code = split.codes[index].astype(np.int64)
    near = points(np.maximum(code - levels, 0), np.minimum(code + levels, 15)).astype(np.uint8)
    return Split(codes=near, labels=np.zeros(len(near), np.int64), scale=split.scale).real()


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("levels", [1, 2])
def test_no_input_within_the_budget_contradicts_a_certificate(rounding: Rounding, levels: int) -> None:
    """Every input that can be is tried."""
    proved = broken = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        graph, split = classifier(rng, 4, rounding=rounding), pixels(rng, 20, 4)
        called = exact.run(graph, split.real()).argmax(1)
        split = replace(split, labels=called.astype(np.int64))
        found = certified(graph, split, Budget(Norm.LINF, levels / 15), LEVELS)
        for i in range(len(split)):
            right = bool((exact.run(graph, reached(split, i, levels)).argmax(1) == split.labels[i]).all())
            assert right or not found[i]
            broken += not right
        proved += int(found.sum())
    assert proved > 20 and broken > 20


def test_within_no_budget_what_is_right_is_certified() -> None:
    rng = np.random.default_rng(3)
    graph, split = classifier(rng, 5), pixels(rng, 200, 5)
    right = exact.run(graph, split.real()).argmax(1) == split.labels
    found = certified(graph, split, Budget(Norm.LINF, 0.0), LEVELS)
    assert 20 < right.sum() < 180
    assert not (found & ~right).any()
    assert found.sum() >= 0.9 * right.sum()  # the others have shares that are nearly equal


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [0.003, 0.02, 0.3])
def test_no_logits_within_certified_bounds_have_shares_of_one_code(rounding: Rounding, bits: int, scale: float) -> None:
    """All logits between the bounds are tried."""
    b = Builder(rounding)
    x = b.input("logits", (3,), Quant(bits=bits, scale=(scale,), zero=(0,)))
    graph = b.graph(b.add(Softmax(), x))
    rng = np.random.default_rng(bits)
    low = rng.integers(-120, 100, (400, 3)).astype(graph.types["logits"].quant.dtype)
    high = low + rng.integers(0, 8, low.shape).astype(low.dtype)
    labels = low.argmax(1)
    found = decided(graph, Bounds(low=low, high=high), labels)
    for i in range(len(low)):
        inside = itertools.product(*(range(a, z + 1) for a, z in zip(low[i].tolist(), high[i].tolist(), strict=True)))
        called = exact.run(graph, np.array(list(inside), low.dtype)).argmax(1)
        assert not found[i] or (called == labels[i]).all()
    assert 100 < found.sum() < 400


def test_a_larger_budget_certifies_no_other_samples() -> None:
    rng = np.random.default_rng(4)
    graph, split = classifier(rng, 5), pixels(rng, 200, 5)
    found = [certified(graph, split, Budget(Norm.LINF, k / 15), LEVELS) for k in range(6)]
    assert all((less >= more).all() for less, more in itertools.pairwise(found))
    assert found[0].sum() > found[2].sum() > 0


def sorter(*, decoded: bool = False) -> Graph:
    """Logits that are the two pixels themselves, in codes; `decoded` as float32."""
    b = Builder()
    quant = Quant(bits=8, scale=(1 / 15,), zero=(-128,))
    x = b.input("x", (2,), quant)
    taps = Quant(bits=8, scale=(1.0,))
    weight, bias = b.constant("w", np.eye(2), taps), b.constant("b", np.zeros(2), bias_code(quant, taps))
    y = b.add(Dense(), x, weight, bias, name="logits", quant=quant)
    return b.graph(b.add(Dequantize(), y) if decoded else y)


@pytest.mark.parametrize("decoded", [False, True])
def test_of_equal_logits_the_first_counts(decoded: bool) -> None:
    codes = np.array([[9, 5], [5, 9], [10, 5], [5, 10]], np.uint8)
    split = Split(codes=codes, labels=np.array([0, 1, 0, 1]), scale=1 / 15)
    found = certified(sorter(decoded=decoded), split, Budget(Norm.LINF, 2 / 15), LEVELS)
    assert found.tolist() == [True, False, True, True]  # 7 and 7 in the worst case of the first two, 8 and 7 after them


def test_a_budget_is_whole_levels_within_the_range_of_the_sensor() -> None:
    split = Split(codes=np.array([[0, 100, 255]], np.uint8), labels=np.zeros(1, np.int64), scale=1 / 255)
    low, high = reachable(split, Budget(Norm.LINF, 0.3), Sensor(low=0.0, high=1.0, steps=255))
    assert np.allclose(low * 255, [[0, 24, 179]], atol=1e-3) and np.allclose(high * 255, [[76, 176, 255]], atol=1e-3)
    real = split.real()
    assert (low <= real).all() and (real <= high).all()


def test_without_a_grid_a_budget_is_a_share_of_the_range() -> None:
    split = Split(codes=np.array([[-1.0, 0.0, 2.9]], np.float32), labels=np.zeros(1, np.int64))
    low, high = reachable(split, Budget(Norm.LINF, 0.1), Sensor(low=-1.0, high=3.0))
    assert np.allclose(low, [[-1.0, -0.4, 2.5]], atol=1e-3) and np.allclose(high, [[-0.6, 0.4, 3.0]], atol=1e-3)


def test_a_network_with_a_float_input_is_certified_as_the_one_with_codes() -> None:
    rng = np.random.default_rng(5)
    coded, split = classifier(rng, 4), pixels(rng, 100, 4)
    quant = coded.types["x"].quant
    b = Builder()
    x = b.add(Quantize(), b.input("x", (4,)), name="codes", quant=quant)
    for node in coded.nodes:
        weights = [b.constant(n, coded.constants[n], coded.types[n].quant) for n in node.inputs if n in coded.constants]
        x = b.add(node.op, x, *weights, name=node.name, quant=coded.types[node.name].quant)
    budget = Budget(Norm.LINF, 1 / 15)
    found, same = (certified(graph, split, budget, LEVELS) for graph in (b.graph(x), coded))
    assert found.any() and np.array_equal(found, same)


def test_the_score_says_share_interval_and_budget() -> None:
    rng = np.random.default_rng(6)
    graph, split = classifier(rng, 4), pixels(rng, 50, 4)
    budget = Budget(Norm.LINF, 1 / 15)
    score = certificate_score(graph, split, budget, LEVELS)
    assert score.value == certified(graph, split, budget, LEVELS).mean()
    assert 0 < score.low < score.value < score.high < 1
    assert "linf 1/15" in score.note and "50 samples" in score.note


def real_valued() -> Graph:
    b = Builder()
    return b.graph(b.add(Relu(), b.input("x", (4,))))


@pytest.mark.parametrize(
    ("graph", "budget", "says"),
    [
        (sorter(), "l2 1", "certify linf budgets, not l2"),
        (real_valued(), "linf 0.1", "this is a float network; quantize it first"),
    ],
)
def test_what_cannot_be_certified_is_refused(graph: Graph, budget: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        certified(graph, pixels(np.random.default_rng(0), 2, 4), Budget.parse(budget), LEVELS)

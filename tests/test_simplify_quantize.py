"""From float networks to integer ones: what folding, fusing and quantizing keep, and what every stage promises."""

import time
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pytest
from hypothesis import assume, given, settings

from crosslayer.attack.filter import FilterInput, Window
from crosslayer.attack.levels import QuantizeInput
from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph, verify
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    MaxPool,
    Mul,
    Quantize,
    Relu,
    Relu6,
    Requantize,
    Softmax,
    Tanh,
    Windows,
)
from crosslayer.core.quant import Array, Quant
from crosslayer.core.stage import Stage
from crosslayer.execute import exact, reference
from crosslayer.execute.adversary import Method
from crosslayer.execute.training import Training
from crosslayer.fault.protect import ProtectWeights
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.adversarial import TrainRobust
from crosslayer.learn.certified import TrainCertified
from crosslayer.learn.noisy import TrainNoisy
from crosslayer.learn.reject import RejectUnknown
from crosslayer.learn.train import FineTune, Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.plan.fetch import FetchWeights
from crosslayer.prune.channels import PruneChannels
from crosslayer.prune.importance import Importance
from crosslayer.prune.search import SearchPruning
from crosslayer.prune.sensitivity import MeasureSensitivity
from crosslayer.prune.weights import PruneWeights
from crosslayer.quantize.affine import QuantizeAffine, quantize
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.equalize import Equalize
from crosslayer.quantize.mixed import MixedPrecision
from crosslayer.quantize.precision import Bits, Precision
from crosslayer.quantize.ranges import RangeRule
from crosslayer.simplify.activations import FuseActivations, fuse_activations
from crosslayer.simplify.integers import SimplifyIntegers
from crosslayer.simplify.norms import FoldNorms, fold_norms
from crosslayer.simplify.softmax import DropSoftmax
from crosslayer.simplify.transposes import FoldTransposes
from crosslayer.study import STAGES
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.graphs import Growth, float_graph
from crosslayer.testing.stages import check_stage, small_bench

POINT = Windows(kernel=(1, 1))
LAYERS: list[tuple[Op, tuple[int, ...], tuple[int, ...]]] = [  # operation, its weight, its input
    (Conv2d(windows=Windows(kernel=(2, 1), padding=(1, 0, 0, 0))), (4, 2, 1, 3), (3, 3, 3)),
    (Conv2d(windows=POINT, groups=2), (4, 1, 1, 2), (3, 3, 4)),
    (DepthwiseConv2d(windows=Windows(kernel=(2, 2)), multiplier=2), (2, 2, 4), (3, 3, 2)),
    (Dense(), (4, 5), (5,)),
]


def real_inputs(graph: Graph, samples: int = 20, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(samples, *graph.types["x"].shape)).astype(np.float32)


def normalized(op: Op, weight: tuple[int, ...], shape: tuple[int, ...]) -> Graph:
    """x → layer → batch normalization with random statistics."""
    rng, b = np.random.default_rng(1), Builder()
    y = b.add(op, b.input("x", shape), b.constant("w", rng.normal(size=weight)), b.constant("c", rng.normal(size=4)))
    constants = *rng.normal(size=(3, 4)), rng.uniform(0.1, 2, 4)
    names = [b.constant(f"n{i}", value) for i, value in enumerate(constants)]
    return b.graph(b.add(BatchNorm(), y, *names, name="norm"))


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


def quantized(graph: Graph, rounding: Rounding, x: Array) -> Graph:
    return quantize(graph, reference.calibrate(graph, [x], reference.evaluate), rounding)


# folding and fusing


@settings(max_examples=80, deadline=None)
@given(grown(float_graph))
def test_simplifying_keeps_the_function(graph: Graph) -> None:
    x = real_inputs(graph, 5)
    before = reference.run(graph, x)
    room = 1e-4 * max(1.0, float(np.abs(before).max()))
    folded = verify(fold_norms(graph))
    assert np.allclose(reference.run(folded, x), before, rtol=1e-3, atol=room)
    fused = verify(fuse_activations(folded))
    assert np.array_equal(reference.run(fused, x), reference.run(folded, x))
    assert (fold_norms(folded), fuse_activations(fused)) == (folded, fused)


@pytest.mark.parametrize(("op", "weight", "shape"), LAYERS)
def test_a_normalization_goes_into_the_layer_before_it(op: Op, weight: tuple[int, ...], shape: tuple[int, ...]) -> None:
    graph = normalized(op, weight, shape)
    folded = fold_norms(graph)
    assert kinds(folded) == [type(op).__name__]
    assert set(folded.constants) == {"w", "c"}
    assert set(folded.types) == {"x", "w", "c", *(node.name for node in folded.nodes)}
    x = real_inputs(graph)
    assert np.allclose(reference.run(folded, x), reference.run(graph, x), rtol=1e-4, atol=1e-4)


def test_a_normalization_stays_where_folding_would_change_something() -> None:
    graph = normalized(*LAYERS[3])
    layer = graph.nodes[0]
    fused = replace(layer, op=Dense(activation=Activation.RELU))
    twin = replace(layer, name="twin")
    for kept in (
        replace(graph, nodes=(fused, graph.nodes[1])),  # a clamp lies between
        replace(graph, outputs=("norm", layer.name)),  # the layer's own result is wanted too
        replace(  # another layer has the same weights
            graph,
            nodes=(layer, twin, graph.nodes[1]),
            types={**graph.types, "twin": graph.types[layer.name]},
            outputs=("norm", "twin"),
        ),
    ):
        assert fold_norms(verify(kept)) == kept


@pytest.mark.parametrize("clamp", [Relu(), Relu6()])
def test_a_clamp_goes_into_the_operation_before_it(clamp: Op) -> None:
    expected = Activation.RELU if isinstance(clamp, Relu) else Activation.RELU6
    for op, weight, shape in LAYERS:
        b, rng = Builder(), np.random.default_rng(0)
        y = b.add(op, b.input("x", shape), b.constant("w", rng.normal(size=weight)), b.constant("c", np.zeros(4)))
        graph = b.graph(b.add(clamp, y, name="clamp"))
        fused = fuse_activations(graph)
        assert [node.op for node in fused.nodes] == [replace(op, activation=expected)]  # type: ignore[call-arg]  # layers have one
        assert "clamp" not in fused.types
        assert np.array_equal(reference.run(fused, real_inputs(graph)), reference.run(graph, real_inputs(graph)))
    for op in (Add(), Mul()):
        b = Builder()
        x = b.input("x", (3,))
        assert len(fuse_activations(b.graph(b.add(clamp, b.add(op, x, x)))).nodes) == 1


def test_a_clamp_stays_where_fusing_would_change_something() -> None:
    b = Builder()
    x = b.input("x", (3,))
    total = b.add(Add(activation=Activation.RELU6), x, x, name="total")
    wanted = b.add(Add(), x, x, name="wanted")
    both = b.add(Concat(), b.add(Relu(), total), b.add(Relu(), wanted))
    several = b.graph(b.add(Concat(), both, wanted), wanted)
    assert fuse_activations(several) == several
    curve = b.graph(b.add(Relu(), b.add(Tanh(), x)))
    assert "Relu" in kinds(fuse_activations(curve))


# quantizing


def foldable(chance: Chance) -> Graph:
    graph = fuse_activations(fold_norms(float_graph(chance)))
    assume(graph.nodes and not any(isinstance(node.op, BatchNorm) for node in graph.nodes))
    return graph


@pytest.mark.parametrize("rounding", Rounding)
@settings(max_examples=25, deadline=None)
@given(graph=grown(foldable))
def test_an_integer_network_is_near_its_float_one(graph: Graph, rounding: Rounding) -> None:
    x = real_inputs(graph, 40)
    whole = quantized(graph, rounding, x)
    assert whole.is_integer
    assert whole.rounding is rounding
    code = whole.types[whole.outputs[0]].quant
    assert code is not None
    expected = reference.run(graph, x)
    away = code.decode(exact.run(whole, x)) - expected
    room = max(0.05 * float(np.abs(expected).max()), 2 * code.scale[0])
    assert float(np.sqrt(np.mean(away**2))) <= room


@settings(max_examples=40, deadline=None)
@given(grown(foldable))
def test_codes_are_those_of_the_specification(graph: Graph) -> None:
    whole = quantized(graph, Rounding.DOUBLE, real_inputs(graph))
    for node in whole.nodes:
        if node.op.channel_axis is None:
            continue
        x, weight, bias = (whole.types[n].quant for n in node.inputs)
        assert x is not None
        assert weight is not None
        assert bias is not None
        assert (weight.axis, bias.axis, bias.bits) == (node.op.channel_axis, 0, 32)
        assert set(weight.zero) == set(bias.zero) == {0}
        assert whole.constants[node.inputs[1]].min() >= -127
        assert np.allclose(bias.scale, np.array(weight.scale) * x.scale[0], rtol=1e-6)
    for name, kind in whole.types.items():
        if name not in whole.constants:
            assert kind.quant is not None
            assert (kind.quant.bits, kind.quant.axis) == (8, None)


def test_ranges_are_the_least_and_largest_values_of_all_batches() -> None:
    b = Builder()
    graph = b.graph(b.add(Tanh(), b.input("x", (2,)), name="y"))
    batches = [np.array([[1.0, -2.0]], np.float32), np.array([[0.5, 3.0], [0.0, 0.0]], np.float32)]
    for evaluate in (reference.evaluate, exact.evaluate):
        found = reference.calibrate(graph, batches, evaluate)
        assert found["x"] == (-2.0, 3.0)
        assert found["y"] == pytest.approx((np.tanh(-2.0), np.tanh(3.0)))


@pytest.mark.parametrize("tiny", [1e-3, 1e-6, 1e-9, 1e-20, 1e-38, 0.0])
def test_a_channel_whose_weights_are_almost_nothing_keeps_its_bias(tiny: float) -> None:
    """Folding a normalization with a small gamma makes such channels; at their scale the bias would not fit 32 bits."""
    rng, b = np.random.default_rng(0), Builder()
    weight = rng.normal(size=(4, 6))
    weight[1] *= tiny
    bias = np.array([0.1, 0.5, -0.2, 0.3])
    graph = b.graph(b.add(Dense(), b.input("x", (6,)), b.constant("w", weight), b.constant("c", bias), name="y"))
    x = real_inputs(graph, 50)
    whole = quantized(graph, Rounding.DOUBLE, x)
    code = whole.types["y"].quant
    assert code is not None
    away = np.abs(code.decode(reference.run(whole, x)) - reference.run(graph, x))
    assert away.max() <= 2 * code.scale[0]
    assert np.abs(whole.constants["c"].astype(np.int64)).max() <= 2**30 + 1000


def joined(*parts: Op) -> Graph:
    """x, of 3 values, and what some operations make of it, one after the other."""
    b = Builder()
    x = b.input("x", (3,))
    return b.graph(b.add(Concat(), x, *(b.add(op, x) for op in parts), name="all"))


@pytest.mark.parametrize(
    ("graph", "inserted"),
    [
        (joined(Tanh()), 0),  # both can have the wider range
        (joined(Softmax()), 1),  # shares have a code of their own: x is brought to the common one with them
        (joined(Relu6(), Softmax(), Softmax()), 2),
    ],
)
def test_what_is_joined_gets_one_code(graph: Graph, inserted: int) -> None:
    x = real_inputs(graph, 30)
    whole = quantized(graph, Rounding.DOUBLE, x)
    assert kinds(whole).count("Requantize") == inserted
    code = whole.types["all"].quant
    assert code is not None
    assert np.abs(code.decode(reference.run(whole, x)) - reference.run(graph, x)).max() <= 2 * code.scale[0]


def test_what_is_joined_twice_gets_one_code_each_time() -> None:
    b = Builder()
    x = b.input("x", (2, 2, 1))
    pooled = b.add(MaxPool(windows=POINT), b.add(Tanh(), x))
    inner = b.add(Concat(), pooled, x, pooled)
    graph = b.graph(b.add(Concat(axis=0), inner, inner, b.add(Softmax(), inner), name="requantize1"))
    x = real_inputs(graph, 30)
    whole = quantized(graph, Rounding.FLOAT, x)
    code = whole.types[whole.outputs[0]].quant
    assert code is not None
    assert np.abs(code.decode(reference.run(whole, x)) - reference.run(graph, x)).max() <= 3 * code.scale[0]


def test_shared_weights_get_a_code_for_each_layer() -> None:
    rng, b = np.random.default_rng(0), Builder()
    w, c = b.constant("w", rng.normal(size=(3, 3))), b.constant("c", rng.normal(size=3))
    first = b.add(Dense(), b.input("x", (3,)), w, c)
    graph = b.graph(b.add(Dense(), first, w, c))
    x = real_inputs(graph, 30)
    whole = quantized(graph, Rounding.DOUBLE, x)
    code = whole.types[whole.outputs[0]].quant
    assert code is not None
    assert np.abs(code.decode(reference.run(whole, x)) - reference.run(graph, x)).max() <= 4 * code.scale[0]


def test_what_has_no_integers_is_refused_in_words() -> None:
    graph = normalized(*LAYERS[3])
    with pytest.raises(GraphError, match=r"norm \(BatchNorm\): has no integer meaning; run FoldNorms first"):
        quantized(graph, Rounding.DOUBLE, real_inputs(graph))
    growth = Growth(Seeded(0), Rounding.DOUBLE)
    whole = growth.graph(growth.apply(Requantize(), growth.input((3,), coded=True)))
    with pytest.raises(GraphError, match="has number codes already; quantize once, from floats"):
        quantize(whole, {"x": (0, 1), "requantize1": (0, 1)}, Rounding.DOUBLE)
    b = Builder()
    half = b.graph(b.add(Quantize(), b.input("x", (3,)), quant=Quant(bits=8, scale=(1.0,))))
    with pytest.raises(GraphError, match="has number codes already"):
        quantize(half, {"x": (0, 1), "quantize1": (0, 1)}, Rounding.DOUBLE)


# every stage


def fresh(name: str = "resnet8") -> Design:
    return Design(graph=network(name, (8, 8, 1), 4, 0), target=load_target("stm32f769"))


def simplified() -> Design:
    return replace(fresh(), graph=fuse_activations(fold_norms(fresh().graph)))


def whole_design() -> Design:
    return QuantizeAffine(samples=16)(simplified(), small_bench())


def planned() -> Design:
    return PlanArena()(whole_design(), small_bench())


AFFINE = QuantizeAffine(
    samples=16, precision=Precision(weights=4, activations=6, layers={"stem": Bits(weights=8, activations=8)})
)
PROMISES: list[tuple[Stage, Any]] = [
    (Train(epochs=1, batch=32, shift=1, flip=True), lambda: fresh("lenet5")),
    (TrainRobust(epsilon=0.1, epochs=1, batch=32, method=Method.FAST), lambda: fresh("lenet5")),
    (TrainCertified(epsilon=0.1, epochs=1, batch=32, warm=0.3), lambda: fresh("lenet5")),
    (TrainNoisy(epochs=1, batch=32), lambda: fresh("lenet5")),
    (FineTune(epochs=1, batch=32), lambda: fresh("lenet5")),
    *((FilterInput(window=window, radius=2), fresh) for window in Window),
    (QuantizeInput(levels=3), fresh),
    (QuantizeInput(levels=3, learned=True), fresh),
    (DropSoftmax(), fresh),
    (
        PruneChannels(step=0.5, tuning=Training(epochs=0), drop=1.0, keep=0.3, patience=2, cost="drop / energy"),
        lambda: fresh("lenet5"),
    ),
    (
        SearchPruning(
            pruning=PruneChannels(drop=1.0, keep=0.6, samples=32), steps=(0.3, 0.5), epochs=(0,), least="macs"
        ),
        lambda: fresh("lenet5"),
    ),
    (PruneWeights(zeros=0.7, rounds=2, drop=1.0), fresh),
    (PruneWeights(pattern="2:4", drop=1.0), lambda: fresh("lenet5")),
    (MeasureSensitivity(shares=(0.3, 0.6), samples=32), lambda: fresh("lenet5")),
    (PruneChannels(step=0.9, drop=1.0, keep=0.6, importance=Importance.TAYLOR, evidence=50), fresh),
    (FoldNorms(), fresh),
    (FoldTransposes(), fresh),
    (FuseActivations(), fresh),
    *((QuantizeAffine(samples=16, rounding=rounding), simplified) for rounding in Rounding),
    (
        QuantizeAffine(samples=16, ranges=RangeRule.MSE, learn_rounding=True, correct_biases=True),
        lambda: fresh("lenet5"),
    ),
    (Equalize(), simplified),
    (QuantizeAware(start=AFFINE, training=Training(epochs=2, batch=32, shift=1, distill=0.5)), simplified),
    (MixedPrecision(budget=40_000.0, samples=16), simplified),
    (SimplifyIntegers(), whole_design),
    (PlanArena(), whole_design),
    (PlanArena(order_states=1, offset_steps=0), fresh),
    (ProtectWeights(inferences=3, parity=2), planned),
    (FetchWeights(), planned),
    (RejectUnknown(), planned),
]


@pytest.mark.parametrize(("stage", "design"), PROMISES, ids=[stage.name() for stage, _ in PROMISES])
def test_a_stage_keeps_its_promises(stage: Stage, design: Any) -> None:
    check_stage(stage, design(), small_bench())


def test_every_stage_is_tried() -> None:
    assert {type(stage) for stage, _ in PROMISES} == set(STAGES)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Moody(Stage):
    """Says something else each time."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The same design; notes: the time."""
        return design, {"now": time.perf_counter()}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Chatty(Stage):
    """Tells what no file can hold."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The same design; notes: a tuple."""
        return design, {"pair": (1, 2)}


@pytest.mark.parametrize(
    ("stage", "complaint"),
    [
        (Moody(), "moody: gives another design the second time; use bench.rng"),
        (Chatty(), "chatty: notes hold more than numbers, text and lists"),
    ],
)
def test_a_stage_that_breaks_a_promise_is_noticed(stage: Stage, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_stage(stage, fresh("lenet5"), small_bench())


def test_the_stages_after_another_give_the_same_accuracy_in_integers() -> None:
    """The whole way on a small set: the integer network is as good as the trained one."""
    bench = small_bench()
    trained = design = Train(epochs=6, batch=16)(fresh("lenet5"), bench)
    for stage in (FoldNorms(), FuseActivations(), QuantizeAffine(samples=64), PlanArena()):
        design = stage(design, bench)
    test = bench.data.test
    before, after = (
        float(np.mean(bench.executor(d.graph, test.real()).argmax(axis=1) == test.labels)) for d in (trained, design)
    )
    assert before > 0.8
    assert abs(after - before) <= 0.05

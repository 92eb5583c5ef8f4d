"""Logits and their slopes: forward what ships, to the bit; backward the real network's, by three surrogates."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from attack_networks import digits, in_integers, trained, uniform, zoo_network
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.edit import without_unused
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Activation, Dense, Dequantize, Quantize, Relu
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array, Quant
from crosslayer.execute import exact, reference
from crosslayer.execute.pullback import Linearized
from crosslayer.execute.surrogate import Surrogate
from crosslayer.flow import execute
from crosslayer.networks.zoo import NETWORKS
from crosslayer.quantize.affine import quantize
from crosslayer.quantize.precision import Precision

PIXELS = Sensor(low=0.0, high=1.0, steps=255)


def executed(graph: Graph, x: Array, run: Callable[[Graph, Array], Array] = exact.run) -> Array:
    """The logits of an integer network, decoded."""
    cut = without_unused(replace(graph, outputs=(logits_of(graph),)))
    quant = cut.types[cut.outputs[0]].quant
    assert quant is not None
    return quant.decode(run(cut, x)).reshape(len(x), -1)


PRECISIONS = (Precision(), Precision(weights=4), Precision(weights=8, activations=16))
CASES = {
    "lenet-threshold": tuple(product(Rounding, PRECISIONS[:2])),  # an operation of it takes codes of up to 8 bits only
    "vgg11": ((Rounding.DOUBLE, Precision()),),  # slow to quantize
}


@pytest.mark.parametrize("name", NETWORKS)
def test_integer_logits_are_those_of_the_executor_to_the_bit(name: str) -> None:
    graph = zoo_network(name)
    x = uniform(graph, 3)
    ranges = reference.calibrate(graph, [x], exact.evaluate)
    for rounding, precision in CASES.get(name, tuple(product(Rounding, PRECISIONS))):
        integer = quantize(graph, ranges, rounding, precision)
        linearized, truth = Linearized(integer), executed(integer, 1.2 * x)  # some inputs saturate
        for surrogate in Surrogate:
            assert np.array_equal(linearized(1.2 * x, surrogate)[0], truth)


def doubled(graph: Graph, x: Array) -> Array:
    """The float logits, all in float64."""
    values = {graph.inputs[0]: x.astype(np.float64)}
    values |= {name: value.astype(np.float64) for name, value in graph.constants.items()}
    for node in graph.nodes:
        values[node.name] = np.asarray(node.op.real(np, *(values[n] for n in node.inputs)))
    return values[logits_of(graph)]


@pytest.mark.parametrize("name", NETWORKS)
def test_float_slopes_are_finite_differences(name: str) -> None:
    graph, rng = zoo_network(name), np.random.default_rng(1)
    x = uniform(graph, 2)
    logits, pullback = Linearized(graph)(x)
    assert np.allclose(logits, doubled(graph, x), rtol=1e-4, atol=1e-4)
    slopes = rng.normal(size=logits.shape)
    found = pullback(slopes)
    for _ in range(3):
        way = rng.normal(size=x.shape)
        rise = (doubled(graph, x + 1e-6 * way) - doubled(graph, x - 1e-6 * way)) / 2e-6
        assert np.allclose((found * way).sum(), (slopes * rise).sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("bits", "least"), [(8, 0.9), (16, 0.99)])
def test_integer_slopes_point_where_those_of_the_float_network_do(bits: int, least: float) -> None:
    x = digits().validation.real(slice(0, 50))
    integer = in_integers(trained(), x, Precision(activations=bits))
    slopes = np.eye(10)[digits().validation.labels[:50]]
    ways = [Linearized(graph)(x)[1](slopes).reshape(50, -1) for graph in (trained(), integer)]
    cosines = (ways[0] * ways[1]).sum(1) / np.prod([np.linalg.norm(way, axis=1) for way in ways], axis=0)
    assert np.median(cosines) > least


def closed(activation: Activation) -> Graph:
    """Two dense layers; the rectifier between them, fused or a node of its own, is closed for inputs in 0…1."""
    rng = np.random.default_rng(2)
    b = Builder()
    x = b.input("x", (3,))
    w = [b.constant(name, rng.normal(size=shape)) for name, shape in (("w1", (4, 3)), ("w2", (2, 4)))]
    bias = [b.constant("b1", np.full(4, -9.0)), b.constant("b2", np.zeros(2))]
    hidden = b.add(Dense(activation=activation), x, w[0], bias[0], name="hidden")
    if activation is Activation.NONE:
        hidden = b.add(Relu(), hidden)
    return b.graph(b.add(Dense(), hidden, w[1], bias[1], name="logits"))


@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU])
@pytest.mark.parametrize("whole", [False, True])
def test_a_closed_rectifier_passes_nothing_a_tenth_or_all(whole: bool, activation: Activation) -> None:
    graph = closed(activation)
    wide = {"x": (-1.0, 1.0), "hidden": (-20.0, 5.0), "relu1": (0.0, 5.0), "logits": (-4.0, 4.0)}
    if activation is Activation.RELU:
        wide["hidden"] = (0.0, 5.0)
    product = graph.constants["w2"] @ graph.constants["w1"]
    linearized = Linearized(quantize(graph, wide, Rounding.DOUBLE) if whole else graph)
    x = np.full((1, 3), 0.5, np.float32)
    for surrogate, share in ((Surrogate.GATED, 0.0), (Surrogate.LEAKY, 0.1), (Surrogate.PLAIN, 1.0)):
        found = np.concatenate([linearized(x, surrogate)[1](row[None]) for row in np.eye(2)])
        assert np.allclose(found, share * product, atol=0.05 * share, rtol=1e-4)


def test_a_bias_of_more_than_24_bits_stays_exact() -> None:
    rng = np.random.default_rng(3)
    source, result = Quant(bits=8, scale=(0.01,), zero=(-5,)), Quant(bits=8, scale=(4e2,), zero=(3,))
    taps = Quant(bits=8, scale=(0.02,) * 5, axis=0)
    biases = Quant(bits=32, scale=(0.01 * 0.02,) * 5, axis=0)
    b = Builder()
    x = b.input("x", (7,), source)
    weight = b.constant("w", rng.integers(-127, 128, (5, 7)), taps)
    bias = b.constant("b", 2**27 + rng.integers(0, 2**20, 5), biases)
    graph = b.graph(b.add(Dense(), x, weight, bias, name="logits", quant=result))
    real = rng.normal(size=(200, 7)).astype(np.float32)
    assert np.array_equal(Linearized(graph)(real)[0], executed(graph, real, reference.run))


def test_networks_with_float_inputs_and_outputs_are_exact_too() -> None:
    inner = in_integers(closed(Activation.RELU), uniform(closed(Activation.RELU), 9))
    b = Builder()
    x = b.add(Quantize(), b.input("x", (3,)), quant=inner.types["x"].quant)
    for node in inner.nodes:
        names = [b.constant(n, inner.constants[n], inner.types[n].quant) for n in node.inputs[1:]]
        x = b.add(node.op, x, *names, name=node.name, quant=inner.types[node.name].quant)
    graph = b.graph(b.add(Dequantize(), x))
    real = 3 * uniform(graph, 40)
    logits, pullback = Linearized(graph)(real, Surrogate.PLAIN)
    assert np.array_equal(logits, exact.run(graph, real))
    assert pullback(np.ones_like(logits)).any()


def test_gradients_of_other_logits_than_the_executors_are_refused() -> None:
    x = digits().validation.real(slice(0, 20))
    integer = in_integers(trained(), x)

    def careless(graph: Graph, real: Array) -> Array:
        found = exact.run(graph, real).copy()
        found[3, 0] ^= 1
        return found

    with pytest.raises(GraphError, match="in 1 of 20 samples"):
        Victim.of(integer, PIXELS, careless).slopes(x)
    Victim.of(integer, PIXELS, exact.run).slopes(x)


def test_a_victims_logits_are_those_before_softmax_decoded() -> None:
    x = digits().validation.real(slice(0, 20))
    integer = in_integers(trained(), x)
    for graph, truth in ((integer, executed(integer, PIXELS.real(x))), (trained(), doubled(trained(), PIXELS.real(x)))):
        victim = Victim.of(graph, PIXELS, execute)
        assert victim.logits(x).dtype == np.float32
        assert np.allclose(victim.logits(x), truth, rtol=1e-4, atol=1e-4)
        assert np.allclose(victim.slopes(x)[0], truth, rtol=1e-4, atol=1e-4)


def test_slopes_count_in_shares_of_the_sensors_range() -> None:
    x = digits().validation.real(slice(0, 5))
    narrow, wide = (Victim.of(trained(), Sensor(low=0.0, high=high), execute) for high in (1.0, 4.0))
    (logits, one), (same, four) = narrow.slopes(x), wide.slopes(x / 4)
    assert np.allclose(logits, same)
    assert np.allclose(4 * one(np.ones_like(logits)), four(np.ones_like(logits)), atol=1e-5)


def test_a_network_that_reconstructs_its_input_is_no_victim() -> None:
    with pytest.raises(InputError, match="need a classifier"):
        Victim.of(zoo_network("autoencoder"), PIXELS, execute)


def test_large_batches_are_cut_and_give_the_same_slopes(monkeypatch: Any) -> None:
    graph = zoo_network("lenet5")
    x, slopes = uniform(graph, 11), np.random.default_rng(4).normal(size=(11, 5))
    whole = Linearized(graph)(x)
    monkeypatch.setattr("crosslayer.execute.pullback._BATCH", 4)
    parts = Linearized(graph)(x)
    assert np.allclose(whole[0], parts[0], atol=1e-5)
    assert np.allclose(whole[1](slopes), parts[1](slopes), atol=1e-5)

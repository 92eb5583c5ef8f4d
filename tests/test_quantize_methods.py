"""Post-training quantization: precision, scales, ranges, equalization, corrected biases and learned rounding."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslayer.core.codec import from_plain, to_plain
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import (
    Activation,
    BatchNorm,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    MaxPool,
    Relu6,
    Reshape,
    Windows,
)
from crosslayer.core.quant import Array, Quant, affine, weight_codes
from crosslayer.execute import exact, reference
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import quantize
from crosslayer.quantize.equalize import equalize
from crosslayer.quantize.precision import Bits, Precision
from crosslayer.quantize.ranges import Histogram, RangeRule, choose, find_ranges
from crosslayer.quantize.reconstruct import correct_biases, learn_rounding
from crosslayer.quantize.scales import activation_code, weight_code
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms
from crosslayer.testing.datasets import small_dataset

DATA = small_dataset(samples=192)


def quietly(items: Any, title: str, total: int) -> Any:
    return items


@cache
def trained(name: str) -> Graph:
    """A network that has learnt, up to its logits."""
    graph = fit(network(name, (8, 8, 1), 4, 0), DATA.train, Training(epochs=8, batch=32), seed=0, progress=quietly)
    graph = fuse_activations(fold_norms(graph))
    types = {n: t for n, t in graph.types.items() if n != "softmax"}
    return replace(graph, nodes=graph.nodes[:-1], types=types, outputs=("logits",))


def code_of(graph: Graph, name: str) -> Quant:
    quant = graph.types[name].quant
    assert quant is not None
    return quant


def error(graph: Graph, integer: Graph, x: Array) -> float:
    """Mean squared error of the integer network's output."""
    found = code_of(integer, integer.outputs[0]).decode(exact.run(integer, x))
    return float(np.mean((found - reference.run(graph, x)) ** 2))


def quantized(graph: Graph, precision: Precision, rule: RangeRule = RangeRule.MIN_MAX) -> Graph:
    return quantize(graph, find_ranges(graph, DATA.train.real(), rule, precision), Rounding.DOUBLE, precision)


# precision


def test_every_layer_gets_the_bits_that_it_was_given() -> None:
    layers = {"conv2": Bits(weights=1), "fc1": Bits(activations=6), "input": Bits(activations=5)}
    whole = quantized(trained("lenet5"), Precision(weights=3, activations=7, layers=layers))
    bits = {name: code_of(whole, name).bits for name in whole.types if not name.endswith("bias")}
    assert bits["input"] == 5
    assert (bits["conv1"], bits["conv2"], bits["fc1"], bits["fc2"], bits["logits"]) == (7, 7, 6, 7, 7)
    assert (bits["conv1.weight"], bits["conv2.weight"], bits["fc1.weight"]) == (3, 1, 3)
    for name in ("conv1.weight", "conv2.weight", "fc1.weight"):
        codes, top = whole.constants[name], code_of(whole, name).highest
        assert (codes.min(), codes.max()) >= (-top, -top)
        assert codes.max() <= top
    assert set(np.unique(whole.constants["conv2.weight"])) == {-1, 1}


@pytest.mark.parametrize("rounding", Rounding)
def test_more_bits_are_nearer_to_the_float_network(rounding: Rounding) -> None:
    graph, x = trained("lenet5"), DATA.test.real()
    ranges = reference.calibrate(graph, [DATA.train.real()], exact.evaluate)

    def missed(precision: Precision) -> float:
        return error(graph, quantize(graph, ranges, rounding, precision), x)

    weights = [missed(Precision(weights=bits, activations=16)) for bits in (1, 2, 3, 4, 6, 8, 12, 16)]
    activations = [missed(Precision(activations=bits)) for bits in (4, 6, 8, 16)]
    assert weights == sorted(weights, reverse=True)
    assert activations == sorted(activations, reverse=True)
    assert weights[-1] < 1e-3 * weights[3]


def test_precision_is_a_value() -> None:
    precision = Precision(weights=2, layers={"b": Bits(weights=8), "a": Bits(activations=4)})
    assert from_plain(Precision, to_plain(precision), "precision") == precision
    assert hash(precision) == hash(Precision(weights=2, layers={"a": Bits(activations=4), "b": Bits(weights=8)}))
    assert precision != Precision(weights=2)


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ({"conv9": Bits(weights=4)}, r"precision names 'conv9', which is no node; did you mean 'conv\d'"),
        ({"maxpool1": Bits(weights=4)}, "gives 'maxpool1' weights of 4 bits, but it has no weights"),
        ({"input": Bits(weights=4)}, "gives 'input' weights of 4 bits, but it has no weights"),
    ],
)
def test_bits_for_what_is_not_there_are_refused(layers: Any, complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        quantized(trained("lenet5"), Precision(layers=layers))


@pytest.mark.parametrize("bits", [{"weights": 0}, {"weights": 17}, {"activations": 3}, {"activations": 17}])
def test_impossible_bits_do_not_construct(bits: Any) -> None:
    for kind in (Precision, Bits):
        with pytest.raises(InputError, match=r"have \d…16 bits, not"):
            kind(**bits)


# scales


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.booleans(), st.booleans())
def test_no_other_clip_has_a_smaller_error(seed: int, bits: int, per_channel: bool, power_of_two: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, 40)) * np.exp(rng.normal(size=(3, 1)))
    axis = 0 if per_channel else None
    code = weight_code(weight, bits, axis, power_of_two=power_of_two)
    scales = np.array(code.scale)
    assert not power_of_two or np.array_equal(np.exp2(np.round(np.log2(scales))), scales)

    def missed(scales: Array) -> Array:
        moved = replace(code, scale=tuple(scales))
        wrong = (moved.decode(weight_codes(weight, moved)) - weight) ** 2
        return wrong.sum(axis=1) if per_channel else wrong.sum(keepdims=True)[0]

    if bits >= 8 and not power_of_two:
        assert np.allclose(np.abs(weight_codes(weight, code)).max(axis=1 if per_channel else None), 127)
        return
    widest = np.atleast_1d(np.abs(weight).max(axis=1 if per_channel else None)) / code.highest
    if power_of_two:
        others = [np.exp2(np.ceil(np.log2(widest)) - k) for k in range(8)]
    elif bits == 1:
        others = [scales * factor for factor in (0.7, 0.9, 1.1, 1.4)]
    else:
        others = [widest * 0.96**k for k in range(64)]
    for other in others:
        assert (missed(scales) <= missed(other) * (1 + 1e-5)).all()


def test_binary_weights_have_their_mean_magnitude() -> None:
    weight = np.array([[0.5, -1.5, 1.0], [-0.1, 0.0, 0.2]])
    code = weight_code(weight, 1, 0)
    assert code.scale == pytest.approx((1.0, 0.1))
    assert weight_codes(weight, code).tolist() == [[1, -1, 1], [-1, 1, 1]]


def test_ternary_weights_are_three() -> None:
    weight = np.random.default_rng(0).normal(size=(1, 10000))
    code = weight_code(weight, 2, 0)
    assert set(np.unique(weight_codes(weight, code))) == {-1, 0, 1}
    assert code.scale[0] == pytest.approx(1.224, rel=0.04)  # the best for normal weights (Li et al. 2016, section 2.2)


@settings(max_examples=60, deadline=None)
@given(st.floats(-100, 0), st.floats(0.01, 100), st.integers(4, 16))
def test_an_activation_code_of_a_power_of_two_covers_its_range(low: float, high: float, bits: int) -> None:
    code = activation_code(low, high, bits, power_of_two=True)
    (scale,), (zero,) = code.scale, code.zero
    assert 2.0 ** round(np.log2(scale)) == scale
    assert (code.lowest - zero) * scale <= low + scale
    assert (code.highest - zero) * scale >= high - scale
    assert scale < 2.1 * affine(low, high, bits).scale[0]
    assert zero == 0 or bits <= 8


# ranges


def histogram(values: Array) -> Histogram:
    counts, edges = np.histogram(values, 2048)
    return Histogram(low=float(edges[0]), high=float(edges[-1]), counts=counts)


def coding_error(values: Array, clip: tuple[float, float], bits: int) -> float:
    code = affine(*clip, bits)
    return float(np.mean((code.decode(code.encode(values)) - values) ** 2))


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("rectified", [False, True])
def test_outliers_do_not_decide_a_chosen_range(bits: int, rectified: bool) -> None:
    rng = np.random.default_rng(bits)
    body = np.maximum(rng.normal(size=200_000), 0) if rectified else rng.normal(size=200_000)
    everything = np.append(body, [40.0, -0.0 if rectified else -45.0])
    seen = histogram(everything)
    whole = choose(seen, RangeRule.MIN_MAX, bits)
    assert whole == (seen.low, seen.high)
    least = coding_error(everything, choose(seen, RangeRule.MSE, bits), bits)
    assert least < (0.1 if bits == 4 else 0.9) * coding_error(everything, whole, bits)
    for rule in (RangeRule.PERCENTILE, RangeRule.ENTROPY):
        clip = choose(seen, rule, bits)
        assert 2 < clip[1] < 12, rule
        assert -12 < clip[0] <= 0, rule
        assert coding_error(body, clip, bits) < 0.3 * coding_error(body, whole, bits), rule


def test_the_range_of_least_error_is_no_worse_than_any_other() -> None:
    values = np.random.default_rng(0).laplace(size=100_000)
    clip = choose(histogram(values), RangeRule.MSE, 4)
    least = coding_error(values, clip, 4)
    for bound in (1.0, 2.0, 4.0, 6.0, 8.0):
        assert least <= coding_error(values, (-bound, bound), 4) * 1.01


def test_a_value_that_never_changes_has_its_own_range() -> None:
    for rule in RangeRule:
        assert choose(Histogram(low=3.0, high=3.0, counts=np.array([5])), rule, 8) == (3.0, 3.0)


def test_chosen_ranges_make_a_network_with_outliers_better() -> None:
    """A bright pixel in one of the calibration samples; what counts is the error on clean ones."""
    graph = trained("lenet5")
    x = DATA.train.real().copy()
    x[0, 3, 3] = 40.0
    errors: dict[RangeRule, float] = {}
    for rule in RangeRule:
        precision = Precision(activations=6)
        integer = quantize(graph, find_ranges(graph, x, rule, precision), Rounding.DOUBLE, precision)
        errors[rule] = error(graph, integer, DATA.test.real())
    assert errors[RangeRule.MSE] < 0.7 * errors[RangeRule.MIN_MAX]
    assert errors[RangeRule.PERCENTILE] < 0.3 * errors[RangeRule.MIN_MAX]


# equalization


def uneven(activation: Activation = Activation.RELU) -> Graph:
    """Convolution, depthwise convolution, pooling, flattening, two dense layers; channels of very different size."""
    rng, b = np.random.default_rng(0), Builder()

    def spread(*shape: int) -> Array:
        return rng.normal(size=shape) * np.exp(2 * rng.normal(size=shape[-1]))

    x = b.input("x", (6, 6, 2))
    pad = Windows(kernel=(3, 3), padding=(1, 1, 1, 1))
    w, c = b.constant("w1", np.moveaxis(spread(3, 3, 2, 4), -1, 0)), b.constant("c1", rng.normal(size=4))
    x = b.add(Conv2d(windows=pad, activation=activation), x, w, c, name="conv")
    w, c = b.constant("w2", spread(3, 3, 8)), b.constant("c2", rng.normal(size=8))
    x = b.add(DepthwiseConv2d(windows=pad, multiplier=2, activation=activation), x, w, c, name="depth")
    x = b.add(Reshape(shape=(72,)), b.add(MaxPool(windows=Windows(kernel=(2, 2), stride=(2, 2))), x))
    w, c = b.constant("w3", spread(5, 72)), b.constant("c3", rng.normal(size=5))
    x = b.add(Dense(activation=activation), x, w, c, name="first")
    w, c = b.constant("w4", spread(3, 5)), b.constant("c4", rng.normal(size=3))
    return b.graph(b.add(Dense(), x, w, c, name="last"))


def test_equalization_evens_the_channels_and_keeps_the_function() -> None:
    graph = uneven()
    even = equalize(graph)
    x = np.random.default_rng(1).normal(size=(20, 6, 6, 2)).astype(np.float32)
    before = reference.run(graph, x)
    assert np.allclose(reference.run(even, x), before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
    w1, w2, w3, w4 = (np.abs(even.constants[f"w{i}"]) for i in range(1, 5))
    pairs = (
        (w1.max(axis=(1, 2, 3)), w2.reshape(9, 4, 2).max(axis=(0, 2))),
        (w2.max(axis=(0, 1)), w3.reshape(5, 9, 8).max(axis=(0, 1))),
        (w3.max(axis=1), w4.max(axis=0)),
    )
    for made, read in pairs:
        assert np.allclose(made, read, rtol=0.01)
    assert equalize(even).constants["w3"] == pytest.approx(even.constants["w3"], rel=0.01)


def test_equalized_weights_lose_less_with_one_scale_for_a_layer() -> None:
    graph = uneven()
    x = np.random.default_rng(1).normal(size=(60, 6, 6, 2)).astype(np.float32)
    precision = Precision(weights=6, activations=16, per_channel=False)

    def missed(graph: Graph) -> float:
        ranges = find_ranges(graph, x, RangeRule.MIN_MAX, precision)
        return error(graph, quantize(graph, ranges, Rounding.DOUBLE, precision), x)

    assert missed(equalize(graph)) < 0.5 * missed(graph)


def test_what_a_scale_cannot_pass_is_not_equalized() -> None:
    graph = uneven(Activation.RELU6)
    assert equalize(graph) == graph
    b = Builder()
    x = b.input("x", (3,))
    y = b.add(Dense(), x, b.constant("w", np.eye(3)), b.constant("c", np.ones(3)))
    y = b.add(Relu6(), y)
    stopped = b.graph(b.add(Dense(), y, b.constant("v", 7 * np.eye(3)), b.constant("d", np.ones(3))))
    assert equalize(stopped) == stopped
    names = [b.constant(f"n{i}", np.ones(3)) for i in range(4)]
    with pytest.raises(GraphError, match=r"norm \(BatchNorm\): would undo the scaling; run FoldNorms first"):
        equalize(b.graph(b.add(BatchNorm(), x, *names, name="norm")))


# corrected biases and learned rounding


@pytest.mark.parametrize("name", ["lenet5", "dscnn"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_corrected_biases_lower_the_error_on_samples_not_seen(name: str, bits: int) -> None:
    graph, x = trained(name), DATA.train.real()
    integer = quantized(graph, Precision(weights=bits))
    corrected = correct_biases(graph, integer, x)
    assert error(graph, corrected, DATA.test.real()) < error(graph, integer, DATA.test.real())
    weights = [n for n in integer.constants if n.endswith("weight")]
    assert all(np.array_equal(corrected.constants[n], integer.constants[n]) for n in weights)
    assert corrected.types == integer.types


def test_corrected_biases_give_the_means_of_the_float_network() -> None:
    graph, x = trained("lenet5"), DATA.train.real()
    integer = quantized(graph, Precision(weights=3))
    corrected = correct_biases(graph, integer, x)
    truth = reference.run(graph, x).mean(axis=0)
    code = code_of(integer, "logits")
    before, after = (np.abs(code.decode(exact.run(g, x)).mean(axis=0) - truth).max() for g in (integer, corrected))
    assert after <= 0.6 * code.scale[0]
    assert before > 3 * after


@pytest.mark.parametrize(("name", "bits"), [("lenet5", 2), ("lenet5", 4), ("dscnn", 3)])
def test_learned_rounding_lowers_the_error_on_samples_not_seen(name: str, bits: int) -> None:
    graph, x = trained(name), DATA.train.real()
    integer = quantized(graph, Precision(weights=bits))
    learnt = learn_rounding(graph, integer, x, np.random.default_rng(0))
    assert error(graph, learnt, DATA.test.real()) < 0.6 * error(graph, integer, DATA.test.real())
    for node in integer.nodes:
        if node.op.channel_axis is not None:
            codes, nearest = (g.constants[node.inputs[1]].astype(int) for g in (learnt, integer))
            assert np.abs(codes - nearest).max() <= 1
            assert np.abs(codes).max() <= code_of(integer, node.inputs[1]).highest
    assert learn_rounding(graph, integer, x, np.random.default_rng(0)) == learnt


def test_binary_weights_are_not_rounded_otherwise() -> None:
    graph = trained("lenet5")
    integer = quantized(graph, Precision(weights=1))
    assert learn_rounding(graph, integer, DATA.train.real(), np.random.default_rng(0)) == integer

"""How much channels matter: each measure against what it claims, worked out another way."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from crosslayer.core.dataset import Split
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import Layer, layers
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Add, Concat, Conv2d, Dense, Reshape, Sigmoid, Windows
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.execute.torch import gradients
from crosslayer.networks.zoo import network
from crosslayer.prune.importance import MEASURES, Importance
from crosslayer.prune.importance.attribution import conductance
from crosslayer.testing.chance import Seeded
from crosslayer.testing.graphs import float_graph

SLOPES = (Importance.TAYLOR, Importance.FISHER, Importance.ATTRIBUTION)


def samples(graph: Graph, count: int, classes: int = 5) -> Split:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, *graph.types[graph.inputs[0]].shape)).astype(np.float32)
    return Split(codes=x, labels=rng.integers(0, classes, count))


def losses(graph: Graph, split: Split) -> Array:
    """Cross-entropy of each sample, by NumPy in float64, from logits or shares."""
    y = reference.run(graph, split.real()).astype(np.float64)
    if not np.allclose(y.sum(1), 1) or y.min() < 0:
        y = np.exp(y - y.max(1, keepdims=True))
    return -np.log(y[np.arange(len(y)), split.labels] / y.sum(1))


def shaken(graph: Graph) -> Graph:
    """The graph with random biases and statistics."""
    rng = np.random.default_rng(2)
    return replace(
        graph,
        constants={
            name: value if value.ndim > 1 else rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
            for name, value in graph.constants.items()
        },
    )


def residual() -> Graph:
    """Channels that are added, joined and read by several layers, without a kink."""
    rng, b = np.random.default_rng(0), Builder()

    def conv(name: str, x: str, out: int) -> str:
        weight = b.constant(f"{name}.w", rng.normal(size=(out, 1, 1, b.shape(x)[2])))
        return b.add(Conv2d(windows=Windows(kernel=(1, 1))), x, weight, b.constant(f"{name}.b", rng.normal(size=out)))

    x = b.add(Sigmoid(), conv("a", b.input("x", (3, 2, 2)), 4))
    y = b.add(Add(), x, b.add(Sigmoid(), conv("b", x, 4)))
    z = b.add(Concat(), y, conv("c", y, 2))
    flat = b.add(Reshape(shape=(36,)), z)
    return b.graph(b.add(Dense(), flat, b.constant("w", rng.normal(size=(5, 36)) / 3), b.constant("v", np.zeros(5))))


def gated(graph: Graph, layer: Layer, channel: int, gate: float) -> Graph:
    """All that is read of a channel, times a factor."""
    constants = {name: value.copy() for name, value in graph.constants.items()}
    for (name, axis), places in layer.channels[channel].places.items():
        if name in constants and constants[name].ndim > 1 and axis == constants[name].ndim - 1:
            constants[name][..., list(places)] *= gate
    return replace(graph, constants=constants)


def slopes(graph: Graph, found: Sequence[Layer], split: Split) -> list[Array]:
    """By finite differences: what each sample's loss (samples, channels) falls by as the gate of a channel closes."""
    step = 1e-2
    return [
        np.stack(
            [
                (losses(gated(graph, layer, i, 1 + step), split) - losses(gated(graph, layer, i, 1 - step), split))
                / (2 * step)
                for i in range(len(layer.channels))
            ],
            axis=1,
        )
        for layer in found
    ]


@pytest.mark.parametrize("measure", Importance)
def test_every_measure_scores_every_channel_of_every_layer_alike_each_time(measure: Importance) -> None:
    graph = shaken(network("resnet8", (8, 8, 2), 5, 0))
    found, split = layers(graph), samples(graph, 9)
    scores = measure(graph, found, split)
    assert [len(s) for s in scores] == [len(layer.channels) for layer in found]
    assert all(s.dtype == np.float64 and (s >= 0).all() and len(np.unique(s)) > 1 for s in scores)
    for once, again in zip(scores, measure(graph, found[::-1], split)[::-1], strict=True):
        np.testing.assert_array_equal(once, again)


def test_every_measure_is_named_and_listed() -> None:
    assert set(MEASURES) == set(Importance)


@pytest.mark.parametrize("measure", Importance)
def test_every_measure_takes_random_networks(measure: Importance) -> None:
    taken = 0
    for seed in range(15):
        graph = float_graph(Seeded(seed))
        found = layers(graph)
        if graph.types[graph.outputs[0]].shape == (graph.types[graph.outputs[0]].size,):
            scores = measure(graph, found, samples(graph, 3, graph.types[graph.outputs[0]].size))
            assert not any(np.isnan(s).any() for s in scores)
            taken += len(found) > 0
    assert taken > 3


@pytest.mark.parametrize("measure", [Importance.L1, Importance.L2, Importance.ACTIVATION, *SLOPES])
def test_a_channel_that_does_nothing_matters_least(measure: Importance) -> None:
    graph = network("lenet5", (12, 12, 1), 5, 0)
    weight = graph.constants["conv2.weight"].copy()
    weight[3] = 0
    graph = replace(graph, constants={**graph.constants, "conv2.weight": weight})
    _, second, *_ = measure(graph, layers(graph), samples(graph, 8))
    assert second[3] == 0 < np.delete(second, 3).min()


def test_weights_are_averaged_over_all_filters_of_a_channel() -> None:
    graph = residual()
    weights = {"a.w": [[1, -2], [0, 0], [1, 1], [3, 4]], "b.w": [[1] * 4, [0] * 4, [2] * 4, [-4, 3, -4, 3]]}
    changed = {n: np.array(v, np.float32).reshape(4, 1, 1, -1) for n, v in weights.items()}
    graph = replace(graph, constants={**graph.constants, **changed})
    first, *_ = layers(graph)
    assert len(first.nodes) == 2
    for measure, expected in {
        Importance.L1: [7 / 6, 0, 10 / 6, 21 / 6],
        Importance.L2: np.sqrt(np.array([9, 0, 18, 75]) / 6),
    }.items():
        (scores,) = measure(graph, [first], samples(graph, 1))
        np.testing.assert_allclose(scores, expected)


def test_depthwise_filters_and_scales_of_norms_count_for_the_channel_that_they_keep() -> None:
    graph = shaken(network("mobilenet", (8, 8, 1), 5, 0))
    (first, *_), c = layers(graph), graph.constants
    stem, deep = (np.abs(c[f"{name}.weight"].astype(np.float64)) for name in ("stem", "block1_depth"))
    expected = (stem.sum((1, 2, 3)) + deep.sum((0, 1))) / (stem[0].size + deep[..., 0].size)
    (scores,) = Importance.L1(graph, [first], samples(graph, 1))
    np.testing.assert_allclose(scores, expected)
    (scores,) = Importance.BATCH_NORM(graph, [first], samples(graph, 1))
    np.testing.assert_allclose(scores, (c["stem.norm.gamma"] + c["block1_depth.norm.gamma"]) / 2)


def test_what_has_no_norm_is_not_judged_by_one() -> None:
    graph = network("lenet5", (12, 12, 1), 5, 0)
    assert all(np.isinf(s).all() for s in Importance.BATCH_NORM(graph, layers(graph), samples(graph, 1)))


def test_activation_is_the_mean_of_what_is_read() -> None:
    graph = network("lenet5", (12, 12, 1), 5, 0)
    split = samples(graph, 70)  # more than a batch
    values = reference.trace(graph, split.real())
    scores = Importance.ACTIVATION(graph, layers(graph), split)
    by_node = {layer.nodes[0]: s for layer, s in zip(layers(graph), scores, strict=True)}
    second, last = (graph.producers[graph.producers[n].inputs[0]] for n in ("conv2", "logits"))
    np.testing.assert_allclose(by_node["conv1"], np.abs(values[second.name]).mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(scores[-1], np.abs(values[last.name]).mean(0), rtol=1e-5)


def test_slopes_of_constants_are_those_of_the_mean_loss() -> None:
    graph, rng = residual(), np.random.default_rng(1)
    split = samples(graph, 6)
    found = gradients(graph, split.real(), split.labels, constants=["a.w", "w", "b.b"])
    assert found.reads == {}
    for name, slope in found.constants.items():
        way = rng.normal(size=slope.shape).astype(np.float32) * 1e-2
        ends = [{**graph.constants, name: graph.constants[name] + sign * way} for sign in (1, -1)]
        above, below = (losses(replace(graph, constants=end), split).mean() for end in ends)
        assert (above - below) / 2 == pytest.approx((slope * way).sum(), rel=1e-2, abs=1e-6)


def test_what_a_layer_reads_has_the_slope_of_its_own_reading_only() -> None:
    """A value that is added too is read by two; the gates of both together make the difference."""
    graph = residual()
    split = samples(graph, 6)
    found = layers(graph)
    expected = slopes(graph, found, split)
    scores = Importance.FISHER(graph, found, split)
    for slope, score in zip(expected, scores, strict=True):
        np.testing.assert_allclose(score, np.square(slope).mean(0) / 2, rtol=0.02)


def test_a_loss_of_reconstruction_has_slopes_too() -> None:
    graph = network("autoencoder", (12,), 5, 0)
    split = samples(graph, 4)
    for scores in Importance.FISHER(graph, layers(graph), split):
        assert (scores >= 0).all() and scores.max() > 0


def test_taylor_is_the_squared_slope_along_scale_and_shift() -> None:
    """Both grow by a share: the loss changes by that share of the sum, to first order."""
    graph = shaken(network("resnet8", (8, 8, 2), 5, 0))
    split = samples(graph, 5)
    found = [layer for layer in layers(graph) if len(layer.nodes) == 1][:1]
    (name,) = found[0].nodes
    (scores,) = Importance.TAYLOR(graph, found, split)
    for i in (0, 7):
        ends: list[float] = []
        for factor in (1.01, 0.99):
            constants = {n: v.copy() for n, v in graph.constants.items()}
            for role in ("gamma", "beta"):
                constants[f"{name}.norm.{role}"][i] *= factor
            ends.append(losses(replace(graph, constants=constants), split).mean())
        assert scores[i] == pytest.approx(((ends[0] - ends[1]) / 0.02) ** 2, rel=0.1, abs=1e-9)


def test_taylor_without_a_norm_is_the_squared_slope_along_all_weights_of_each_layer() -> None:
    graph = residual()
    split = samples(graph, 6)
    (first, *_) = layers(graph)
    slope = gradients(graph, split.real(), split.labels, constants=["a.w", "a.b", "b.w", "b.b"]).constants
    both = [
        sum((slope[f"{name}.{part}"] * graph.constants[f"{name}.{part}"]).reshape(4, -1).sum(1) for part in "wb")
        for name in "ab"
    ]
    np.testing.assert_allclose(Importance.TAYLOR(graph, [first], split)[0], np.square(both).sum(0), rtol=1e-4)


def test_conductance_adds_up_to_what_the_samples_change_of_the_loss() -> None:
    """Over what any one layer reads that lies on all ways (Dhamdhere et al. 2018, completeness)."""
    graph = residual()
    split = samples(graph, 5)
    dark = replace(split, codes=np.zeros_like(split.codes))
    ends = graph.nodes[0].name, graph.outputs[0]
    shares = conductance(graph, split.real(), split.labels, ends)
    change = losses(graph, split) - losses(graph, dark)
    assert np.abs(change).min() > 0.05
    for name in ends:
        np.testing.assert_allclose(shares[name].sum(1), change, atol=5e-3)


def test_attribution_is_the_mean_size_of_the_conductance() -> None:
    graph = network("lenet5", (12, 12, 1), 5, 0)
    split = samples(graph, 5)
    first, *_ = layers(graph)
    shares = conductance(graph, split.real(), split.labels, ["conv2"])["conv2"]
    np.testing.assert_allclose(Importance.ATTRIBUTION(graph, [first], split)[0], np.abs(shares).mean(0), rtol=1e-5)

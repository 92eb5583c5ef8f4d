"""Channels that live and die together: cutting them out is the same as multiplying them by zero."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import Channel, Layer, layers, remove
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    MaxPool,
    Mul,
    Relu,
    Reshape,
    Softmax,
    Windows,
)
from crosslayer.core.quant import Array
from crosslayer.execute import exact, reference
from crosslayer.networks.zoo import NETWORKS, Network, network
from crosslayer.prune.importance import magnitude
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.graphs import float_graph, integer_graph
from crosslayer.testing.networks import check_network

POINT = Windows(kernel=(1, 1))
SMALL = {"autoencoder": (12,), "vgg11": (8, 8, 1)}


def some(graph: Graph, chance: Chance) -> list[Channel]:
    """A random choice of removable channels that leaves each layer at least one."""
    doomed: dict[int, Channel] = {}
    for layer in layers(graph):
        spared = chance.integer(0, len(layer.channels) - 1)
        for i, channel in enumerate(layer.channels):
            if i != spared and chance.rarely(2):
                doomed[channel.index] = channel
    return [c for c in doomed.values() if not empties(graph, c, list(doomed.values()))]


def empties(graph: Graph, channel: Channel, doomed: Sequence[Channel]) -> bool:
    """Whether an axis that the channel is on would lose all its places."""
    for axis in channel.places:
        lost = {i for c in doomed for i in c.places.get(axis, ())}
        if len(lost) == graph.types[axis[0]].shape[axis[1]]:
            return True
    return False


def readers(graph: Graph) -> set[tuple[str, int]]:
    """The axes of weights along which a layer reads its input's channels."""
    axes: set[tuple[str, int]] = set()
    for node in graph.nodes:
        if isinstance(node.op, (Conv2d, Dense)):
            axes.add((node.inputs[1], graph.constants[node.inputs[1]].ndim - 1))
    return axes


def makers(graph: Graph) -> set[tuple[str, int]]:
    """The axes of constants along which a layer or a normalization makes its result's channels."""
    axes: set[tuple[str, int]] = set()
    for node in graph.nodes:
        if node.op.channel_axis is not None:
            axes |= {(node.inputs[1], node.op.channel_axis), (node.inputs[2], 0)}
        if isinstance(node.op, BatchNorm):
            axes |= {(name, 0) for name in node.inputs[1:4]}
    return axes


def zeroed(graph: Graph, doomed: Sequence[Channel], axes: set[tuple[str, int]]) -> Graph:
    """The graph with zeros at the places of these channels along some axes of constants."""
    constants = {name: value.copy() for name, value in graph.constants.items()}
    for channel in doomed:
        for (name, axis), places in channel.places.items():
            if (name, axis) in axes:
                np.moveaxis(constants[name], axis, 0)[list(places)] = 0
    return replace(graph, constants=constants)


def shuffled(graph: Graph, seed: int) -> Graph:
    """The graph with random biases and statistics: fresh networks have zeros and ones there."""
    rng = np.random.default_rng(seed)

    def changed(value: Array) -> Array:
        return value if value.ndim > 1 else rng.uniform(0.5, 1.5, value.shape).astype(np.float32)

    return replace(graph, constants={name: changed(value) for name, value in graph.constants.items()})


def real_inputs(graph: Graph) -> Array:
    return np.random.default_rng(5).normal(size=(3, *graph.types[graph.inputs[0]].shape)).astype(np.float32)


def assert_close(a: Array, b: Array) -> None:
    assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(b).max())))


@cache
def zoo(name: str) -> Graph:
    return shuffled(network(name, SMALL.get(name, (12, 12, 2)), 5, 1), 2)


@cache
def cut(name: str) -> tuple[list[Channel], Graph]:
    """Channels of a network, and the network without them."""
    doomed = some(zoo(name), Seeded(7))
    return doomed, remove(zoo(name), doomed)


@settings(max_examples=80, deadline=None)
@given(grown(lambda chance: (float_graph(chance), chance.rng().integers(2**32))))
def test_removing_is_not_reading(drawn: tuple[Graph, int]) -> None:
    """In floats, up to the order of sums."""
    graph, seed = drawn
    doomed = some(graph, Seeded(seed))
    x = real_inputs(graph)
    assert_close(reference.run(remove(graph, doomed), x), reference.run(zeroed(graph, doomed, readers(graph)), x))


@settings(max_examples=80, deadline=None)
@given(grown(lambda chance: (integer_graph(chance, chance.one_of(tuple(Rounding))), chance.rng().integers(2**32))))
def test_removing_from_integers_is_not_reading_to_the_bit(drawn: tuple[Graph, int]) -> None:
    graph, seed = drawn
    assume(
        all(graph.types[n].quant is None or graph.types[n].quant.bits > 1 for n in graph.constants)
    )  # ±1 has no zero
    doomed = some(graph, Seeded(seed))
    x = random_inputs(graph, Seeded(seed), 5)
    smaller = remove(graph, doomed)
    expected = reference.run(zeroed(graph, doomed, readers(graph)), x)
    assert np.array_equal(reference.run(smaller, x), expected)
    assert np.array_equal(exact.run(smaller, x), expected)


def test_random_networks_have_channels_to_remove() -> None:
    """Otherwise the two properties above say nothing."""
    counts = [len(some(float_graph(Seeded(seed)), Seeded(seed))) for seed in range(100)]
    assert sum(count > 0 for count in counts) > 20


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_removing_is_making_zeros_in_every_network(name: str) -> None:
    """A filter, its bias and its normalization made zero: the channel is zero from there to where it is read."""
    graph = zoo(name)
    x = real_inputs(graph)
    doomed, smaller = cut(name)
    assert len(doomed) > 10
    after = exact.run(smaller, x)
    assert_close(after, exact.run(zeroed(graph, doomed, makers(graph)), x))
    assert_close(after, exact.run(zeroed(graph, doomed, readers(graph)), x))
    assert not np.allclose(after, exact.run(graph, x))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_sizes_after_removing_are_as_predicted(name: str) -> None:
    graph = zoo(name)
    doomed, smaller = cut(name)
    lost: dict[tuple[str, int], set[int]] = {}
    for channel in doomed:
        for axis, places in channel.places.items():
            lost.setdefault(axis, set()).update(places)
    shapes = {
        value: tuple(size - len(lost.get((value, axis), ())) for axis, size in enumerate(kind.shape))
        for value, kind in graph.types.items()
    }
    assert {value: kind.shape for value, kind in smaller.types.items()} == shapes
    assert smaller.parameters == sum(int(np.prod(shapes[c])) for c in graph.constants)
    assert sum(smaller.macs.values()) == sum(macs(node, shapes) for node in graph.nodes)
    assert {n.name: type(n.op) for n in smaller.nodes} == {n.name: type(n.op) for n in graph.nodes}
    for end in (*graph.inputs, *graph.outputs):
        assert smaller.types[end] == graph.types[end]


def macs(node: Node, shapes: dict[str, tuple[int, ...]]) -> int:
    """Each weight, once for each place of the output."""
    if not isinstance(node.op, (Conv2d, DepthwiseConv2d, Dense)):
        return 0
    return int(np.prod(shapes[node.name][:-1]) * np.prod(shapes[node.inputs[1]]))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_keeps_its_promises(name: str) -> None:
    shapes = {"autoencoder": [(12,), (5, 3, 1)], "vgg11": [(8, 8, 1)]}
    check_network(NETWORKS[name], shapes.get(name, [(8, 8, 1), (13, 10, 3)]))


def stubborn(shape: Shape, classes: int, seed: int) -> Graph:
    return network("lenet5", shape, classes, 0)


def headless(shape: Shape, classes: int, seed: int) -> Graph:
    return network("lenet5", shape, classes + 1, seed)


def picky(shape: Shape, classes: int, seed: int) -> Graph:
    raise GraphError("never")


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (stubborn, "the seed does not decide the weights"),
        (headless, "its output is neither the classes nor the input"),
        (picky, "takes none of"),
    ],
)
def test_a_network_that_breaks_a_promise_is_noticed(build: Network, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_network(build, [(8, 8, 1)])


def test_removing_nothing_changes_nothing_and_removing_all_is_refused() -> None:
    graph = zoo("lenet5")
    assert remove(graph, []) == graph
    first = layers(graph)[0]
    with pytest.raises(GraphError, match=r"cannot lose all 6 channels; keep one"):
        remove(graph, first.channels)
    assert remove(graph, first.channels[1:]).types["conv1"].shape[-1] == 1


def test_removing_in_two_steps_is_removing_at_once() -> None:
    graph = zoo("resnet8")
    both = [layers(graph)[0].channels[3], layers(graph)[0].channels[7], layers(graph)[1].channels[2]]
    partway = remove(graph, both[:1])
    again = [layers(partway)[0].channels[6], layers(partway)[1].channels[2]]
    assert remove(partway, again) == remove(graph, both)


class Net:
    """A short way to write networks down whose weights do not matter."""

    def __init__(self, *shape: int) -> None:
        self.b = Builder()
        self.x = self.b.input("x", shape)

    def conv(self, name: str, x: str, out: int, groups: int = 1) -> str:
        w = self.b.constant(f"{name}.w", np.ones((out, 1, 1, self.b.shape(x)[2] // groups)))
        return self.b.add(Conv2d(windows=POINT, groups=groups), x, w, self.bias(name, out), name=name)

    def depthwise(self, name: str, x: str, multiplier: int = 1) -> str:
        out = self.b.shape(x)[2] * multiplier
        w = self.b.constant(f"{name}.w", np.ones((1, 1, out)))
        op = DepthwiseConv2d(windows=POINT, multiplier=multiplier)
        return self.b.add(op, x, w, self.bias(name, out), name=name)

    def dense(self, name: str, x: str, out: int) -> str:
        shape = self.b.shape(x)
        flat = x if len(shape) == 1 else self.b.add(Reshape(shape=(int(np.prod(shape)),)), x)
        w = self.b.constant(f"{name}.w", np.ones((out, self.b.shape(flat)[0])))
        return self.b.add(Dense(), flat, w, self.bias(name, out), name=name)

    def bias(self, name: str, out: int) -> str:
        return self.b.constant(f"{name}.b", np.zeros(out))

    def found(self, output: str) -> tuple[Layer, ...]:
        return layers(self.b.graph(output))


def sizes(found: Sequence[Layer]) -> dict[str, int]:
    """How many channels may go, by the nodes that make them."""
    return {" ".join(layer.nodes): len(layer.channels) for layer in found}


def test_the_ends_of_a_network_stay() -> None:
    net = Net(2, 2, 3)
    assert sizes(net.found(net.conv("last", net.conv("first", net.x, 4), 5))) == {"first": 4}


def test_what_is_added_or_multiplied_goes_together() -> None:
    for op in (Add, Mul):
        net = Net(2, 2, 3)
        a, b = net.conv("a", net.x, 4), net.conv("b", net.x, 4)
        joined = net.b.add(Relu(), net.b.add(op(), a, b))
        assert sizes(net.found(net.dense("last", joined, 2))) == {"a b": 4}


def test_what_is_added_to_the_input_stays() -> None:
    net = Net(2, 2, 3)
    assert sizes(net.found(net.dense("last", net.b.add(Add(), net.conv("a", net.x, 3), net.x), 2))) == {}


def test_what_is_joined_goes_alone() -> None:
    net = Net(2, 2, 3)
    joined = net.b.add(Concat(), net.conv("a", net.x, 4), net.conv("b", net.x, 2))
    found = net.found(net.dense("last", joined, 2))
    assert sizes(found) == {"a": 4, "b": 2}
    assert found[1].channels[0].places["last.w", 1] == (4, 10, 16, 22)


def test_what_is_joined_along_another_axis_goes_together() -> None:
    net = Net(2, 2, 3)
    joined = net.b.add(Concat(axis=0), net.conv("a", net.x, 4), net.conv("b", net.x, 4))
    assert sizes(net.found(net.dense("last", joined, 2))) == {"a b": 4}


def test_a_depthwise_layer_goes_with_what_it_reads() -> None:
    net = Net(2, 2, 3)
    found = net.found(net.dense("last", net.depthwise("d", net.conv("a", net.x, 4), multiplier=2), 2))
    assert sizes(found) == {"a": 4}
    places = found[0].channels[1].places
    assert (places["d.w", 2], places["d.b", 0], places["a.w", 0]) == ((2, 3), (2, 3), (1,))


def test_groups_stay() -> None:
    net = Net(2, 2, 4)
    grouped = net.conv("grouped", net.conv("a", net.x, 4), 6, groups=2)
    assert sizes(net.found(net.dense("last", net.conv("b", grouped, 5), 2))) == {"b": 5}


def test_shares_stay() -> None:
    net = Net(4)
    shares = net.b.add(Softmax(), net.dense("a", net.x, 3))
    assert sizes(net.found(net.dense("last", net.dense("b", shares, 5), 2))) == {"b": 5}


def test_a_pixel_in_a_vector_is_a_channel_at_many_places() -> None:
    net = Net(2, 3, 1)
    pooled = net.b.add(MaxPool(windows=POINT), net.conv("a", net.x, 4))
    found = net.found(net.dense("last", pooled, 2))
    assert found[0].channels[1].places["last.w", 1] == tuple(range(1, 24, 4))
    net = Net(2, 3, 1)
    mean = net.b.add(GlobalMean(), net.conv("a", net.x, 4))
    assert net.found(net.dense("last", mean, 2))[0].channels[1].places["last.w", 1] == (1,)


def test_a_reshape_that_breaks_channels_up_holds_them_together() -> None:
    net = Net(6)
    image = net.b.add(Reshape(shape=(3, 2, 1)), net.dense("a", net.x, 6))
    found = net.found(net.dense("last", net.conv("b", image, 3), 2))
    assert sizes(found) == {"a": 1, "b": 3}
    with pytest.raises(GraphError, match="cannot lose all"):
        remove(net.b.graph("last"), found[0].channels)


def test_importance_is_the_mean_weight_of_a_channels_filters() -> None:
    net = Net(2, 2, 1)
    graph = net.b.graph(net.dense("last", net.b.add(Add(), net.conv("a", net.x, 3), net.conv("b", net.x, 3)), 2))
    weights = {"a.w": [1.0, -2.0, 0.0], "b.w": [3.0, 2.0, 0.0]}
    changed = {n: np.array(v, np.float32).reshape(3, 1, 1, 1) for n, v in weights.items()}
    graph = replace(graph, constants={**graph.constants, **changed})
    assert magnitude(graph, layers(graph)[0]) == [2.0, 2.0, 0.0]

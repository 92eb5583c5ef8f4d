"""Channels that live and die together: cutting them out is the same as multiplying them by zero."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import Channel, Layer, layers, remove, together
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import (
    Add,
    BatchNorm,
    Concat,
    Constant,
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
from crosslayer.read.torch import from_module
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.graphs import EXAMPLES, Growth, float_graph, integer_graph
from crosslayer.testing.networks import check_network

POINT = Windows(kernel=(1, 1))
SMALL = {"autoencoder": (12,), "vgg11": (8, 8, 1)}


def some(graph: Graph, chance: Chance) -> tuple[Channel, ...]:
    """A random choice of channels that can be removed together."""
    found = [channel for layer in layers(graph) for channel in layer.channels]
    order = chance.rng().permutation(len(found))[: (len(found) + 1) // 2]
    return together(graph, [found[i] for i in order])


def random_graph(chance: Chance, rounding: Rounding | None = None) -> Graph:
    """A random network, every third one with convolutions in groups on channels that may go."""
    if not chance.rarely(3):
        return float_graph(chance) if rounding is None else integer_graph(chance, rounding)
    growth = Growth(chance, rounding)
    x = growth.mixed(growth.input((3, 4, 2), coded=rounding is not None), chance.one_of((4, 6, 8)))
    for _ in range(2):
        x = EXAMPLES[Conv2d].apply(growth, x)
    return growth.graph(growth.mixed(x, 2))


def readers(graph: Graph) -> set[tuple[str, int]]:
    """The axes of weights along which a layer reads its input's channels."""
    axes: set[tuple[str, int]] = set()
    for node in graph.nodes:
        if isinstance(node.op, (Conv2d, Dense)):
            axes.add((node.inputs[1], graph.constants[node.inputs[1]].ndim - 1))
    return axes


def makers(graph: Graph) -> set[tuple[str, int]]:
    """The axes of constants along which a layer, a normalization or a constant makes its result's channels."""
    axes: set[tuple[str, int]] = set()
    for node in graph.nodes:
        if node.op.channel_axis is not None:
            axes |= {(node.inputs[1], node.op.channel_axis), (node.inputs[2], 0)}
        if isinstance(node.op, BatchNorm):
            axes |= {(name, 0) for name in node.inputs[1:4]}
        if isinstance(node.op, Constant):
            axes.add((node.inputs[0], graph.constants[node.inputs[0]].ndim - 1))
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
def cut(name: str) -> tuple[tuple[Channel, ...], Graph]:
    """Channels of a network, and the network without them."""
    doomed = some(zoo(name), Seeded(7))
    return doomed, remove(zoo(name), doomed)


@settings(max_examples=80, deadline=None)
@given(grown(lambda chance: (random_graph(chance), chance.rng().integers(2**32))))
def test_removing_is_not_reading(drawn: tuple[Graph, int]) -> None:
    """In floats, up to the order of sums."""
    graph, seed = drawn
    doomed = some(graph, Seeded(seed))
    x = real_inputs(graph)
    assert_close(reference.run(remove(graph, doomed), x), reference.run(zeroed(graph, doomed, readers(graph)), x))


@settings(max_examples=80, deadline=None)
@given(grown(lambda chance: (random_graph(chance, chance.one_of(tuple(Rounding))), chance.rng().integers(2**32))))
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


@settings(max_examples=80, deadline=None)
@given(grown(lambda chance: (random_graph(chance), chance.rng().integers(2**32))))
def test_removing_is_making_zeros_where_zeros_stay_zeros(drawn: tuple[Graph, int]) -> None:
    graph, seed = drawn
    doomed = some(graph, Seeded(seed))
    x = real_inputs(graph)
    dark = zeroed(graph, doomed, makers(graph))
    values = reference.trace(dark, x)
    assume(stay_zero(values, doomed))
    assert_close(reference.run(remove(graph, doomed), x), values[graph.outputs[0]])


def stay_zero(values: dict[str, Array], doomed: Sequence[Channel]) -> bool:
    """Whether the channels are zero wherever they are: no function of zero, such as a sigmoid, is another."""
    lit = (values[n][..., places] for c in doomed for (n, _), places in c.places.items() if n in values)
    return not any(value.any() for value in lit)


def test_random_networks_have_channels_to_remove() -> None:
    """Otherwise the properties above say nothing."""
    graphs = [random_graph(Seeded(seed)) for seed in range(100)]
    chosen = [some(graph, Seeded(seed)) for seed, graph in enumerate(graphs)]
    dark = [zeroed(graph, doomed, makers(graph)) for graph, doomed in zip(graphs, chosen, strict=True)]
    stay = [stay_zero(reference.trace(g, real_inputs(g)), doomed) for g, doomed in zip(dark, chosen, strict=True)]
    assert sum(zero and len(doomed) > 0 for zero, doomed in zip(stay, chosen, strict=True)) > 30
    whole, inside = 0, 0
    for graph, doomed in zip(graphs, chosen, strict=True):
        smaller = remove(graph, doomed)
        for node in graph.nodes:
            if isinstance(node.op, Conv2d) and node.op.groups > 1:
                whole += smaller.producers[node.name].op != node.op
                inside += smaller.types[node.inputs[1]].shape[3] < graph.types[node.inputs[1]].shape[3]
    assert min(whole, inside) > 3


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


class Imported(torch.nn.Module):
    """What PyTorch users write: groups, a depthwise layer, a residual sum, a join, channels flattened first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.pairs = torch.nn.Conv2d(8, 8, 3, groups=2, padding=1)
        self.deep = torch.nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.side = torch.nn.Conv2d(8, 5, 1)
        self.hidden, self.last = torch.nn.Linear(13 * 16, 10), torch.nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.cat([torch.relu(self.deep(self.pairs(x))) + x, self.side(x)], 1)
        return self.last(torch.relu(self.hidden(torch.flatten(torch.max_pool2d(x, 2), 1))))


def test_removing_is_not_reading_in_an_imported_network() -> None:
    torch.manual_seed(0)
    graph = shuffled(from_module(Imported().eval(), (3, 8, 8)), 2)
    assert [len(layer.channels) for layer in layers(graph)] == [4, 5, 10]
    x = real_inputs(graph)
    for seed in range(10):
        doomed = some(graph, Seeded(seed))
        smaller = remove(graph, doomed)
        assert_as_predicted(graph, doomed, smaller)
        assert_close(exact.run(smaller, x), exact.run(zeroed(graph, doomed, readers(graph)), x))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_sizes_after_removing_are_as_predicted(name: str) -> None:
    doomed, smaller = cut(name)
    assert_as_predicted(zoo(name), doomed, smaller)


@settings(max_examples=60, deadline=None)
@given(grown(lambda chance: (random_graph(chance), chance.rng().integers(2**32))))
def test_sizes_of_random_networks_are_as_predicted(drawn: tuple[Graph, int]) -> None:
    graph, seed = drawn
    doomed = some(graph, Seeded(seed))
    assert_as_predicted(graph, doomed, remove(graph, doomed))


def assert_as_predicted(graph: Graph, doomed: Sequence[Channel], smaller: Graph) -> None:
    """Only from which channels of activations are gone: what the layers of the original take without them."""
    alive = {name: np.ones(kind.shape[-1], bool) for name, kind in graph.types.items() if name not in graph.constants}
    for channel in doomed:
        for (name, axis), places in channel.places.items():
            if name in alive:
                assert axis == len(graph.types[name].shape) - 1
                alive[name][list(places)] = False
    parameters: dict[str, int] = {}
    macs = 0
    for node in graph.nodes:
        shape, out = graph.types[node.name].shape, alive[node.name]
        assert smaller.types[node.name].shape == (*shape[:-1], out.sum())
        match node.op:
            case Conv2d(groups=groups):
                x, (high, wide) = alive[node.inputs[0]], node.op.windows.kernel
                pairs = [a.sum() * b.sum() for a, b in zip(np.split(x, groups), np.split(out, groups), strict=True)]
                parameters[node.inputs[1]] = high * wide * sum(pairs)
            case DepthwiseConv2d():
                parameters[node.inputs[1]] = np.prod(node.op.windows.kernel) * out.sum()
            case Dense():
                parameters[node.inputs[1]] = alive[node.inputs[0]].sum() * out.sum()
            case BatchNorm():
                parameters |= dict.fromkeys(node.inputs[1:], out.sum())
            case Constant():
                parameters[node.inputs[0]] = np.prod(shape[:-1]) * out.sum()
            case _:
                continue
        if node.op.channel_axis is not None:
            parameters[node.inputs[2]] = out.sum()
            macs += np.prod(shape[:-1]) * parameters[node.inputs[1]]
    assert {name: value.size for name, value in smaller.constants.items()} == parameters
    assert smaller.parameters == sum(parameters.values())
    assert sum(smaller.macs.values()) == macs
    assert {n.name: type(n.op) for n in smaller.nodes} == {n.name: type(n.op) for n in graph.nodes}
    for end in (*graph.inputs, *graph.outputs):
        assert smaller.types[end] == graph.types[end]


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


def test_few_inputs_go_with_their_whole_group() -> None:
    net = Net(2, 2, 3)
    grouped = net.conv("grouped", net.conv("a", net.x, 4), 6, groups=2)
    output = net.dense("last", net.conv("b", grouped, 5), 2)
    found = net.found(output)
    assert sizes(found) == {"a grouped": 2, "b": 5}
    places = found[0].channels[1].places
    assert (places["a", 2], places["grouped", 2], places["grouped.w", 0]) == ((2, 3), (3, 4, 5), (3, 4, 5))
    assert ("grouped.w", 3) not in places
    smaller = remove(net.b.graph(output), found[0].channels[:1])
    assert smaller.producers["grouped"].op == Conv2d(windows=POINT, groups=1)


def test_of_large_groups_equal_positions_go_together() -> None:
    net = Net(2, 2, 3)
    grouped = net.conv("grouped", net.conv("a", net.x, 6), 4, groups=2)
    output = net.dense("last", net.conv("b", grouped, 5), 2)
    found = net.found(output)
    assert sizes(found) == {"a": 3, "grouped": 2, "b": 5}
    assert found[0].channels[1].places["a", 2] == (1, 4)
    assert found[0].channels[1].places["grouped.w", 3] == (1,)
    assert found[1].channels[1].places["grouped", 2] == (1, 3)
    smaller = remove(net.b.graph(output), [found[0].channels[0], found[1].channels[1]])
    assert smaller.producers["grouped"].op == Conv2d(windows=POINT, groups=2)
    assert smaller.types["grouped.w"].shape == (2, 1, 1, 2)


def test_one_input_in_each_group_is_a_depthwise_layer() -> None:
    net = Net(2, 2, 3)
    found = net.found(net.dense("last", net.conv("d", net.conv("a", net.x, 4), 8, groups=4), 2))
    assert sizes(found) == {"a d": 4}
    assert found[0].channels[3].places["d", 2] == (6, 7)


def test_layers_that_share_some_channels_are_one() -> None:
    """Each of two joined ones lies in a part of what is added to both."""
    net = Net(2, 2, 3)
    whole, joined = net.conv("a", net.x, 4), net.b.add(Concat(), net.conv("b", net.x, 1), net.conv("c", net.x, 3))
    output = net.dense("last", net.b.add(Add(), whole, joined), 2)
    (found,) = net.found(output)
    assert (found.nodes, len(found.channels)) == (("a", "b", "c"), 4)
    graph = net.b.graph(output)
    with pytest.raises(GraphError, match="b: cannot lose all 1 channels"):
        remove(graph, found.channels[:1])
    assert together(graph, found.channels) == found.channels[1:3]
    assert remove(graph, together(graph, found.channels)).types["a"].shape[-1] == 2


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


def test_a_vector_cut_into_pixels_is_channels_at_many_places() -> None:
    for shape, count in {(3, 1, 4): 4, (2, 3, 2): 2, (2, 2, 3): 3, (1, 1, 12): 12, (12, 1, 1): 1}.items():
        net = Net(6)
        image = net.b.add(Reshape(shape=shape), net.dense("a", net.x, 12))
        output = net.dense("last", net.conv("b", image, 2), 2)
        first = net.found(output)[0]
        assert (first.nodes, len(first.channels)) == (("a",), count)
    net = Net(6)
    pixels = net.b.add(Reshape(shape=(2, 6)), net.b.add(Reshape(shape=(3, 4)), net.dense("a", net.x, 12)))
    first = net.found(net.dense("last", pixels, 2))[0]
    assert [channel.places["a", 0] for channel in first.channels] == [tuple(range(i, 12, 2)) for i in range(2)]

"""The coupled channels are those that torch-pruning finds (Fang et al. 2023, "DepGraph", arXiv 2301.12900)."""

from typing import Any

import numpy as np
import pytest
import torch
from torch_mirror import Members, Mirror, members

from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import Channel, layers
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    MaxPool,
    Relu,
    Reshape,
    Windows,
)
from crosslayer.execute.reference import run
from crosslayer.networks.zoo import network

torch_pruning = pytest.importorskip("torch_pruning")


def ours(graph: Graph, channel: Channel) -> Members:
    found: set[tuple[str, str, int]] = set()
    for node in graph.nodes:
        op = node.op
        if isinstance(op, (Conv2d, Dense)):
            last = len(graph.types[node.inputs[1]].shape) - 1
            found |= {(node.name, "in", i) for i in channel.places.get((node.inputs[1], last), ())}
        if op.channel_axis is not None or isinstance(op, BatchNorm):
            found |= {(node.name, "out", i) for i in channel.places.get((node.inputs[1], op.channel_axis or 0), ())}
    return frozenset(found)


def theirs(dependencies: Any, mirror: Mirror, name: str, index: int) -> Members:
    start = mirror.parts[name.replace(".", ":")]
    linear = isinstance(start, torch.nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    return members(mirror, mirror.graph, dependencies.get_pruning_group(start, prune, idxs=[index]))


class Sketched:
    """A short way to write residual and joined networks down."""

    def __init__(self, *shape: int) -> None:
        self.b = Builder()
        self.rng = np.random.default_rng(0)
        self.x = self.b.input("x", shape)

    def conv(self, name: str, x: str, out: int) -> str:
        windows = Windows(kernel=(3, 3), padding=(1, 1, 1, 1))
        w = self.b.constant(f"{name}.w", self.rng.normal(size=(out, 3, 3, self.b.shape(x)[2])))
        y = self.b.add(
            Conv2d(windows=windows), x, w, self.b.constant(f"{name}.b", self.rng.normal(size=out)), name=name
        )
        stats = [self.b.constant(f"{name}.n{i}", self.rng.uniform(0.5, 1, out)) for i in range(4)]
        return self.b.add(Relu(), self.b.add(BatchNorm(), y, *stats, name=f"{name}.norm"))

    def classified(self, x: str) -> Graph:
        flat = self.b.add(Reshape(shape=(int(np.prod(self.b.shape(x))),)), x)
        size = self.b.shape(flat)[0]
        w = self.b.constant("last.w", self.rng.normal(size=(3, size)))
        return self.b.graph(self.b.add(Dense(), flat, w, self.b.constant("last.b", np.zeros(3)), name="last"))


def dense_block() -> Graph:
    """Each convolution reads all before it (Huang et al. 2017), the last one too: torch-pruning 1.6 does not see where
    the parts lie of what goes into a dense layer joined."""
    net = Sketched(6, 6, 2)
    x = net.conv("stem", net.x, 4)
    for i in range(3):
        x = net.b.add(Concat(), x, net.conv(f"grow{i}", x, 3))
    pooled = net.b.add(MaxPool(windows=Windows(kernel=(2, 2), stride=(2, 2))), net.conv("transition", x, 6))
    return net.classified(pooled)


def joined_residuals() -> Graph:
    """Two residual branches of other widths, joined, added to a third."""
    net = Sketched(6, 6, 2)
    left, right = net.conv("left", net.x, 4), net.conv("right", net.x, 3)
    left = net.b.add(Add(), left, net.conv("left2", left, 4))
    right = net.b.add(Add(), right, net.conv("right2", right, 3))
    joined = net.b.add(Concat(), left, right)
    return net.classified(net.b.add(Add(), joined, net.conv("both", joined, 7)))


NETWORKS = {
    "resnet8": lambda: network("resnet8", (16, 16, 3), 4, 0),
    "mobilenet": lambda: network("mobilenet", (32, 32, 3), 4, 0),
    "vgg11": lambda: network("vgg11", (32, 32, 3), 4, 0),
    "dscnn": lambda: network("dscnn", (16, 10, 1), 4, 0),
    "lenet5": lambda: network("lenet5", (16, 16, 1), 4, 0),
    "dense block": dense_block,
    "joined residuals": joined_residuals,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_coupled_channels_are_those_of_torch_pruning(name: str) -> None:
    """For every layer but the classifier its first, its last and some channel between."""
    graph = NETWORKS[name]()
    mirror = Mirror(graph).eval()
    x = np.random.default_rng(1).normal(size=(2, *graph.types[graph.inputs[0]].shape)).astype(np.float32)
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    assert np.allclose(mirror(image).detach().numpy(), run(graph, x), rtol=1e-3, atol=1e-4)
    dependencies = torch_pruning.DependencyGraph().build_dependency(mirror, example_inputs=image)
    found = {
        member: channel
        for layer in layers(graph)
        for c in layer.channels
        for channel in [ours(graph, c)]
        for member in channel
    }
    *makers, _ = [n for n in graph.nodes if isinstance(n.op, (Conv2d, Dense))]
    for node in makers:
        size = graph.types[node.name].shape[-1]
        for index in sorted({0, size // 3, size - 1}):
            assert theirs(dependencies, mirror, node.name, index) == found[node.name, "out", index]

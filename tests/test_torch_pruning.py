"""The coupled channels are those that torch-pruning finds (Fang et al. 2023, "DepGraph", arXiv 2301.12900)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import Channel, layers
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    MaxPool,
    Relu,
    Reshape,
    Softmax,
    Windows,
)
from crosslayer.execute.reference import run
from crosslayer.networks.zoo import network

torch_pruning = pytest.importorskip("torch_pruning")

Members = frozenset[tuple[str, str, int]]
"""(node, "out" or "in", channel)"""


class Mirror(torch.nn.Module):
    """A float graph of modules, channels first, as torch-pruning knows them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.parts = torch.nn.ModuleDict()
        for node in graph.nodes:
            if (made := module(graph, node)) is not None:
                self.parts[node.name.replace(".", ":")] = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {self.graph.inputs[0]: x}
        for node in self.graph.nodes:
            inputs = [values[n] for n in self.graph.activations(node)]
            name = node.name.replace(".", ":")
            match node.op:
                case Conv2d() | DepthwiseConv2d():
                    top, bottom, left, right = node.op.windows.padding
                    padded = F.pad(inputs[0], (left, right, top, bottom)) if top + bottom + left + right else inputs[0]
                    values[node.name] = self.parts[name](padded)
                case Dense() | BatchNorm():
                    values[node.name] = self.parts[name](inputs[0])
                case Relu():
                    values[node.name] = torch.relu(inputs[0])
                case MaxPool():
                    values[node.name] = F.max_pool2d(inputs[0], node.op.windows.kernel, node.op.windows.stride)
                case GlobalMean():
                    values[node.name] = inputs[0].mean((2, 3))
                case Reshape():
                    values[node.name] = inputs[0].flatten(1)
                case Add():
                    values[node.name] = inputs[0] + inputs[1]
                case Concat():
                    values[node.name] = torch.cat(inputs, 1)
                case Softmax():
                    values[node.name] = torch.softmax(inputs[0], 1)
                case _:
                    raise AssertionError(node)
        return values[self.graph.outputs[0]]


def module(graph: Graph, node: Node) -> torch.nn.Module | None:
    values = [torch.from_numpy(graph.constants[n].copy()) for n in node.inputs if n in graph.constants]
    made: torch.nn.Module
    match node.op:
        case Conv2d(windows=w):
            out, *kernel, inside = values[0].shape
            made = torch.nn.Conv2d(inside, out, kernel, w.stride, 0, w.dilation)
            values[0] = values[0].permute(0, 3, 1, 2)
        case DepthwiseConv2d(windows=w):
            *kernel, out = values[0].shape
            made = torch.nn.Conv2d(out, out, kernel, w.stride, 0, w.dilation, groups=out)
            values[0] = values[0].permute(2, 0, 1)[:, None]
        case Dense():
            made = torch.nn.Linear(values[0].shape[1], values[0].shape[0])
            values[0] = values[0][:, order(graph, node)]
        case BatchNorm():
            made = torch.nn.BatchNorm2d(len(values[0]), eps=node.op.epsilon)
            made.running_mean, made.running_var = values[2:]
        case _:
            return None
    made.weight, made.bias = (torch.nn.Parameter(value.contiguous()) for value in values[:2])
    return made


def order(graph: Graph, node: Node) -> list[int]:
    """For each column of a dense layer, channels first, its place here."""
    before = graph.producers.get(node.inputs[0])
    if before is None or not isinstance(before.op, Reshape):
        return list(range(graph.types[node.inputs[0]].size))
    shape = graph.types[before.inputs[0]].shape
    return np.moveaxis(np.arange(np.prod(shape)).reshape(shape), -1, 0).ravel().tolist()


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


def theirs(graph: Graph, dependencies: Any, parts: Mapping[str, torch.nn.Module], name: str, index: int) -> Members:
    names = {id(part): key.replace(":", ".") for key, part in parts.items()}
    start = parts[name.replace(".", ":")]
    linear = isinstance(start, torch.nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    found: set[tuple[str, str, int]] = set()
    for dependency, indices in dependencies.get_pruning_group(start, prune, idxs=[index]):
        node = graph.producers.get(names.get(id(dependency.target.module), ""))
        if node is None:
            continue
        reads = "in_channels" in dependency.handler.__name__ and isinstance(node.op, (Conv2d, Dense))
        places = [order(graph, node)[i] for i in indices] if reads and isinstance(node.op, Dense) else indices
        found |= {(node.name, "in" if reads else "out", i) for i in places}
    return frozenset(found)


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
            assert theirs(graph, dependencies, mirror.parts, node.name, index) == found[node.name, "out", index]

"""A float graph as a module of PyTorch's own layers, channels first, and what torch-pruning finds coupled in it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

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
)

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


def members(mirror: Mirror, graph: Graph, group: Iterable[tuple[Any, list[int]]]) -> Members:
    """The channels of a group of torch-pruning, in `graph`, whose shapes the mirror has at that time."""
    names = {id(part): key.replace(":", ".") for key, part in mirror.parts.items()}
    found: set[tuple[str, str, int]] = set()
    for dependency, indices in group:
        node = graph.producers.get(names.get(id(dependency.target.module), ""))
        if node is None:
            continue
        reads = "in_channels" in dependency.handler.__name__ and isinstance(node.op, (Conv2d, Dense))
        places = [order(graph, node)[i] for i in indices] if reads and isinstance(node.op, Dense) else indices
        found |= {(node.name, "in" if reads else "out", i) for i in places}
    return frozenset(found)

"""Cross-layer equalization: evening out the channels of neighbouring layers before they are quantized."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.edit import only_reader
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Pad,
    Relu,
    Reshape,
)
from crosslayer.core.quant import Array
from crosslayer.core.stage import Stage

_EVEN = (AveragePool, GlobalMean, LeakyRelu, MaxPool, Pad, Relu, Reshape)
"""Operations with f(s · x) = s · f(x) for every channel's s > 0."""
_ROUNDS, _DONE = 100, 1e-3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Equalize(Stage):
    """Rescales each channel between two layers so that both use the same range for it: same function, finer codes.

    Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1). Worth most where weights have one scale
    for a whole layer, and for depthwise convolutions. Comes after FoldNorms. Relu6 does not let scales through, and
    stays.
    """

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The equalized design; notes: how many pairs of layers."""
        graph = equalize(design.graph)
        return replace(design, graph=graph, plan=None), {"pairs": len(list(_pairs(design.graph)))}


def equalize(graph: Graph) -> Graph:
    """The same float function, in which the largest weights into and out of each channel are equal.

    Raises `GraphError` where a batch normalization is left.
    """
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            raise GraphError(f"{node.name} (BatchNorm): would undo the scaling; run FoldNorms first")
    constants = {name: value.astype(np.float64) for name, value in graph.constants.items()}
    pairs = list(_pairs(graph))
    for _ in range(_ROUNDS):
        moved = max([_balance(constants, graph, *pair) for pair in pairs], default=0.0)
        if moved < _DONE:
            break
    return replace(graph, constants={name: value.astype(np.float32) for name, value in constants.items()})


def _pairs(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Layers and the layer that alone reads them, with nothing between that would not let a scale through."""
    for layer in graph.nodes:
        if not isinstance(layer.op, (Conv2d, DepthwiseConv2d, Dense)) or layer.op.activation is Activation.RELU6:
            continue
        reader, channels = only_reader(graph, layer.name), graph.types[layer.name].shape[-1]
        while (
            reader is not None and isinstance(reader.op, _EVEN) and graph.types[reader.name].shape[-1] % channels == 0
        ):
            reader = only_reader(graph, reader.name)
        grouped = reader is not None and isinstance(reader.op, Conv2d) and reader.op.groups > 1
        if reader is None or grouped or not isinstance(reader.op, (Conv2d, DepthwiseConv2d, Dense)):
            continue
        if all(len(graph.users[n]) == 1 for node in (layer, reader) for n in node.inputs[1:]):
            yield layer, reader


def _balance(constants: dict[str, Array], graph: Graph, first: Node, second: Node) -> float:
    """Evens the channels between two layers; returns the logarithm of the largest change."""
    channels = graph.types[first.name].shape[-1]
    axis = first.op.channel_axis
    assert axis is not None
    weight, bias = first.inputs[1:]
    taps = np.moveaxis(constants[weight], axis, -1)  # views: what is scaled in them is scaled in the constant
    reading, places = _reading(constants[second.inputs[1]], second, channels)
    made = np.abs(taps).reshape(-1, channels).max(axis=0)
    read = np.zeros(channels)
    np.maximum.at(read, places, np.abs(reading).reshape(-1, len(places)).max(axis=0))
    alive = (made > 0) & (read > 0)
    scale = np.sqrt(np.where(alive, made, 1.0) / np.where(alive, read, 1.0))
    taps /= scale
    constants[bias] /= scale
    reading *= scale[places]
    return float(np.abs(np.log(scale)).max())


def _reading(weight: Array, node: Node, channels: int) -> tuple[Array, Array]:
    """A layer's weight as a view (…, inputs), and the channel of the layer before that each input is."""
    if isinstance(node.op, DepthwiseConv2d):
        return weight, np.arange(weight.shape[-1]) // node.op.multiplier
    return weight, np.arange(weight.shape[-1]) % channels  # a map that was flattened has its channels last

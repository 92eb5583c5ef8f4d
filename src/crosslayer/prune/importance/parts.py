"""What of a network belongs to a channel: the weights that make it, its normalizations, and the values read of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Axis, Channel, Layer
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import BatchNorm, Conv2d, Dense
from crosslayer.core.quant import Array

_BATCH = 64


def scored(layers: Sequence[Layer], score: Callable[[Channel], float]) -> tuple[Array, ...]:
    """The score of each channel of each layer."""
    return tuple(np.array([score(channel) for channel in layer.channels], np.float64) for layer in layers)


def batches(samples: Split) -> Iterator[tuple[Array, Array]]:
    """Inputs (batch, …) and labels (batch,)."""
    for start in range(0, len(samples), _BATCH):
        chosen = slice(start, start + _BATCH)
        yield samples.real(chosen), samples.labels[chosen]


def makers(graph: Graph, channel: Channel) -> Iterator[tuple[Axis, ...]]:
    """For each layer that makes the channel, depthwise ones too, its weight and its bias."""
    for node in graph.nodes:
        axis = node.op.channel_axis
        if axis is not None and (node.inputs[1], axis) in channel.places:
            yield (node.inputs[1], axis), (node.inputs[2], 0)


def norms(graph: Graph, channel: Channel) -> Iterator[tuple[Axis, ...]]:
    """For each normalization of the channel its gamma and its beta."""
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm) and (node.inputs[1], 0) in channel.places:
            yield (node.inputs[1], 0), (node.inputs[2], 0)


def taken(graph: Graph, channel: Channel, axis: Axis) -> Array:
    """The values of a constant that belong to the channel."""
    return np.take(graph.constants[axis[0]], channel.places[axis], axis=axis[1]).astype(np.float64)


def readers(graph: Graph, channels: Sequence[Channel]) -> tuple[str, ...]:
    """The layers that take some of the channels into their sums, as what else reads them keeps them apart."""
    return tuple(n.name for n in graph.nodes if any(_reads(n, channel) for channel in channels))


def every(layers: Sequence[Layer]) -> list[Channel]:
    """The channels of all layers."""
    return [channel for layer in layers for channel in layer.channels]


def columns(graph: Graph, channel: Channel, read: Mapping[str, Array]) -> Array:
    """The columns (batch, places) that belong to the channel, of what its readers read as (batch, channels)."""
    found = [
        read[node.name][:, channel.places[node.inputs[0], len(graph.types[node.inputs[0]].shape) - 1]]
        for node in graph.nodes
        if node.name in read and _reads(node, channel)
    ]
    return np.concatenate(found, axis=1) if found else np.zeros((1, 0))


def by_channel(values: Array) -> Array:
    """Sums over all places of values (batch, …, channels): (batch, channels), float64."""
    return values.reshape(len(values), -1, values.shape[-1]).sum(1, dtype=np.float64)


def _reads(node: Node, channel: Channel) -> bool:
    return isinstance(node.op, (Conv2d, Dense)) and (node.inputs[1], 3 if isinstance(node.op, Conv2d) else 1) in (
        channel.places
    )

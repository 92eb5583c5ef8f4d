"""How much each channel of a layer matters."""

import numpy as np

from crosslayer.core.graph.channels import Channel, Layer
from crosslayer.core.graph.graph import Graph


def magnitude(graph: Graph, layer: Layer) -> list[float]:
    """For each removable channel the mean absolute weight of its filters (Li et al. 2017, "Pruning filters")."""
    return [_mean_weight(graph, layer, channel) for channel in layer.channels]


def _mean_weight(graph: Graph, layer: Layer, channel: Channel) -> float:
    total, count = 0.0, 0
    for name in layer.nodes:
        node = graph.producers[name]
        weight, axis = node.inputs[1], node.op.channel_axis
        if axis is None or (weight, axis) not in channel.places:
            continue
        taken = np.take(graph.constants[weight], channel.places[weight, axis], axis=axis)
        total, count = total + float(np.abs(taken, dtype=np.float64).sum()), count + taken.size
    return total / max(count, 1)

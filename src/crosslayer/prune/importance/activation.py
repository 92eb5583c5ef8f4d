"""Importance by the size of values."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.execute import exact, reference
from crosslayer.prune.importance.parts import batches, by_channel, columns, every, readers, scored


def activation(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """The mean absolute value of what layers read of a channel (Molchanov et al. 2017, arXiv 1611.06440).

    Hu et al. 2016 (arXiv 1607.03250) count the zeros of it instead, which needs rectifiers.
    """
    channels = every(layers)
    sources = {name: graph.producers[name].inputs[0] for name in readers(graph, channels)}
    totals = {channel.index: 0.0 for channel in channels}
    for x, _ in batches(samples):
        values = {
            name: by_channel(np.abs(value)) / (value[0].size // value.shape[-1])
            for name, value in reference.walk(graph, x, exact.evaluate)
            if name in sources.values()
        }
        sizes = {name: values[source] for name, source in sources.items()}
        for channel in channels:
            found = columns(graph, channel, sizes)
            totals[channel.index] += float(found.sum()) / max(1, found.shape[1])
    return scored(layers, lambda channel: totals[channel.index] / len(samples))

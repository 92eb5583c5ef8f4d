"""Importance by the loss's curvature."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.parts import batches, by_channel, columns, every, readers, scored


def fisher(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """Half the diagonal of the Hessian along a gate of each channel, by the empirical Fisher information.

    ½ mean over samples of (Σ a·∂L/∂a)², the sum over all that layers read of the channel, a: a network at its optimum
    loses that much by closing the gate (Theis et al. 2018, arXiv 1801.05787). Coupled channels have one gate (Liu et
    al. 2021, "Group Fisher pruning", arXiv 2108.00708).
    """
    from crosslayer.execute.torch import gradients  # PyTorch is loaded only by who needs gradients

    channels = every(layers)
    totals = {channel.index: 0.0 for channel in channels}
    for x, labels in batches(samples):
        reads = gradients(graph, x, labels, reads=readers(graph, channels)).reads
        slopes = {name: by_channel(value * slope) for name, (value, slope) in reads.items()}
        for channel in channels:
            totals[channel.index] += float(np.square(columns(graph, channel, slopes).sum(1)).sum())
    return scored(layers, lambda channel: totals[channel.index] / (2 * len(samples)))

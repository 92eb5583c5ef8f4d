"""Importance by what the loss owes to a channel."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.parts import batches, by_channel, columns, every, readers, scored

_STEPS = 8


def attribution(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """The mean over samples of |∫ ∂L/∂a · da|, the sum over all that layers read of the channel, a, as the input goes
    from zeros to the sample.

    Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of hidden values, called conductance (Dhamdhere et
    al. 2018, arXiv 1805.12233): over all that one layer reads they add up to what the sample changes of the loss.
    """
    channels = every(layers)
    totals = {channel.index: 0.0 for channel in channels}
    for x, labels in batches(samples):
        shares = conductance(graph, x, labels, readers(graph, channels))
        for channel in channels:
            totals[channel.index] += float(np.abs(columns(graph, channel, shares).sum(1)).sum())
    return scored(layers, lambda channel: totals[channel.index] / len(samples))


def conductance(graph: Graph, x: Array, labels: Array, readers: Sequence[str], steps: int = _STEPS) -> dict[str, Array]:
    """For each reader what each sample's loss owes to the channels (batch, channels) that it reads: trapezoids."""
    from crosslayer.execute.torch import gradients  # PyTorch is loaded only by who needs gradients

    before = gradients(graph, np.zeros_like(x), labels, reads=readers).reads
    shares = {name: np.zeros((len(x), value.shape[-1])) for name, (value, _) in before.items()}
    for step in range(1, steps + 1):
        after = gradients(graph, x * np.float32(step / steps), labels, reads=readers).reads
        for name, (value, slope) in after.items():
            earlier, slope_before = before[name]
            shares[name] += by_channel((slope_before + slope) / 2 * (value - earlier))
        before = after
    return shares

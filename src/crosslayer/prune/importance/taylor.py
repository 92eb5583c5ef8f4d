"""Importance by the loss's slope along the weights."""

from collections.abc import Mapping, Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Axis, Channel, Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.parts import batches, every, makers, norms, scored


def taylor(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """The mean over batches of Σ (Σ g·w)², the loss's change to first order if what makes a channel were zero
    (Molchanov et al. 2019, arXiv 1906.10771).

    The inner sum is over the scale and shift of each normalization of the channel (the paper's Taylor-FO-BN), without
    one over the weights and bias of each layer that makes it.
    """
    from crosslayer.execute.torch import gradients  # PyTorch is loaded only by who needs gradients

    parts = {c.index: tuple(norms(graph, c)) or tuple(makers(graph, c)) for c in every(layers)}
    axes = {axis for sets in parts.values() for axes in sets for axis in axes}
    totals = dict.fromkeys(parts, 0.0)
    for x, labels in batches(samples):
        slopes = gradients(graph, x, labels, constants={name for name, _ in axes}).constants
        change = {axis: _along(slopes[axis[0]] * graph.constants[axis[0]], axis) for axis in axes}
        for channel in every(layers):
            totals[channel.index] += _squares(channel, parts[channel.index], change)
    return scored(layers, lambda channel: totals[channel.index])


def _along(values: Array, axis: Axis) -> Array:
    """Sums over all other axes."""
    return np.moveaxis(values, axis[1], 0).reshape(values.shape[axis[1]], -1).sum(1, dtype=np.float64)


def _squares(channel: Channel, parts: Sequence[Sequence[Axis]], change: Mapping[Axis, Array]) -> float:
    sums = [sum(change[axis][list(channel.places[axis])].sum() for axis in axes) for axes in parts]
    return float(np.square(sums).sum())

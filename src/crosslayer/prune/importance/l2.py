"""Importance by squared weights."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Channel, Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.parts import makers, scored, taken


def l2(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """The root of the mean squared weight of the filters that make a channel (He et al. 2018, arXiv 1808.06866)."""

    def score(channel: Channel) -> float:
        weights = [np.square(taken(graph, channel, weight)).ravel() for weight, _ in makers(graph, channel)]
        return float(np.sqrt(np.concatenate(weights).mean()))

    return scored(layers, score)

"""Importance by absolute weights."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Channel, Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.parts import makers, scored, taken


def l1(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """The mean absolute weight of the filters that make a channel (Li et al. 2017, arXiv 1608.08710)."""

    def score(channel: Channel) -> float:
        weights = [np.abs(taken(graph, channel, weight)).ravel() for weight, _ in makers(graph, channel)]
        return float(np.concatenate(weights).mean())

    return scored(layers, score)

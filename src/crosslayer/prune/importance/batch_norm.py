"""Importance by the scale of normalizations."""

import math
from collections.abc import Sequence

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Channel, Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.parts import norms, scored, taken


def batch_norm(graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
    """The mean |gamma| of the normalizations of a channel (Liu et al. 2017, "Network slimming", arXiv 1708.06519).

    Infinite without one: as in the paper, such layers are left alone.
    """

    def score(channel: Channel) -> float:
        scales = [np.abs(taken(graph, channel, gamma)) for gamma, _ in norms(graph, channel)]
        return float(np.concatenate(scales).mean()) if scales else math.inf

    return scored(layers, score)

"""When a classifier's firmware says that it does not know an input."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.edit import up_to
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array


class Statistic(StrEnum):
    """An integer that is large for inputs like those that a network has learned from."""

    LARGEST = "largest"
    """The code of the largest output. Of logits: Hendrycks et al. 2022, arXiv 1911.11132; of shares: Hendrycks & Gimpel
    2017, arXiv 1610.02136."""
    MARGIN = "margin"
    """By how many codes the largest output is ahead of the second largest."""
    NEAREST = "nearest"
    """Minus the distance of a feature map from that of the nearest class; see `Features`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the features of each class are like: a feature map's codes, summed over its positions, by channel.

    The distance from a class is the sum over channels of `weights` times how far the channel's sum is from the class's
    in `centres` (classes, channels). Lee et al. 2018 (arXiv 1807.03888) measure such averages by Mahalanobis' distance;
    this is the like of it for integers, with one weight for each channel and no squares.
    """

    after: str
    """The node whose result the feature map is."""
    centres: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        sums = [value for centre in self.centres for value in centre]
        if not sums or {len(centre) for centre in self.centres} != {len(self.weights)}:
            raise GraphError(f"features after {self.after} need a centre for each class and a weight for each channel")
        if max(map(abs, sums)) >= 1 << 30 or not all(0 <= weight < 1 << 16 for weight in self.weights):
            raise GraphError(f"features after {self.after}: sums must lie within ±2^30, weights in 0…65535")

    def nearest(self, codes: Array) -> npt.NDArray[np.int64]:
        """Minus the distance from the nearest class (batch,), of feature maps (batch, …, channels)."""
        sums = channel_sums(codes)
        weights = np.array(self.weights, np.int64)
        distances = [np.abs(sums - np.array(centre, np.int64)) @ weights for centre in self.centres]
        return -np.min(distances, axis=0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An input is accepted if the statistic of its codes, those of the outputs or of a feature map, is at least
    `threshold`."""

    statistic: Statistic
    threshold: int
    features: Features | None = None
    """For the statistic `nearest`, and no other."""

    def __post_init__(self) -> None:
        if (self.statistic is Statistic.NEAREST) != (self.features is not None):
            raise GraphError("the statistic nearest is of features, and no other is")

    def watched(self, graph: Graph) -> Graph:
        """The part of the network that computes what the statistic is of."""
        return graph if self.features is None else up_to(graph, self.features.after)

    def values(self, codes: Array) -> npt.NDArray[np.int64]:
        """The statistic (batch,) of results (batch, …) of `watched`."""
        return statistics(self.statistic, codes) if self.features is None else self.features.nearest(codes)

    def accepts(self, codes: Array) -> npt.NDArray[np.bool_]:
        """Whether each input is accepted (batch,), from the results (batch, …) of `watched`."""
        return self.values(codes) >= self.threshold


def statistics(statistic: Statistic, codes: Array) -> npt.NDArray[np.int64]:
    """The statistic (batch,), `largest` or `margin`, of output codes (batch, …).

    >>> statistics(Statistic.MARGIN, np.array([[3, -1, 2]], np.int8)).tolist()
    [1]
    """
    flat = np.sort(codes.reshape(len(codes), -1).astype(np.int64), axis=1)
    return flat[:, -1] if statistic is Statistic.LARGEST else flat[:, -1] - flat[:, -2]


def channel_sums(codes: Array) -> npt.NDArray[np.int64]:
    """(batch, channels): codes (batch, …, channels), summed over all positions."""
    return codes.reshape(len(codes), -1, codes.shape[-1]).sum(axis=1, dtype=np.int64)

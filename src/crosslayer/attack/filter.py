"""A smoothing filter in front of a network."""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.front import with_front
from crosslayer.core.graph.ops import AveragePool, DepthwiseConv2d, Windows
from crosslayer.core.graph.ops.windows import Margins
from crosslayer.core.stage import Stage, check_parameters


class Window(StrEnum):
    """Over which pixels a filter takes the mean of each channel."""

    MEAN = "mean"
    """The square of 2 · radius + 1 pixels; those beyond the edge do not count."""
    DISK = "disk"
    """The pixels at most `radius` away; those beyond the edge are 0."""
    GAUSSIAN = "gaussian"
    """The square, with binomial weights: of radius 1, 1-2-1 in both directions. The edge as in `mean`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FilterInput(Stage):
    """Puts a smoothing filter in front of a float network: it is quantized and shipped, and attacks go through it.

    `mean` and `disk` are the local averages of FAdeML (Khalid et al. 2019, arXiv 1811.01444): over neighbours, and
    within a radius. The filter stops attacks that do not know it. `mean` and `gaussian` are pools, and stay as they are
    whatever is learned after; a disk has weights, which training tunes.
    """

    window: Window = Window.MEAN
    radius: int = 1

    def __post_init__(self) -> None:
        check_parameters((1 <= self.radius <= 8, "radius must lie in 1…8"))

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The filtered design; notes: multiply-accumulates before and after."""
        graph = design.graph
        if graph.is_integer:
            raise GraphError("filters go in front of float networks; put filter-input before quantization")
        filtered = with_front(graph, partial(_FILTERS[self.window], radius=self.radius))
        return replace(design, graph=filtered, plan=None), {"macs": [sum(g.macs.values()) for g in (graph, filtered)]}


def _mean(builder: Builder, x: str, radius: int) -> str:
    size = 2 * radius + 1
    return builder.add(
        AveragePool(windows=Windows(kernel=(size, size), padding=_around(radius))), x, name=f"{x}.filter"
    )


def _disk(builder: Builder, x: str, radius: int) -> str:
    channels = builder.shape(x)[-1]
    away = np.arange(-radius, radius + 1)
    inside = (away[:, None] ** 2 + away**2 <= radius**2).astype(np.float32)
    taps = np.repeat((inside / inside.sum())[..., None], channels, axis=2)
    weight = builder.constant(f"{x}.filter.weight", taps)
    bias = builder.constant(f"{x}.filter.bias", np.zeros(channels))
    windows = Windows(kernel=inside.shape, padding=_around(radius))
    return builder.add(DepthwiseConv2d(windows=windows), x, weight, bias, name=f"{x}.filter")


def _gaussian(builder: Builder, x: str, radius: int) -> str:
    """2 · radius means of 2×2, which lean to either side in turn: binomial weights."""
    y = x
    for turn in range(2 * radius):
        padding = (0, 1, 0, 1) if turn % 2 == 0 else (1, 0, 1, 0)
        y = builder.add(AveragePool(windows=Windows(kernel=(2, 2), padding=padding)), y, name=f"{x}.filter{turn}")
    return y


def _around(radius: int) -> Margins:
    return radius, radius, radius, radius


_FILTERS = {Window.MEAN: _mean, Window.DISK: _disk, Window.GAUSSIAN: _gaussian}

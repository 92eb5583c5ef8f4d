"""Few levels of each input value, in front of a network."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.front import with_front
from crosslayer.core.graph.ops import Activation, Add, Conv2d, DepthwiseConv2d, HardSigmoid, Windows
from crosslayer.core.stage import Stage, check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeInput(Stage):
    """Puts a staircase of few `levels` in 0…1 in front of a float network whose inputs lie in 0…1.

    The mean of steep ramps, one halfway between each two levels, each `width` of their distance wide: small changes of
    what lies near a level do nothing. After QuSecNets (Khalid et al. 2019, arXiv 1811.01437), which has sigmoids in
    place of ramps. With `learned` thresholds and heights are weights, which any training after this stage tunes;
    without, they stay. Attacks go through it as through any operation.
    """

    levels: int = 2
    width: float = 0.2
    learned: bool = False

    def __post_init__(self) -> None:
        check_parameters(
            (2 <= self.levels <= 16, "levels must lie in 2…16"),
            (0.02 <= self.width <= 1, "width must lie in 0.02…1"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with the staircase; notes: its thresholds."""
        if design.graph.is_integer:
            raise GraphError("levels go in front of float networks; put quantize-input before quantization")
        graph = with_front(design.graph, self._learned if self.learned else self._fixed)
        return replace(design, graph=graph, plan=None), {"thresholds": self._thresholds.tolist()}

    @property
    def _thresholds(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return (np.arange(self.levels - 1) + 0.5) / (self.levels - 1)

    @property
    def _slope(self) -> float:
        return (self.levels - 1) / self.width

    def _fixed(self, builder: Builder, x: str) -> str:
        """Operations without weights: a ramp each, and their sum."""
        ramps = [
            builder.add(HardSigmoid(slope=self._slope, offset=0.5 - self._slope * t), x, name=f"{x}.ramp{i}")
            for i, t in enumerate(self._thresholds.tolist())
        ]
        total = ramps[0]
        for i, ramp in enumerate(ramps[1:]):
            total = builder.add(Add(), total, ramp, name=f"{x}.sum{i}")
        if len(ramps) == 1:
            return total
        return builder.add(HardSigmoid(slope=1 / len(ramps), offset=0.0), total, name=f"{x}.levels")

    def _learned(self, builder: Builder, x: str) -> str:
        """A depthwise layer, whose relu6 makes ramps of height 6, and one that adds them up."""
        channels, ramps = builder.shape(x)[-1], self.levels - 1
        steep = np.full((1, 1, channels * ramps), 6 * self._slope)
        starts = np.tile(3 - 6 * self._slope * self._thresholds, channels)
        high = np.full((channels, 1, 1, ramps), 1 / (6 * ramps))
        ramp = DepthwiseConv2d(windows=Windows(kernel=(1, 1)), multiplier=ramps, activation=Activation.RELU6)
        y = builder.add(
            ramp,
            x,
            builder.constant(f"{x}.ramp.weight", steep),
            builder.constant(f"{x}.ramp.bias", starts),
            name=f"{x}.ramp",
        )
        return builder.add(
            Conv2d(windows=Windows(kernel=(1, 1)), groups=channels),
            y,
            builder.constant(f"{x}.levels.weight", high),
            builder.constant(f"{x}.levels.bias", np.zeros(channels)),
            name=f"{x}.levels",
        )

"""Clamps other than those of `Relu` and `Relu6`."""

from dataclasses import dataclass
from typing import Any, final

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.ops.unary import Unary


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp(Unary):
    """min(max(x, low), high)."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise GraphError(f"clamps to {self.low}…{self.high}, which is empty")

    def function(self, xp: Any, x: Any) -> Any:
        """min(max(x, low), high)."""
        return xp.clip(x, self.low, self.high)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HardSigmoid(Unary):
    """min(max(slope · x + offset, 0), 1) (Courbariaux et al. 2015; the slope of 1/6 is MobileNetV3's)."""

    slope: float = 1 / 6
    offset: float = 0.5

    def function(self, xp: Any, x: Any) -> Any:
        """min(max(slope · x + offset, 0), 1)."""
        return xp.clip(x * self.slope + self.offset, 0.0, 1.0)

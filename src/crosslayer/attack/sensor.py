"""What the network's inputs can be."""

from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.dataset import Split
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """The range of the values that reach a network and, where a sensor gives integers, the grid they lie on.

    Attacks work with shares of the range, x in 0…1. `steps` is the number of steps of the grid, such as 255 for 8-bit
    pixels, or 0 if values are continuous; `first` is the integer that stands for `low`.
    """

    low: float
    high: float
    steps: int = 0
    first: int = 0

    @classmethod
    def of(cls, split: Split) -> "Sensor":
        """The sensor that made the samples of a split, as far as they show it."""
        least, most = (float(bound) for bound in (split.codes.min(), split.codes.max()))
        low, high = (bound * split.scale + split.offset for bound in (least, most))
        if not np.issubdtype(split.codes.dtype, np.integer):
            return cls(low=low, high=high)
        return cls(low=low, high=high, steps=round(most - least), first=round(least))

    def shares(self, real: Array) -> Array:
        """Real values as shares of the range, float32, on the grid where there is one."""
        shares = ((real - np.float32(self.low)) / np.float32(self.high - self.low)).clip(0, 1)
        return (np.rint(shares * self.steps) / self.steps if self.steps else shares).astype(np.float32)

    def codes(self, x: Array) -> Array:
        """The sensor's integers, of the smallest type that holds them all, for shares of the range."""
        kind = np.promote_types(np.min_scalar_type(self.first), np.min_scalar_type(self.first + self.steps))
        return (np.rint(x * np.float32(self.steps)) + self.first).astype(kind)

    def real(self, x: Array) -> Array:
        """Shares of the range as real values, those of the grid where there is one, float32."""
        if not self.steps:
            return (x * np.float32(self.high - self.low) + np.float32(self.low)).astype(np.float32)
        step = np.float32((self.high - self.low) / self.steps)
        return (np.rint(x * np.float32(self.steps)) * step + np.float32(self.low)).astype(np.float32)

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
    pixels, or 0 if values are continuous.
    """

    low: float
    high: float
    steps: int = 0

    @classmethod
    def of(cls, split: Split) -> "Sensor":
        """The sensor that made the samples of a split, as far as they show it."""
        least, most = (float(bound) for bound in (split.codes.min(), split.codes.max()))
        steps = round(most - least) if np.issubdtype(split.codes.dtype, np.integer) else 0
        return cls(low=least * split.scale + split.offset, high=most * split.scale + split.offset, steps=steps)

    def shares(self, real: Array) -> Array:
        """Real values as shares of the range, float32."""
        return ((real - np.float32(self.low)) / np.float32(self.high - self.low)).astype(np.float32)

    def real(self, x: Array) -> Array:
        """Shares of the range as real values, those of the grid where there is one, float32."""
        if self.steps:
            x = np.rint(x * np.float32(self.steps)) / np.float32(self.steps)
        return (x * np.float32(self.high - self.low) + np.float32(self.low)).astype(np.float32)

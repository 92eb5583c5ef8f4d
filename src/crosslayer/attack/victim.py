"""What is attacked, as an attacker sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np

from crosslayer.attack.sensor import Sensor
from crosslayer.core.quant import Array

Pullback = Callable[[Array], Array]
"""Slopes of a loss along the logits (batch, classes) -> along the inputs (batch, …)."""


class Surrogate(StrEnum):
    """How the backward pass goes through what has no slope: rounding, saturation, clamps. Forward is always exact."""

    GATED = "gated"
    """No slope where a value is saturated or a rectifier closed, by the integers themselves."""
    LEAKY = "leaky"
    """A tenth of the slope there."""
    PLAIN = "plain"
    """The whole slope everywhere."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Victim:
    """A classifier under attack. Inputs x (batch, …) are shares of the sensor's range, float32 in 0…1.

    `scores` maps real inputs to logits (batch, classes), by the executor whose bytes are those that ship; any callable
    can stand there. `linearize` gives the same logits and a pullback; without it gradient attacks cannot be made.
    """

    sensor: Sensor
    scores: Callable[[Array], Array]
    linearize: Callable[[Array, Surrogate], tuple[Array, Pullback]] | None = None

    def logits(self, x: Array) -> Array:
        """(batch, classes), float32, of what the sensor makes of `x`."""
        return self.scores(self.sensor.real(x))

    def slopes(self, x: Array, surrogate: Surrogate = Surrogate.GATED) -> tuple[Array, Pullback]:
        """Logits and a pullback to `x`; the sensor's rounding is passed straight through."""
        assert self.linearize is not None, "a victim without linearize has no gradients"
        logits, back = self.linearize(self.sensor.real(x), surrogate)
        width = np.float32(self.sensor.high - self.sensor.low)
        return logits, lambda slopes: back(slopes) * width

    def fooled(self, x: Array, labels: Array) -> Array:
        """Whether each sample is not called its label (batch,); of equal logits the first counts."""
        return self.logits(x).argmax(1) != labels


def margins(logits: Array, labels: Array) -> Array:
    """How far the label's logit lies above the largest other (batch,), float64; below 0 the sample fools.

    Of equal logits the first counts, so that 0 fools if the other class comes first.
    """
    rows = np.arange(len(labels))
    others = logits.astype(np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return own - others.max(1)

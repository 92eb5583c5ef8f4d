"""How a backward pass goes through what has no slope. Needs no PyTorch, so that an attack can say it."""

from collections.abc import Callable
from enum import StrEnum

from crosslayer.core.quant import Array

Pullback = Callable[[Array], Array]
"""Slopes of a loss along the logits (batch, classes) -> along the inputs (batch, …)."""


class Surrogate(StrEnum):
    """How the backward pass goes through rounding, saturation and clamps. Forward is always exact.

    Rounding passes a slope as it is (Bengio et al. 2013, arXiv 1308.3432); the three differ in what they do where a
    value is saturated or a rectifier closed. An attack that knows only one of them can be blind where another sees
    (Athalye et al. 2018, arXiv 1802.00420).
    """

    GATED = "gated"
    """No slope there, as in training; in a float network the true gradient."""
    LEAKY = "leaky"
    """A tenth of the slope there."""
    PLAIN = "plain"
    """The whole slope everywhere."""

    @property
    def leak(self) -> float:
        """The share of the slope that passes where a value is saturated or a rectifier closed."""
        return {Surrogate.GATED: 0.0, Surrogate.LEAKY: 0.1, Surrogate.PLAIN: 1.0}[self]

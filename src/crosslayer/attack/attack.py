"""What all attacks have in common."""

import json
from abc import ABC, abstractmethod
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim
from crosslayer.core.codec import dashed, to_plain
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array


class Attack(ABC):
    """A way to change inputs so that a classifier errs.

    A subclass is a frozen dataclass; its fields are its parameters, and `search` is all it writes.
    """

    norms: ClassVar[tuple[Norm, ...]]
    """The norms that it can work under."""
    needs_slopes: ClassVar[bool] = False

    @final
    def __call__(
        self,
        victim: Victim,
        x: Array,
        labels: Array,
        budget: Budget,
        rng: np.random.Generator,
        start: Array | None = None,
    ) -> Array:
        """Samples on the sensor's grid within the budget of `x`, the worst found; `x` where none is worse.

        x (batch, …) are shares of the sensor's range on its grid, labels (batch,) int64; `start` holds samples within
        the budget from which to begin, such as another attack's best. Raises `InputError` for a norm or victim that the
        attack is not made for.
        """
        if budget.norm not in self.norms:
            known = ", ".join(self.norms)
            raise InputError(f"{self.name()} works under {known}, not {budget.norm}; choose another attack or budget")
        if self.needs_slopes and victim.linearize is None:
            raise InputError(f"{self.name()} needs gradients, which this victim has not; choose a black-box attack")
        found = budget.snap(self.search(victim, x, labels, budget, rng, start), x, victim.sensor.steps)
        assert budget.holds(found, x).all(), f"{self.name()} went beyond its budget"
        return found

    @abstractmethod
    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """As `__call__`; what is returned is put onto the sensor's grid afterwards."""

    @final
    def __str__(self) -> str:
        """The attack with its parameters: `pgd(steps=40, …)`."""
        fields = ", ".join(f"{key}={json.dumps(value)}" for key, value in to_plain(self).items())
        return f"{self.name()}({fields})"

    @classmethod
    @final
    def name(cls) -> str:
        """`RandomNoise` is `random-noise`."""
        return dashed(cls.__name__)

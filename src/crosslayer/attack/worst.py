"""What a search by scores has found so far."""

from typing import final

import numpy as np

from crosslayer.attack.budget import Budget
from crosslayer.attack.victim import Victim, margins
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array


@final
class Worst:
    """The worst sample met of each in a batch: one that fools, or else that of least margin.

    `found` (batch, …) are these samples, `least` (batch,) their margins, `fooled` (batch,) whether they fool. Every
    sample that is asked for is one query.
    """

    def __init__(self, victim: Victim, x: Array, labels: Array, budget: Budget) -> None:
        """Ask for the samples as they are: one query each."""
        self.victim, self.origin, self.labels, self.budget = victim, x, labels, budget
        logits = victim.logits(x)
        self.found, self.least, self.fooled = x.copy(), margins(logits, labels), logits.argmax(1) != labels

    @property
    def alive(self) -> Array:
        """The places in the batch of the samples that are not fooled yet."""
        return np.flatnonzero(~self.fooled)

    def within(self, rows: Array, tried: Array) -> Array:
        """The samples nearest to `tried` that the budget and the sensor's grid allow for the places `rows`."""
        origin = self.origin[rows]
        return self.budget.snap(self.budget.project(tried, origin), origin, self.victim.sensor.steps)

    def ask(self, rows: Array, tried: Array) -> Array:
        """The margins of samples within the budget, for the places `rows`, which may repeat; the worst are kept."""
        return self.see(rows, tried, self.victim.logits(tried))

    def see(self, rows: Array, tried: Array, logits: Array) -> Array:
        """As `ask`, for samples whose logits are known."""
        reached, hit = margins(logits, self.labels[rows]), logits.argmax(1) != self.labels[rows]
        order = np.lexsort((reached, ~hit))
        first = order[np.unique(rows[order], return_index=True)[1]]
        places = rows[first]
        worse = (hit[first] & ~self.fooled[places]) | (reached[first] < self.least[places])
        first, places = first[worse], places[worse]
        self.found[places], self.least[places] = tried[first], reached[first]
        self.fooled[places] |= hit[first]
        return reached


def as_images(x: Array) -> Array:
    """Samples (batch, height, width, channels): vectors and sequences become images one pixel wide.

    >>> as_images(np.zeros((2, 5))).shape
    (2, 5, 1, 1)
    """
    match x.shape:
        case (batch, features):
            return x.reshape(batch, features, 1, 1)
        case (batch, length, channels):
            return x.reshape(batch, length, 1, channels)
        case (_, _, _, _):
            return x
        case _:
            raise InputError(f"samples of shape {list(x.shape[1:])} are no vectors, sequences or images")

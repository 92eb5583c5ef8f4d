"""Random changes: what an attack must beat."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.ascent import steepest
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RandomNoise(Attack):
    """The worst of `draws` random changes of each sample: corners of the cube, directions of the ball."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    draws: int = 100

    def __post_init__(self) -> None:
        check_parameters((self.draws >= 1, "draws must be at least 1"))

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The draw that fools, or else that of least margin."""
        worst = Worst(victim, x, labels, budget)
        for _ in range(self.draws):
            rows = worst.alive
            if not len(rows):
                break
            change = rng.standard_normal(x[rows].shape, np.float32)
            worst.ask(rows, worst.within(rows, x[rows] + np.float32(budget.size) * steepest(change, budget.norm)))
        return worst.found

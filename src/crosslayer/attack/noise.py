"""Random changes: what an attack must beat."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim, margins
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
        best, least = x.copy(), margins(victim.logits(x), labels)
        for _ in range(self.draws):
            change = rng.standard_normal(x.shape, np.float32)
            if budget.norm is Norm.LINF:
                change = np.sign(change)
            else:
                change /= np.sqrt((change**2).sum(tuple(range(1, x.ndim)), keepdims=True))
            tried = budget.snap(budget.project(x + np.float32(budget.size) * change, x), x, victim.sensor.steps)
            reached = margins(victim.logits(tried), labels)
            worse = reached < least
            best[worse], least[worse] = tried[worse], reached[worse]
        return best

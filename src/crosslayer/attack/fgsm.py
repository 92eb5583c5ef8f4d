"""The fast gradient sign method: one step of full size."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.losses import Loss
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array
from crosslayer.execute.surrogate import Surrogate


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fgsm(Attack):
    """x + size · steepest(∇ loss): the sign of the slopes under linf, their direction under l2.

    Source: Goodfellow et al. 2015, arXiv 1412.6572. Cheap and weak: what survives it may fall to `Pgd`.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    needs_slopes: ClassVar[bool] = True
    loss: Loss = Loss.CE
    surrogate: Surrogate = Surrogate.GATED

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The end of the step from `x`, or from `start`."""
        step = Pgd(steps=1, step=1.0, random_start=False, loss=self.loss, surrogate=self.surrogate)
        return step.search(victim, x, labels, budget, rng, start)

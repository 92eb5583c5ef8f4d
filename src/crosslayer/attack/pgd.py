"""Projected gradient descent: many small steps uphill."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.ascent import ascend, scattered, steepest
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.losses import LOSSES, Loss
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pgd(Attack):
    """z ← project(z + step · steepest(∇ loss)), from a random place in the budget, `restarts` times.

    Sources: Madry et al. 2018, arXiv 1706.06083; `momentum` as in Dong et al. 2018, arXiv 1710.06081; `draws` above 1
    means the slopes of z and of draws − 1 copies of it in noise, within `spread` of the budget (Athalye et al. 2018,
    arXiv 1707.07397). `step` is a share of the budget, 2.5 / steps if it is left out. A sample that fools is left; with
    `stop` false it goes on to the least margin, which transfers better to other networks. A sample takes at most
    restarts × (steps × draws + 1) passes. Choose `Apgd` where no step size is known to be good.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    needs_slopes: ClassVar[bool] = True
    steps: int = 40
    step: float | None = None
    restarts: int = 1
    random_start: bool = True
    momentum: float = 0.0
    loss: Loss = Loss.CE
    surrogate: Surrogate = Surrogate.GATED
    draws: int = 1
    spread: float = 0.25
    stop: bool = True

    def __post_init__(self) -> None:
        check_parameters(
            (self.steps >= 1, "steps must be at least 1"),
            (self.step is None or self.step > 0, "step must be above 0"),
            (self.restarts >= 1, "restarts must be at least 1"),
            (self.random_start or self.restarts == 1, "several restarts need random_start"),
            (0 <= self.momentum <= 1, "momentum must lie in 0…1"),
            (self.draws >= 1, "draws must be at least 1"),
            (0 < self.spread <= 1, "spread must lie above 0 and be at most 1"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The first sample that fools, or else the one of least margin. The first run begins at `start`, if given."""
        worst = Worst(victim, x, labels, budget)
        for run in range(self.restarts):
            rows = worst.alive if self.stop else np.arange(len(x))
            if not len(rows):
                break
            if run == 0 and start is not None:
                self._climb(worst, rows, start[rows], rng)
            else:
                self._climb(worst, rows, scattered(x[rows], budget, rng) if self.random_start else x[rows], rng)
        return worst.found

    def _climb(self, worst: Worst, rows: Array, z: Array, rng: np.random.Generator) -> None:
        """One run for the places `rows`; `worst` hears of every step."""
        budget = worst.budget
        size = np.float32(budget.size * (2.5 / self.steps if self.step is None else self.step))
        speed = np.zeros_like(z)
        z = budget.project(z, worst.origin[rows])
        for _ in range(self.steps):
            slopes = self._slopes(worst, rows, z, rng)
            if self.momentum:
                total = np.abs(slopes).sum(tuple(range(1, z.ndim)), keepdims=True)
                slopes = speed = np.float32(self.momentum) * speed + slopes / np.maximum(total, 1e-30)
            z = budget.project(z + size * steepest(slopes, budget.norm), worst.origin[rows])
            if self.stop:
                going = ~worst.fooled[rows]
                rows, z, speed = rows[going], z[going], speed[going]
                if not len(rows):
                    return
        worst.ask(rows, budget.snap(z, worst.origin[rows], worst.victim.sensor.steps))

    def _slopes(self, worst: Worst, rows: Array, z: Array, rng: np.random.Generator) -> Array:
        loss = LOSSES[self.loss]
        _, total = ascend(worst, rows, z, loss, self.surrogate)
        for _ in range(self.draws - 1):
            near = worst.budget.project(scattered(z, worst.budget, rng, self.spread), worst.origin[rows])
            total = total + ascend(worst, rows, near, loss, self.surrogate)[1]
        return total

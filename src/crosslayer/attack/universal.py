"""One change for all samples."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.losses import LOSSES, Loss
from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalPerturbation(Attack):
    """δ ← clip(δ + step · sign(mean slope along δ)) over batches of the samples: the same δ is added to each of them.

    Source: Shafahi et al. 2020, arXiv 1811.11304; the kind of attack is of Moosavi-Dezfooli et al. 2017, arXiv
    1610.08401. The loss is the margin, and samples that fool already give no slope, as the clipped loss there. `step`
    is a share of the budget; it falls to 0 along a cosine. Call `perturbation` with training samples for a δ that is
    then added to others.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    needs_slopes: ClassVar[bool] = True
    epochs: int = 40
    batch: int = 200
    step: float = 0.25
    surrogate: Surrogate = Surrogate.GATED

    def __post_init__(self) -> None:
        check_parameters(
            (self.epochs >= 1, "epochs must be at least 1"),
            (self.batch >= 1, "batch must be at least 1"),
            (0 < self.step <= 1, "step must lie above 0 and be at most 1"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """All samples with the change that was found for them together, from the mean change to `start` if given."""
        begin = None if start is None else (start - x).mean(0)
        return budget.project(x + self.perturbation(victim, x, labels, budget, rng, begin), x)

    def perturbation(
        self,
        victim: Victim,
        x: Array,
        labels: Array,
        budget: Budget,
        rng: np.random.Generator,
        begin: Array | None = None,
    ) -> Array:
        """The change δ, of the shape of one sample, in steps of the sensor's grid."""
        size, steps = np.float32(budget.size), victim.sensor.steps
        change = rng.uniform(-size, size, x.shape[1:]).astype(np.float32) if begin is None else begin
        total = self.epochs * -(-len(x) // self.batch)
        done = 0
        for _ in range(self.epochs):
            order = rng.permutation(len(x))
            for at in range(0, len(x), self.batch):
                rows = order[at : at + self.batch]
                logits, pullback = victim.slopes((x[rows] + change).clip(0, 1), self.surrogate)
                _, slopes = LOSSES[Loss.MARGIN](logits, labels[rows])
                slopes[logits.argmax(1) != labels[rows]] = 0
                rate = size * np.float32(self.step * (1 + np.cos(np.pi * done / total)) / 2)
                change = np.clip(change + rate * np.sign(pullback(slopes).mean(0)), -size, size)
                done += 1
        if not steps:
            return change
        most = np.floor(size * steps + 1e-3)
        return (np.clip(np.rint(change * steps), -most, most) / steps).astype(np.float32)

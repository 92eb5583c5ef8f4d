"""Auto-PGD: projected gradient descent that finds its step size itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.ascent import ascend, scattered, steepest
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.losses import LOSSES, Loss, Lossy, targeted_dlr
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate

_MOMENTUM = 0.75


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Apgd(Attack):
    """Ascent with momentum whose step starts at twice the budget and halves, at checkpoints, where it no longer helps.

    Source: Croce & Hein 2020, arXiv 2003.01690, with its checkpoints. A step halves, and the search goes back to its
    best point, if the loss rose in less than `rho` of the steps since the last checkpoint, or if it halved not then and
    the best loss has not changed since. `targets` above 0 means targeted DLR, towards each of so many most likely other
    classes in turn. A sample that fools is left; with `stop` false it goes on to the least margin. A sample takes at
    most restarts × max(1, targets) × (steps + 1) passes.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    needs_slopes: ClassVar[bool] = True
    steps: int = 100
    restarts: int = 1
    loss: Loss = Loss.CE
    targets: int = 0
    rho: float = 0.75
    surrogate: Surrogate = Surrogate.GATED
    stop: bool = True

    def __post_init__(self) -> None:
        check_parameters(
            (self.steps >= 1, "steps must be at least 1"),
            (self.restarts >= 1, "restarts must be at least 1"),
            (self.targets >= 0, "targets must be at least 0"),
            (self.targets == 0 or self.loss is Loss.DLR, "targets go with loss dlr only"),
            (0 < self.rho < 1, "rho must lie between 0 and 1"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The first sample that fools, or else the one of least margin. The first run begins at `start`, if given."""
        worst = Worst(victim, x, labels, budget)
        aims = _aims(victim, x, labels, self.targets) if self.targets else [None]
        for run in range(self.restarts * len(aims)):
            rows = worst.alive if self.stop else np.arange(len(x))
            if not len(rows):
                break
            begin = start[rows] if run == 0 and start is not None else _start(x[rows], budget, rng)
            self._climb(worst, rows, begin, aims[run % len(aims)])
        return worst.found

    def checkpoints(self) -> tuple[int, ...]:
        """After which steps the step size is looked at.

        >>> Apgd(steps=100).checkpoints()
        (22, 41, 57, 70, 80, 87, 93, 99)
        """
        places, before, now = list[int](), 0.0, 0.22
        while now < 1 + 1e-9:
            places.append(math.ceil(round(now * self.steps, 6)))
            before, now = now, now + max(now - before - 0.03, 0.06)
        return tuple(places)

    def _climb(self, worst: Worst, rows: Array, z: Array, targets: Array | None) -> None:
        """One run for the places `rows`; `worst` hears of every step."""
        budget, checkpoints, last = worst.budget, self.checkpoints(), 0
        z = budget.project(z, worst.origin[rows])
        now = _Walk.begin(rows, z, *self._ascend(worst, rows, z, targets), 2 * budget.size)
        for step in range(1, self.steps + 1):
            if self.stop:
                now.keep(~worst.fooled[now.rows])
            if not len(now.rows):
                return
            origin = worst.origin[now.rows]
            moved = budget.project(now.z + now.sized(steepest(now.slopes, budget.norm)), origin)
            if step > 1:
                moved = now.z + _MOMENTUM * (moved - now.z) + (1 - _MOMENTUM) * (now.z - now.before)
                moved = budget.project(moved.astype(np.float32), origin)
            now.move(moved, *self._ascend(worst, now.rows, moved, targets))
            if step in checkpoints:
                now.check(self.rho * (step - last))
                last = step

    def _ascend(self, worst: Worst, rows: Array, z: Array, targets: Array | None) -> tuple[Array, Array]:
        loss: Callable[[Array, Array], Lossy] = LOSSES[self.loss]
        if targets is not None:
            loss = partial(targeted_dlr, targets=targets[rows])
        return ascend(worst, rows, z, loss, self.surrogate)


@dataclass(slots=True, kw_only=True)
class _Walk:
    """Where the samples that are still under attack are; the first axis of each array is the batch."""

    rows: Array
    z: Array
    before: Array
    values: Array
    slopes: Array
    best: Array
    best_value: Array
    best_slopes: Array
    size: Array
    gains: Array
    """How often the loss rose since the last checkpoint."""
    halved: Array
    """Whether the step halved there; the first checkpoint counts as coming after one that did."""
    bar: Array
    """The best loss there."""

    @classmethod
    def begin(cls, rows: Array, z: Array, values: Array, slopes: Array, size: float) -> "_Walk":
        count = len(rows)
        return cls(
            rows=rows,
            z=z,
            before=z,
            values=values,
            slopes=slopes,
            best=z.copy(),
            best_value=values.copy(),
            best_slopes=slopes.copy(),
            size=np.full(count, size, np.float32),
            gains=np.zeros(count, np.int64),
            halved=np.ones(count, bool),
            bar=values.copy(),
        )

    def keep(self, chosen: Array) -> None:
        """Forget the other samples."""
        if not chosen.all():
            for field in fields(self):
                setattr(self, field.name, getattr(self, field.name)[chosen])

    def sized(self, direction: Array) -> Array:
        """A direction times each sample's step size."""
        return self.size.reshape(-1, *(1 for _ in direction.shape[1:])) * direction

    def move(self, z: Array, values: Array, slopes: Array) -> None:
        """Go to `z`, with its loss and slopes."""
        self.gains += values > self.values
        better = values > self.best_value
        self.best[better], self.best_value[better], self.best_slopes[better] = z[better], values[better], slopes[better]
        self.before, self.z, self.values, self.slopes = self.z, z, values, slopes

    def check(self, enough: float) -> None:
        """Halve the step and go back to the best point where the loss rose less often than `enough`, or stood still."""
        self.halved = (self.gains < enough) | (~self.halved & (self.best_value <= self.bar))
        self.size[self.halved] /= 2
        self.z, self.slopes, self.values = self.z.copy(), self.slopes.copy(), self.values.copy()
        for now, best in ((self.z, self.best), (self.slopes, self.best_slopes), (self.values, self.best_value)):
            now[self.halved] = best[self.halved]
        self.bar, self.gains = self.best_value.copy(), np.zeros_like(self.gains)


def _start(x: Array, budget: Budget, rng: np.random.Generator) -> Array:
    """A random sample at the edge of the budget."""
    if budget.norm is Norm.LINF:
        return scattered(x, budget, rng)
    return x + np.float32(budget.size) * steepest(rng.standard_normal(x.shape).astype(np.float32), budget.norm)


def _aims(victim: Victim, x: Array, labels: Array, count: int) -> list[Array]:
    """For each of the most likely other classes, the one of each sample (batch,)."""
    logits = victim.logits(x).astype(np.float64)
    if logits.shape[1] < 4:
        raise InputError(f"targets need at least 4 classes, the network has {logits.shape[1]}; use loss margin")
    logits[np.arange(len(x)), labels] = -np.inf
    order = np.argsort(-logits, axis=1, kind="stable")
    return list(order[:, : min(count, logits.shape[1] - 1)].T)

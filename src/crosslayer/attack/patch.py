"""Stickers that fool wherever they are put."""

from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sticker import Placements, Scene, side_of
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate

_PROPOSALS = 10  # under the same placements


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialPatch(Attack):
    """One sticker for all samples, by slopes through its random placements in the `scene`.

    Source: Brown et al. 2017, arXiv 1712.09665, expectation over transformations of Athalye et al. 2018,
    arXiv 1707.07397. It goes down by the sign of the mean slope, by `rate` at first and evenly less to 0. Each of
    `steps` puts it once on each sample, and so does each of `draws` at the end, of which the worst are kept. With
    `target` it makes all of them that class.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.PATCH,)
    needs_slopes: ClassVar[bool] = True
    steps: int = 200
    draws: int = 20
    rate: float = 0.1
    scene: Scene = field(default_factory=Scene)
    target: int | None = None
    surrogate: Surrogate = Surrogate.GATED

    def __post_init__(self) -> None:
        check_parameters(
            (self.steps >= 1 and self.draws >= 1, "steps and draws must be at least 1"),
            (self.rate > 0, "rate must be above 0"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The worst placement met of the sticker on each sample."""
        sticker = self.sticker(victim, x, labels, budget, rng)
        return _worst_placed(victim, x, labels, budget, sticker, self.scene, self.draws, rng)

    def sticker(self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator) -> Array:
        """The sticker (side, side, channels), float32 on the sensor's grid, that `fooled_by` evaluates."""
        side = side_of(budget, x.shape[1:])
        sticker = rng.random((side, side, x.shape[3]), np.float32)
        for step in range(self.steps):
            placements = self.scene.draw(len(x), side, x.shape[1:], rng)
            logits, pullback = victim.slopes(placements.put(sticker, x), self.surrogate)
            _, slopes = _loss(logits, labels, self.target)
            down = placements.pull(pullback(slopes.astype(np.float32)), sticker)
            rate = self.rate * (1 - step / self.steps)
            sticker = np.clip(sticker - np.float32(rate) * np.sign(down), 0, 1)
        return victim.sensor.shares(victim.sensor.real(sticker))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSearch(Attack):
    """One sticker for all samples, by random search on scores under random placements in the `scene`.

    In the manner of Croce et al. 2022, arXiv 2006.12834: squares of the sticker take a random corner of the colour
    cube, smaller ones as the search goes on, and stay where the mean loss falls. A sample takes `queries` queries, of
    which the last `draws` put the finished sticker somewhere; the worst are kept. With `target` it makes all of them
    that class.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.PATCH,)
    queries: int = 1000
    draws: int = 20
    scene: Scene = field(default_factory=Scene)
    target: int | None = None

    def __post_init__(self) -> None:
        check_parameters(
            (self.draws >= 1, "draws must be at least 1"),
            (self.queries >= self.draws + 3, "queries must be at least draws + 3, or nothing can be tried"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The worst placement met of the sticker on each sample."""
        sticker = self.sticker(victim, x, labels, budget, rng)
        return _worst_placed(victim, x, labels, budget, sticker, self.scene, self.draws, rng)

    def sticker(self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator) -> Array:
        """The sticker (side, side, channels), float32 on the sensor's grid, that `fooled_by` evaluates."""
        side, queries = side_of(budget, x.shape[1:]), self.queries - self.draws - 1
        sticker, asked = rng.integers(0, 2, (side, side, x.shape[3])).astype(np.float32), 0
        while asked < queries:
            placements = self.scene.draw(len(x), side, x.shape[1:], rng)
            least = self._mean_loss(victim, x, labels, sticker, placements)
            asked += 1
            for _ in range(min(_PROPOSALS, queries - asked)):
                window = max(1, round(side * 0.5 ** (1 + 3 * asked / queries)))
                top, left = rng.integers(0, side - window + 1, 2)
                tried = sticker.copy()
                tried[top : top + window, left : left + window] = rng.integers(0, 2, x.shape[3])
                reached = self._mean_loss(victim, x, labels, tried, placements)
                asked += 1
                if reached < least:
                    sticker, least = tried, reached
        return sticker

    def _mean_loss(self, victim: Victim, x: Array, labels: Array, sticker: Array, placements: Placements) -> float:
        return float(_loss(victim.logits(placements.put(sticker, x)), labels, self.target)[0].mean())


def _loss(logits: Array, labels: Array, target: int | None) -> tuple[Array, Array]:
    """log(1 + exp(margin)) of each sample (batch,) and its slopes along the logits (batch, classes): the margin of its
    label over the others, or of the others over the target. It gains little from samples that fool already."""
    rows = np.arange(len(labels))
    wanted = labels if target is None else np.full(len(labels), target)
    if target is not None and target >= logits.shape[1]:
        raise InputError(f"target {target} is not one of {logits.shape[1]} classes, counted from 0")
    others = logits.astype(np.float64)
    others[rows, wanted] = -np.inf
    rival = others.argmax(1)
    sign = 1.0 if target is None else -1.0
    margin = sign * (logits[rows, wanted].astype(np.float64) - others[rows, rival])
    slopes = np.zeros(logits.shape)
    share = np.exp(-np.logaddexp(0, -margin))
    slopes[rows, wanted], slopes[rows, rival] = sign * share, -sign * share
    return np.logaddexp(0, margin), slopes


def _worst_placed(
    victim: Victim,
    x: Array,
    labels: Array,
    budget: Budget,
    sticker: Array,
    scene: Scene,
    draws: int,
    rng: np.random.Generator,
) -> Array:
    """Each sample with the sticker where it does most harm of `draws` places; once it fools, no more are tried."""
    worst = Worst(victim, x, labels, budget)
    for _ in range(draws):
        rows = worst.alive
        if not len(rows):
            break
        placed = scene.draw(len(rows), len(sticker), x.shape[1:], rng).put(sticker, x[rows])
        worst.ask(rows, worst.within(rows, placed))
    return worst.found

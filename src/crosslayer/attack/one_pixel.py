"""A few pixels, found by evolution."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters

_ROWS = 4096  # samples held at once


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OnePixel(Attack):
    """One-pixel attack: places and values of as many pixels as the budget allows, by differential evolution.

    Source: Su, Vargas & Sakurai 2019, arXiv 1710.08864: a child is r₁ + `weight` · (r₂ − r₃) of three others of the
    `population`, without crossover, and takes its parent's place where its margin is smaller. A sample takes at most
    `queries` queries, and none once it fools; the paper takes 400 · 100.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L0,)
    queries: int = 5000
    population: int = 100
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_parameters(
            (self.population >= 4, "population must be at least 4"),
            (self.queries > self.population, "queries must be more than the population"),
            (self.weight > 0, "weight must be above 0"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The worst sample met; `start` is one more to try."""
        if x.ndim < 3:
            raise InputError(f"one-pixel needs pixels with channels, got samples of shape {list(x.shape[1:])}")
        worst, pixels = Worst(victim, x, labels, budget), int(budget.size)
        genes = self._first(x, pixels, rng)
        least = np.full(genes.shape[:2], np.inf)
        for generation in range((self.queries - 1) // self.population):
            rows = worst.alive
            if not (pixels and len(rows)):
                break
            for part in np.array_split(rows, -(-len(rows) * self.population // _ROWS)):
                children = genes[part] if generation == 0 else self._children(genes[part], rng)
                tried = _painted(x[part], children, victim.sensor.steps)
                if generation == 0 and start is not None:
                    tried[:, 0] = start[part]
                asked = worst.ask(np.repeat(part, self.population), tried.reshape(-1, *x.shape[1:]))
                reached = asked.reshape(len(part), self.population)
                better = reached < least[part]
                genes[part] = np.where(better[..., None, None], children, genes[part])
                least[part] = np.where(better, reached, least[part])
        return worst.found

    def _first(self, x: Array, pixels: int, rng: np.random.Generator) -> Array:
        """Genes (batch, population, pixels, axes + channels) in 0…1: uniform places, normal values."""
        shape = len(x), self.population, pixels
        places = rng.random((*shape, x.ndim - 2))
        return np.concatenate([places, np.clip(rng.normal(0.5, 0.5, (*shape, x.shape[-1])), 0, 1)], -1)

    def _children(self, genes: Array, rng: np.random.Generator) -> Array:
        """One child for each place in the population, of three of its members drawn for it."""
        members = rng.random((*genes.shape[:2], self.population)).argsort(-1)[..., :3]
        first, second, third = (genes[np.arange(len(genes))[:, None], members[..., i]] for i in range(3))
        return np.clip(first + self.weight * (second - third), 0, 1)


def _painted(x: Array, genes: Array, steps: int) -> Array:
    """Each image with the pixels of each member of its population (batch, population, …)."""
    axes = x.ndim - 2
    sizes = np.array(x.shape[1:-1])
    places = np.minimum((genes[..., :axes] * sizes).astype(np.int64), sizes - 1)
    values = genes[..., axes:]
    values = np.rint(values * steps) / steps if steps else values
    painted = np.repeat(x[:, None], genes.shape[1], 1)
    image, member = np.ogrid[: genes.shape[0], : genes.shape[1]]
    for pixel in range(genes.shape[2]):
        painted[(image, member, *np.moveaxis(places[:, :, pixel], -1, 0))] = values[:, :, pixel]
    return painted

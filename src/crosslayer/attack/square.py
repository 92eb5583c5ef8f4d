"""Random search with squares: needs scores only."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst, as_images
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many of 10,000 queries the share p halves."""
_SIGNS = np.array([-1, 1], np.float32)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Square(Attack):
    """Square Attack: changes of square shape at random places, kept where the margin does not rise.

    Source: Andriushchenko et al. 2020, arXiv 1912.00049, with its margin loss and schedule. `p_init` is the share of
    the image that the first squares cover. A sample takes at most `queries` queries, and none once it fools.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    queries: int = 5000
    p_init: float = 0.8

    def __post_init__(self) -> None:
        check_parameters(
            (self.queries >= 1, "queries must be at least 1"),
            (0 < self.p_init <= 1, "p_init must lie above 0 and be at most 1"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The worst sample met. The walk starts from vertical stripes, for L2 from a grid of bumps, or from `start`."""
        images = as_images(x)
        if budget.norm is Norm.L2 and min(images.shape[1:3]) < 3:
            raise InputError(f"square under l2 needs images of at least 3×3 pixels, got {list(x.shape[1:])}; use linf")
        linf = budget.norm is Norm.LINF
        first, move = (_stripes, _square) if linf else (_bumps, _moved_bumps)
        worst = Worst(victim, x, labels, budget)
        begin = first(images, budget.size, rng).reshape(x.shape) if start is None else start
        current, least = worst.within(np.arange(len(x)), begin), np.full(len(x), np.inf)
        for query in range(self.queries - 1):
            rows = worst.alive
            if not len(rows):
                break
            tried = current[rows]
            if query > 0:
                area = self.p(query - 1) * images.shape[1] * images.shape[2]
                moved = move(as_images(tried), images[rows], area, budget.size, rng)
                tried = worst.within(rows, moved.reshape(tried.shape))
            reached = worst.ask(rows, tried)
            better = reached <= least[rows]  # integer logits have plateaus, which the walk must cross
            current[rows[better]], least[rows[better]] = tried[better], reached[better]
        return worst.found

    def p(self, step: int) -> float:
        """The share of the image that changes in one step: it halves at set shares of all queries."""
        return self.p_init * 0.5 ** sum(step * 10_000 / self.queries > after for after in _HALVINGS)


def _stripes(images: Array, size: float, rng: np.random.Generator) -> Array:
    """Each column of each channel changed as a whole."""
    batch, _, wide, channels = images.shape
    return images + np.float32(size) * rng.choice(_SIGNS, (batch, 1, wide, channels))


def _square(now: Array, origin: Array, area: float, size: float, rng: np.random.Generator) -> Array:
    """One window of each image changed as a whole, to another change than it has where that is possible."""
    batch, high, wide, channels = now.shape
    sides = _window(area, high, wide)
    inside = _inside(sides[0], high, batch, rng)[:, :, None] & _inside(sides[1], wide, batch, rng)[:, None, :]
    change = np.float32(size) * rng.choice(_SIGNS, (batch, 1, 1, channels))
    tried = np.where(inside[..., None], np.clip(origin + change, 0, 1), now)
    same = (np.abs(tried - now) < 1e-7).all((1, 2, 3), keepdims=True)
    return np.where(inside[..., None], np.clip(origin + np.where(same, -change, change), 0, 1), now)


def _window(area: float, high: int, wide: int) -> tuple[int, int]:
    """Height and width of a square of so many pixels; where the image is too narrow for it, it becomes longer."""
    side = max(1, round(math.sqrt(area)))
    if side > high:
        return high, min(wide, max(1, round(area / high)))
    if side > wide:
        return min(high, max(1, round(area / wide))), wide
    return side, side


def _inside(side: int, length: int, batch: int, rng: np.random.Generator) -> Array:
    """Which places of each row lie in a random stretch of `side` (batch, length)."""
    first = rng.integers(0, length - side + 1, (batch, 1))
    places = np.arange(length)
    return (places >= first) & (places < first + side)


def _bumps(images: Array, size: float, rng: np.random.Generator) -> Array:
    """Five by five bumps of random sign, of Euclidean length `size`."""
    batch, high, wide, channels = images.shape
    side = max(1, min(high, wide) // 5)
    top, left = high % side // 2, wide % side // 2
    change = np.zeros(images.shape, np.float32)
    for y in range(top, high - side + 1, side):
        for x in range(left, wide - side + 1, side):
            signs = rng.choice(_SIGNS, (batch, 1, 1, channels))
            change[:, y : y + side, x : x + side] = _bump(side, rng)[..., None] * signs
    return images + np.float32(size) * change / _length(change, (1, 2, 3))


def _moved_bumps(now: Array, origin: Array, area: float, size: float, rng: np.random.Generator) -> Array:
    """A bump added in one window of each image, with the length that another window gives up."""
    batch, high, wide, channels = now.shape
    most = min(high, wide)
    side = min(max(round(math.sqrt(area)), 3) // 2 * 2 + 1, most - 1 + most % 2)
    change = (now - origin).astype(np.float64)
    into, out = (_places(side, high, wide, batch, rng) for _ in range(2))
    either = np.zeros((*now.shape[:3], 1), bool)
    either[into] = either[out] = True
    free = np.maximum(size**2 - _length(change, (1, 2, 3)) ** 2, 0) / channels
    room = np.sqrt(free + _length(change * either, (1, 2)) ** 2)
    bump = _bump(side, rng)[..., None] * rng.choice(_SIGNS, (batch, 1, 1, channels))
    bump = bump + change[into] / _length(change[into], (1, 2))
    change[out] = 0
    change[into] = bump / _length(bump, (1, 2)) * room
    return (origin + size * change / _length(change, (1, 2, 3))).astype(np.float32)


def _places(side: int, high: int, wide: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The index of a random window of each image."""
    top, left = rng.integers(0, high - side + 1, (batch, 1, 1)), rng.integers(0, wide - side + 1, (batch, 1, 1))
    steps = np.arange(side)
    return np.arange(batch)[:, None, None], top + steps[:, None], left + steps


def _bump(side: int, rng: np.random.Generator) -> Array:
    """A hill and a dale beside it (side, side), of Euclidean length 1, above each other or side by side."""
    hill, dale = _hill(side // 2, side), -_hill(side - side // 2, side)
    bump = np.concatenate([hill, dale])
    bump /= _length(bump, (0, 1))
    return bump.T if rng.random() > 0.5 else bump


def _hill(high: int, wide: int) -> Array:
    """Rectangles around the middle, each a pixel wider on all sides and flatter by the square of its rank."""
    hill = np.zeros((high, wide))
    for rank in range(max(high, wide) // 2 + 1):
        top, left = high // 2 - rank, wide // 2 - rank
        hill[max(top, 0) : top + 2 * rank + 1, max(left, 0) : left + 2 * rank + 1] += 1 / (rank + 1) ** 2
    return hill / _length(hill, (0, 1))


def _length(values: Array, axes: tuple[int, ...]) -> Array:
    """The Euclidean length along some axes, which stay; above 0."""
    return np.sqrt((values**2).sum(axes, keepdims=True)) + 1e-10

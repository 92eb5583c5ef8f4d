"""Our Square Attack is the one of the paper, and no weaker than ART's, on the same float network.

1,000 of the small digits, pixels of any value in 0…1. Two runs of one attack differ by the draws, so what is equal is
equal up to the binomial noise of 1,000 images: two standard deviations of the difference of two shares.
"""

import math
import random
from functools import cache

import numpy as np
import pytest

from attack_networks import digits, trained
from attack_oracles import estimators, evasion, one_hot, quiet
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.square import Square
from crosslayer.attack.victim import Victim, margins
from crosslayer.core.quant import Array
from crosslayer.flow import execute

COUNT, QUERIES = 1000, 40
BUDGETS = [Budget(Norm.LINF, 0.1), Budget(Norm.L2, 0.8)]


@cache
def samples() -> tuple[Array, Array]:
    train = digits().train.take(slice(0, COUNT))
    return train.real(), train.labels


@cache
def victim() -> Victim:
    return Victim.of(trained(), Sensor(low=0.0, high=1.0), execute)


def robust(found: Array) -> float:
    return float(1 - victim().fooled(found, samples()[1]).mean())


def ours(budget: Budget) -> float:
    return robust(Square(queries=QUERIES)(victim(), *samples(), budget, np.random.default_rng(0)))


def noise(share: float) -> float:
    return 2 * math.sqrt(2 * share * (1 - share) / COUNT)


def side_at(step: int, high: int, wide: int) -> float:
    """The side of the square before it is rounded: p halves at these steps of 10,000."""
    halved = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    p = 0.8 / 2 ** sum(step / QUERIES * 10_000 > limit for limit in halved)
    return math.sqrt(p * high * wide)


def corner(side: int, image: Array, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(0, image.shape[0] - side + 1)), int(rng.integers(0, image.shape[1] - side + 1))


def first_linf(image: Array, size: float, rng: np.random.Generator) -> Array:
    return image + rng.choice([-size, size], (1, *image.shape[1:]))


def next_linf(best: Array, image: Array, size: float, step: int, rng: np.random.Generator) -> Array:
    """Algorithm 2 of the paper: one square, one sign for each channel, until something changes."""
    side = max(1, round(side_at(step, *image.shape[:2])))
    row, column = corner(side, image, rng)
    tried = best.copy()
    while np.array_equal(tried, best):
        for channel in range(image.shape[2]):
            window = image[row : row + side, column : column + side, channel] + rng.choice([-size, size])
            tried[row : row + side, column : column + side, channel] = np.clip(window, 0, 1)
    return tried


@cache
def upright(side: int) -> Array:
    """η of the paper's section 3.3: a positive and a negative rectangle, each a sum of smaller ones."""
    halves: list[Array] = []
    for high, sign in ((side // 2, 1), (side - side // 2, -1)):
        half = np.zeros((high, side))
        for row, column in np.ndindex(high, side):
            ring = max(abs(row - high // 2), abs(column - side // 2))
            half[row, column] = sum(1 / (k + 1) ** 2 for k in range(ring, max(high // 2 + 1, side // 2 + 1)))
        halves.append(sign * half / (np.linalg.norm(half) or 1))
    both = np.concatenate(halves)
    return both / np.linalg.norm(both)


def bump(side: int, rng: np.random.Generator) -> Array:
    return upright(side).T if rng.random() > 0.5 else upright(side)


def first_l2(image: Array, size: float, rng: np.random.Generator) -> Array:
    side, change = image.shape[0] // 5, np.zeros(image.shape)
    start = (image.shape[0] - 5 * side) // 2
    for row in range(start, image.shape[0] - side + 1, side):
        for column in range(start, image.shape[1] - side + 1, side):
            signs = rng.choice([-1, 1], (1, 1, image.shape[2]))
            change[row : row + side, column : column + side] += bump(side, rng)[..., None] * signs
    return image + size * change / np.linalg.norm(change)


def next_l2(best: Array, image: Array, size: float, step: int, rng: np.random.Generator) -> Array:
    """Algorithm 3 of the paper: one window takes the length of another and what is left of the budget."""
    side = max(3, round(side_at(step, *image.shape[:2])))
    side += 1 - side % 2
    change = (best - image).astype(np.float64)
    (row, column), (other_row, other_column) = (corner(side, image, rng) for _ in range(2))
    into = (slice(row, row + side), slice(column, column + side))
    out = (slice(other_row, other_row + side), slice(other_column, other_column + side))
    either = np.zeros(image.shape[:2], bool)
    either[into] = either[out] = True
    left = max(0.0, size**2 - float((change**2).sum())) / image.shape[2]
    fresh = np.zeros((side, side, image.shape[2]))
    for channel in range(image.shape[2]):
        old = change[(*into, channel)]
        new = rng.choice([-1, 1]) * bump(side, rng) + old / (np.linalg.norm(old) + 1e-10)
        length = math.sqrt(float((change[..., channel][either] ** 2).sum()) + left)
        fresh[..., channel] = new / np.linalg.norm(new) * length
    change[out] = 0
    change[into] = fresh
    return np.clip(image + size * change / np.linalg.norm(change), 0, 1)


def by_the_paper(budget: Budget) -> Array:
    """Algorithm 1 of the paper, image by image but for the network."""
    (x, labels), rng = samples(), np.random.default_rng(1)
    first, move = (first_linf, next_linf) if budget.norm is Norm.LINF else (first_l2, next_l2)
    going = np.flatnonzero(~victim().fooled(x, labels))
    best = np.clip([first(image, budget.size, rng) for image in x], 0, 1).astype(np.float32)
    least = margins(victim().logits(best), labels)
    for step in range(QUERIES - 2):
        rows = going[least[going] > 0]
        tried = np.array([move(best[i], x[i], budget.size, step, rng) for i in rows], np.float32)
        reached = margins(victim().logits(tried), labels[rows])
        better = reached < least[rows]
        best[rows[better]], least[rows[better]] = tried[better], reached[better]
    return best


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_square_is_the_papers_up_to_the_noise_of_its_draws(budget: Budget) -> None:
    theirs = robust(by_the_paper(budget))
    assert 0.3 < theirs < 0.8  # else there is nothing to compare
    assert abs(ours(budget) - theirs) < noise(theirs)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_square_is_no_weaker_than_arts_for_as_many_proposals(budget: Budget) -> None:
    """ART's proposes squares that change nothing, and asks the network three times for each: ours is stronger."""
    x, labels = samples()
    model = estimators.BlackBoxClassifierNeuralNetwork(
        victim().logits, x.shape[1:], 10, channels_first=False, clip_values=(0, 1)
    )
    norm = np.inf if budget.norm is Norm.LINF else 2
    np.random.seed(0)  # noqa: NPY002  # ART draws from there
    random.seed(0)
    with quiet():
        attack = evasion.SquareAttack(
            model, norm=norm, eps=budget.size, max_iter=QUERIES, batch_size=COUNT, verbose=False
        )
        theirs = robust(attack.generate(x, one_hot(labels)))
    assert 0.3 < theirs < 0.95  # else there is nothing to compare
    assert ours(budget) < theirs + noise(theirs)

"""A score lifted without a change that is seen."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.similarity import correlation, ssim, texture
from crosslayer.attack.victim import Victim, margins
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters

_STEP = 0.2  # of a change, where the image has most texture
_SHRINK = (1.0, 0.9, 0.75, 0.5)  # of a change that would be seen


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Imperceptible(Attack):
    """Lifts the score of the class `target`, or of any but the label's, while the image looks the same.

    What looks the same has a correlation coefficient and a structural similarity to the image of at least
    `correlation` and `similarity`, as in TrISec (Khalid et al., IOLTS 2019); the budget holds besides. By random search
    on scores: changes of rectangles at random places, larger where the image has texture, all of them shrunk where they
    would be seen. A sample takes at most `queries` queries, and none once the class is called and its logit lies
    `confidence` above all others.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    queries: int = 2000
    correlation: float = 0.98
    similarity: float = 0.95
    target: int | None = None
    confidence: float = 0.0

    def __post_init__(self) -> None:
        check_parameters(
            (self.queries >= 1, "queries must be at least 1"),
            (-1 <= self.correlation <= 1, "correlation must lie in -1…1"),
            (-1 <= self.similarity <= 1, "similarity must lie in -1…1"),
            (self.target is None or self.target >= 0, "target must be a class, counted from 0"),
            (self.confidence >= 0, "confidence must be at least 0"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The samples in which the class stands highest, all that look the same as `x`."""
        if x.ndim != 4:
            raise InputError(f"imperceptible needs images, got samples of shape {list(x.shape[1:])}")
        found, (lift, done) = x.copy(), self._lift(victim, x, labels)
        weight = texture(x)
        for query in range(1, self.queries):
            rows = np.flatnonzero(~done)
            if not len(rows):
                break
            moved = self._moved(found[rows], weight[rows], query, rng)
            if query == 1 and start is not None:
                moved = start[rows]
            tried, alike = self._alike(moved, x[rows], budget, victim.sensor.steps)
            rows, tried = rows[alike], tried[alike]
            if not len(rows):
                continue
            lifted, reached = self._lift(victim, tried, labels[rows])
            better = lifted > lift[rows]
            found[rows[better]], lift[rows[better]], done[rows[better]] = tried[better], lifted[better], reached[better]
        return found

    def looks_alike(self, x: Array, origin: Array) -> Array:
        """Whether images (batch, height, width, channels) keep both thresholds against others (batch,)."""
        return (correlation(x, origin) >= self.correlation) & (ssim(x, origin) >= self.similarity)

    def _lift(self, victim: Victim, x: Array, labels: Array) -> tuple[Array, Array]:
        """How far the class lies above all others, and whether that is enough (batch,)."""
        logits = victim.logits(x)
        if self.target is None:
            lift, called = -margins(logits, labels), logits.argmax(1) != labels
        else:
            if self.target >= logits.shape[1]:
                raise InputError(f"imperceptible: target {self.target} is not one of {logits.shape[1]} classes")
            lift, called = margins(logits, np.full(len(x), self.target)), logits.argmax(1) == self.target
        return lift, called & (lift >= self.confidence)

    def _alike(self, moved: Array, origin: Array, budget: Budget, steps: int) -> tuple[Array, Array]:
        """Each change shrunk until it is not seen, and whether that was enough."""
        tried, alike = origin.copy(), np.zeros(len(origin), bool)
        for share in _SHRINK:
            rows = np.flatnonzero(~alike)
            if len(rows):
                nearer = origin[rows] + np.float32(share) * (moved[rows] - origin[rows])
                nearer = budget.snap(budget.project(nearer, origin[rows]), origin[rows], steps)
                tried[rows], alike[rows] = nearer, self.looks_alike(nearer, origin[rows])
        return tried, alike

    def _moved(self, now: Array, weight: Array, query: int, rng: np.random.Generator) -> Array:
        """One rectangle of each image changed by a random sign in each channel."""
        batch, high, wide, channels = now.shape
        share = 0.5 ** (1 + 6 * query / self.queries)
        tall, broad = max(1, round(high * share**0.5)), max(1, round(wide * share**0.5))
        top, left = rng.integers(0, high - tall + 1, (batch, 1, 1)), rng.integers(0, wide - broad + 1, (batch, 1, 1))
        y, x = np.arange(high)[:, None], np.arange(wide)
        inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + broad)
        change = np.float32(_STEP) * weight * rng.choice(np.array([-1, 1], np.float32), (batch, 1, 1, channels))
        return np.where(inside[..., None], now + change, now)

"""Slopes guessed from pairs of scores."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim, margins
from crosslayer.attack.worst import Worst
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters

_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-8  # Adam's own


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Spsa(Attack):
    """SPSA: Adam on slopes of the margin that differences along random signs give.

    Source: Uesato et al. 2018, arXiv 1802.05666. A step asks `pairs` pairs of samples, `delta` to both sides of where
    it stands, or one step of the sensor's grid if that is more, and then where it comes to; `rate` is Adam's. Both are
    shares of the sensor's range. A sample takes at most `queries` queries, and none once it fools. Choose it over
    Square where the scores are noisy.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    queries: int = 5000
    pairs: int = 32
    delta: float = 0.01
    rate: float = 0.01

    def __post_init__(self) -> None:
        check_parameters(
            (self.pairs >= 1, "pairs must be at least 1"),
            (self.queries >= 2 * self.pairs + 2, "queries must be at least 2 · pairs + 2, or no step can be made"),
            (self.delta > 0 and self.rate > 0, "delta and rate must be above 0"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The worst sample met; the walk goes from `x` or `start`."""
        worst = Worst(victim, x, labels, budget)
        point = (x if start is None else start).astype(np.float32)
        mean, square = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
        for step in range(1, (self.queries - 1) // (2 * self.pairs + 1) + 1):
            rows = worst.alive
            if not len(rows):
                break
            slope = self._slope(victim, point[rows], labels[rows], rng)
            mean[rows] = _MEAN * mean[rows] + (1 - _MEAN) * slope
            square[rows] = _SQUARE * square[rows] + (1 - _SQUARE) * slope**2
            scale = np.sqrt(square[rows] / (1 - _SQUARE**step)) + _TINY
            moved = point[rows] - np.float32(self.rate) * mean[rows] / (1 - _MEAN**step) / scale
            point[rows] = budget.project(moved, x[rows])
            worst.ask(rows, worst.within(rows, point[rows]))
        return worst.found

    def _slope(self, victim: Victim, x: Array, labels: Array, rng: np.random.Generator) -> Array:
        """The margin's slope along each value (batch, …), up to a factor."""
        reach = max(self.delta, 1 / victim.sensor.steps if victim.sensor.steps else 0.0)
        slope = np.zeros(x.shape, np.float32)
        for _ in range(self.pairs):
            signs = rng.choice(np.array([-1, 1], np.float32), x.shape)
            both = np.concatenate([x + np.float32(reach) * signs, x - np.float32(reach) * signs])
            up, down = np.split(margins(victim.logits(np.clip(both, 0, 1)), np.tile(labels, 2)), 2)
            slope += signs * ((up - down) / reach).astype(np.float32).reshape(-1, *(1 for _ in x.shape[1:]))
        return slope / self.pairs

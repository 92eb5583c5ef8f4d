"""The attack of Carlini and Wagner: the shortest change that fools, by weighing length against margin."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.ascent import see_inside
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.losses import margin
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate

_INSIDE = 1 - 1e-6
"""What black and white are moved to, so that their inverse hyperbolic tangent is finite."""
_DECAYS = 0.9, 0.999  # of Adam, its defaults


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagner(Attack):
    """Adam on |z − x|² + c · max(−margin loss + confidence, 0) with z = (tanh w + 1) / 2, which stays in 0…1.

    Source: Carlini & Wagner 2017, arXiv 1608.04644. c starts at `weight`; `searches` times it is halved towards what
    was too little where the sample was fooled, and grows tenfold, or to halfway, where it was not. Slow; it needs no
    step size that fits the budget. A sample that fools within the budget is left. A sample takes at most
    searches × steps + 1 passes.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    needs_slopes: ClassVar[bool] = True
    searches: int = 6
    steps: int = 100
    rate: float = 0.05
    weight: float = 1.0
    confidence: float = 0.0
    surrogate: Surrogate = Surrogate.GATED

    def __post_init__(self) -> None:
        check_parameters(
            (self.searches >= 1, "searches must be at least 1"),
            (self.steps >= 1, "steps must be at least 1"),
            (self.rate > 0, "rate must be above 0"),
            (self.weight > 0, "weight must be above 0"),
            (self.confidence >= 0, "confidence must be at least 0"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The first sample within the budget that fools, or else the one of least margin there."""
        worst = Worst(victim, x, labels, budget)
        weight, low, high = np.full(len(x), self.weight), np.zeros(len(x)), np.full(len(x), np.inf)
        begin = np.arctanh((2 * (x if start is None else start).astype(np.float64) - 1) * _INSIDE)
        for _ in range(self.searches):
            rows = worst.alive
            if not len(rows):
                break
            hit = np.zeros(len(x), bool)
            hit[self._descend(worst, rows, begin[rows], weight)] = True
            high[rows] = np.where(hit[rows], weight[rows], high[rows])
            low[rows] = np.where(hit[rows], low[rows], weight[rows])
            between = np.isfinite(high)
            weight[between] = (low[between] + high[between]) / 2
            weight[~between] *= 10
        return worst.found

    def _descend(self, worst: Worst, rows: Array, w: Array, weight: Array) -> Array:
        """The places of those that fool, at whatever distance, in one run; `worst` hears of points in the budget."""
        hits = [rows[:0]]
        first, second = np.zeros_like(w), np.zeros_like(w)
        for step in range(1, self.steps + 1):
            z = ((np.tanh(w) + 1) / 2).astype(np.float32)
            logits, pullback = worst.victim.slopes(z, self.surrogate)
            see_inside(worst, rows, z, logits)
            ahead, slopes = margin(logits, worst.labels[rows])
            reached = (ahead >= self.confidence) & (logits.argmax(1) != worst.labels[rows])
            hits.append(rows[reached])
            slopes *= -(weight[rows] * ~reached)[:, None]
            grad = (2 * (z - worst.origin[rows]) + pullback(slopes)) * (1 - np.tanh(w) ** 2) / 2
            first = _DECAYS[0] * first + (1 - _DECAYS[0]) * grad
            second = _DECAYS[1] * second + (1 - _DECAYS[1]) * grad**2
            change = first / (1 - _DECAYS[0] ** step) / (np.sqrt(second / (1 - _DECAYS[1] ** step)) + 1e-8)
            w = w - self.rate * change
            going = ~worst.fooled[rows]
            if not going.any():
                break
            rows, w, first, second = rows[going], w[going], first[going], second[going]
        return np.concatenate(hits)

"""Fast adaptive boundary attack: the nearest sample that fools, by hopping along the boundary."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.ascent import lengths, scattered, see_inside
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fab(Attack):
    """Steps to the nearest of the linearized boundaries, drawn towards the sample: it has no step size and no loss.

    Source: Croce & Hein 2020, arXiv 1907.02044. The boundaries are those to the `rivals` most likely other classes;
    `alpha` limits the pull towards the sample, steps overshoot by the factor `eta`, and a point that fools beyond the
    budget goes back to the share `beta` of its distance. Restarts begin at random within half the budget. A sample that
    fools within the budget is left. A sample takes at most restarts × (2 × steps + 1) passes forward.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    needs_slopes: ClassVar[bool] = True
    steps: int = 100
    restarts: int = 1
    rivals: int = 9
    alpha: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    surrogate: Surrogate = Surrogate.GATED

    def __post_init__(self) -> None:
        check_parameters(
            (self.steps >= 1, "steps must be at least 1"),
            (self.restarts >= 1, "restarts must be at least 1"),
            (self.rivals >= 1, "rivals must be at least 1"),
            (0 <= self.alpha < 1, "alpha must be at least 0 and less than 1"),
            (self.eta >= 1, "eta must be at least 1"),
            (0 < self.beta < 1, "beta must lie between 0 and 1"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The first sample within the budget that fools, or else the one of least margin there."""
        worst = Worst(victim, x, labels, budget)
        for run in range(self.restarts):
            rows = worst.alive
            if not len(rows):
                break
            if run == 0:
                self._hop(worst, rows, x[rows] if start is None else start[rows])
            else:
                self._hop(worst, rows, scattered(x[rows], budget, rng, 0.5))
        return worst.found

    def _hop(self, worst: Worst, rows: Array, z: Array) -> None:
        """One run for the places `rows`; `worst` hears of every point within the budget."""
        norm = worst.budget.norm
        for _ in range(self.steps):
            logits, ahead, normal = self._boundary(worst, rows, z)
            see_inside(worst, rows, z, logits)
            going = ~worst.fooled[rows]
            if not going.any():
                return
            rows, z, ahead, normal = rows[going], z[going], ahead[going], normal[going]
            x = worst.origin[rows]
            to_z = _onto(z, normal, ahead, norm)
            to_x = _onto(x, normal, ahead + ((z.astype(np.float64) - x) * normal).reshape(len(x), -1).sum(1), norm)
            near, far = _size(to_z, norm), _size(to_x, norm)
            pull = np.minimum(near / np.maximum(near + far, 1e-12), self.alpha)
            z = ((1 - pull) * (z + self.eta * to_z) + pull * (x + self.eta * to_x)).clip(0, 1).astype(np.float32)
            logits = worst.victim.logits(z)
            see_inside(worst, rows, z, logits)
            beyond = logits.argmax(1) != worst.labels[rows]
            z[beyond] = (x + np.float32(self.beta) * (z - x))[beyond]
        rows, z = rows[~worst.fooled[rows]], z[~worst.fooled[rows]]
        if len(rows):
            worst.ask(rows, worst.within(rows, z))

    def _boundary(self, worst: Worst, rows: Array, z: Array) -> tuple[Array, Array, Array]:
        """The logits at `z`; how far the label's lies ahead of the rival whose boundary is nearest (batch,), and the
        slope by which that rival gains on it (batch, …): its boundary is where normal · (u − z) = ahead."""
        logits, pullback = worst.victim.slopes(z, self.surrogate)
        labels, every = worst.labels[rows], np.arange(len(rows))
        ordered = logits.astype(np.float64)
        ordered[every, labels] = -np.inf
        order = np.argsort(-ordered, axis=1, kind="stable")
        # integer logits may be equal, where the first class counts: a boundary that is reached is not yet crossed
        least = np.ptp(logits, axis=1).astype(np.float64) / 255
        nearest, ahead, normal = np.full(len(rows), np.inf), np.zeros(len(rows)), np.zeros_like(z)
        for rank in range(min(self.rivals, logits.shape[1] - 1)):
            slopes = np.zeros_like(logits)
            slopes[every, order[:, rank]], slopes[every, labels] = 1, -1
            gain = pullback(slopes)
            lead = logits[every, labels].astype(np.float64) - logits[every, order[:, rank]]
            lead = np.where((lead >= 0) & (lead < least), least, lead)
            steep = np.abs(gain).reshape(len(z), -1).sum(1) if worst.budget.norm is Norm.LINF else lengths(gain).ravel()
            away = np.abs(lead) / np.maximum(steep, 1e-12)
            closer = away < nearest
            nearest[closer], ahead[closer], normal[closer] = away[closer], lead[closer], gain[closer]
        return logits, ahead, normal


def _onto(x: Array, normal: Array, ahead: Array, norm: Norm) -> Array:
    """The shortest change d of `x` (batch, …), staying in 0…1, with normal · d = ahead; as far as that can be reached.

    Each value moves by min(t · rate, room) towards its side: for some t that reaches the plane, and what has been
    reached is a line between the values of t at which one more value has no room left.
    """
    flat, w = x.reshape(len(x), -1).astype(np.float64), normal.reshape(len(x), -1).astype(np.float64)
    side = np.sign(w) * np.sign(ahead)[:, None]
    room = np.where(side > 0, 1 - flat, flat)
    gain = np.abs(w)
    rate = np.ones_like(gain) if norm is Norm.LINF else gain
    turns = np.where(gain > 0, room / np.maximum(rate, 1e-300), np.inf)
    order = np.argsort(turns, axis=1)
    turns, gains, rates, rooms = (np.take_along_axis(v, order, 1) for v in (turns, gain, rate, room))
    spent = np.cumsum(gains * rooms, 1)
    growing = np.cumsum((gains * rates)[:, ::-1], 1)[:, ::-1]
    still = np.concatenate([growing[:, 1:], np.zeros((len(x), 1))], 1)
    reached = spent + np.where(still > 0, turns, 0) * still
    goal = np.abs(ahead)
    place = (reached < goal[:, None]).sum(1)
    last = np.minimum(place, flat.shape[1] - 1)
    rows = np.arange(len(x))
    before = np.where(last > 0, spent[rows, last - 1], 0.0)
    t = np.where(growing[rows, last] > 0, (goal - before) / np.maximum(growing[rows, last], 1e-300), 0.0)
    t = np.where(place > last, np.inf, t)
    moved = np.where(gain > 0, np.minimum(np.where(gain > 0, t[:, None], 0) * rate, room), 0)
    return (side * moved).reshape(x.shape)


def _size(change: Array, norm: Norm) -> Array:
    """The norm of each change (batch, 1, …)."""
    if norm is Norm.LINF:
        return np.abs(change).max(tuple(range(1, change.ndim)), keepdims=True)
    return lengths(change)

"""Walking along the decision boundary: needs labels only."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters

_TRIES = 20  # starting points of a sample
_HALVINGS = 20  # of a step
_SLACK = 1e-6  # of float32 arithmetic


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump(Attack):
    """HopSkipJump: from any sample that fools along the boundary towards the sample, by labels alone.

    Source: Chen, Jordan & Wainwright 2020, arXiv 1904.02144. A sample takes at most `queries` queries, and none once it
    fools within the budget; the first slope is estimated from `probes` of them. The paper's probes shrink with the
    distance; an integer network rounds such small ones away, so that here they change a value by about the share
    `spread` of the sensor's range, or a step of its grid, at least.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2, Norm.LINF)
    queries: int = 5000
    probes: int = 100
    spread: float = 4 / 255

    def __post_init__(self) -> None:
        check_parameters(
            (self.queries >= 1, "queries must be at least 1"),
            (self.probes >= 1, "probes must be at least 1"),
            (0 <= self.spread < 1, "spread must be at least 0 and below 1"),
        )

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The nearest sample that fools; if it lies beyond the budget, the budget's point next to it, which may not."""
        return budget.project(self.closest(victim, x, labels, budget, rng, start), x)

    def closest(
        self,
        victim: Victim,
        x: Array,
        labels: Array,
        budget: Budget,
        rng: np.random.Generator,
        start: Array | None = None,
    ) -> Array:
        """The nearest samples on the sensor's grid that fool, float32 (batch, …), at whatever distance.

        Those within the budget are not brought nearer; a sample for which nothing fools, or that is misjudged already,
        comes back as it is.
        """
        walk = _Walk(victim, x, labels, budget, self.queries, self.spread)
        walk.begin(rng, start)
        step = 1
        while len(rows := walk.alive):
            walk.to_boundary(rows)
            count = round(self.probes * math.sqrt(step))
            walk.jump(rows, np.stack([walk.slope(row, step, count, rng) for row in rows.tolist()]), step)
            step += 1
        return walk.nearest


@final
class _Walk:
    """Where the walk of each sample stands, how many queries it has left, and the nearest sample that fooled so far."""

    def __init__(self, victim: Victim, x: Array, labels: Array, budget: Budget, queries: int, spread: float) -> None:
        self.spread = max(spread, 1 / victim.sensor.steps if victim.sensor.steps else 0.0)
        self.victim, self.x, self.labels, self.budget = victim, x, labels, budget
        self.linf = budget.norm is Norm.LINF
        self.steps = victim.sensor.steps
        self.left = np.full(len(x), queries)
        self.points, self.nearest, self.sizes = x.copy(), x.copy(), np.full(len(x), np.inf)
        self.started = np.zeros(len(x), bool)

    @property
    def alive(self) -> Array:
        """The samples that have a point on the way, queries left, and nothing within the budget yet."""
        return np.flatnonzero(self.started & (self.left > 0) & (self.sizes > self.budget.size + _SLACK))

    def fool(self, rows: Array, tried: Array) -> Array:
        """Whether samples for the places `rows`, which may repeat, fool; False for which no query is left."""
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        asked = np.flatnonzero(rank < self.left[rows])
        np.subtract.at(self.left, rows[asked], 1)
        answers = np.zeros(len(rows), bool)
        if len(asked):
            answers[asked] = self.victim.fooled(tried[asked], self.labels[rows[asked]])
        hits = np.flatnonzero(answers)
        if not len(hits):
            return answers
        exact = self.snap(tried[hits])
        sizes = self.budget.size_of(exact, self.x[rows[hits]])
        for place in np.argsort(-sizes):
            row = rows[hits[place]]
            if sizes[place] < self.sizes[row]:
                self.sizes[row], self.nearest[row] = sizes[place], exact[place]
        return answers

    def snap(self, x: Array) -> Array:
        """What the sensor makes of samples."""
        return (np.rint(x * np.float32(self.steps)) / np.float32(self.steps)).astype(np.float32) if self.steps else x

    def begin(self, rng: np.random.Generator, start: Array | None) -> None:
        """Find a sample that fools for each: itself, then `start`, then noise and other samples of the batch."""
        for attempt in range(_TRIES):
            rows = np.flatnonzero(~self.started & (self.left > 0))
            if not len(rows):
                return
            if attempt == 0:
                tried = self.x[rows]
            elif attempt == 1 and start is not None:
                tried = start[rows]
            elif attempt % 2:
                tried = self.x[rng.integers(0, len(self.x), len(rows))]
            else:
                tried = rng.random((len(rows), *self.x.shape[1:]), np.float32)
            hit = self.fool(rows, tried)
            self.points[rows[hit]], self.started[rows[hit]] = tried[hit], True

    def to_boundary(self, rows: Array) -> None:
        """Draw points towards their samples until they only just fool: a binary search."""
        origin, points = self.x[rows], self.points[rows]
        furthest = np.abs(points - origin).reshape(len(rows), -1).max(1, initial=0)
        high = furthest.astype(np.float64) if self.linf else np.ones(len(rows))
        size = math.prod(self.x.shape[1:])
        precise = np.minimum(high, 1) * size**-2.0 if self.linf else np.full(len(rows), size**-1.5)
        low = np.zeros(len(rows))
        while len(going := np.flatnonzero(high - low > precise)):
            middle = (high[going] + low[going]) / 2
            hit = self.fool(rows[going], self.blend(origin[going], points[going], middle))
            high[going], low[going] = np.where(hit, middle, high[going]), np.where(hit, low[going], middle)
        self.points[rows] = self.blend(origin, points, high)

    def blend(self, origin: Array, points: Array, amount: Array) -> Array:
        """Between sample and point: by a share of the way, or as far as a distance along each value."""
        amount = amount.astype(np.float32).reshape(-1, *(1 for _ in origin.shape[1:]))
        if self.linf:
            return np.clip(points, origin - amount, origin + amount)
        return origin + amount * (points - origin)

    def slope(self, row: int, step: int, count: int, rng: np.random.Generator) -> Array:
        """The direction in which a point fools more surely (…), by the answers to `count` random steps from it."""
        point, size = self.points[row], math.prod(self.x.shape[1:])
        count = min(count, int(self.left[row]))
        if count == 0:
            return np.zeros(point.shape)
        distance = float(self.budget.size_of(point[None], self.x[row : row + 1])[0])
        reach = 0.1 if step == 1 else distance / size
        reach = max(reach, math.sqrt(size) * self.spread)
        draws = rng.uniform(-1, 1, (count, size)) if self.linf else rng.standard_normal((count, size))
        draws *= reach / np.sqrt((draws**2).sum(1, keepdims=True))
        tried = self.snap(np.clip(point + draws.reshape(count, *point.shape), 0, 1).astype(np.float32))
        sides = 2.0 * self.fool(np.full(count, row), tried) - 1
        if abs(sides.mean()) < 1:
            sides -= sides.mean()
        slope = np.tensordot(sides, tried - point, 1)
        return np.sign(slope) if self.linf else slope / max(float(np.sqrt((slope**2).sum())), 1e-12)

    def jump(self, rows: Array, slopes: Array, step: int) -> None:
        """Go along the slopes (rows, …), half as far until the points fool; those that never do stay."""
        distance = self.budget.size_of(self.points[rows], self.x[rows]) / math.sqrt(step)
        for _ in range(_HALVINGS):
            far = distance.reshape(-1, *(1 for _ in slopes.shape[1:]))
            tried = np.clip(self.points[rows] + far * slopes, 0, 1).astype(np.float32)
            hit = self.fool(rows, tried)
            self.points[rows[hit]] = tried[hit]
            rows, slopes, distance = rows[~hit], slopes[~hit], distance[~hit] / 2
            if not len(rows):
                return

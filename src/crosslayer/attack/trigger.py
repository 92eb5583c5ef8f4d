"""The smallest change of a fixed place that makes a classifier call every sample the same class."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from crosslayer.attack.losses import cross_entropy
from crosslayer.attack.victim import Victim
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters
from crosslayer.execute.surrogate import Surrogate

_RAISE, _LOWER = 1.5, 1.5**1.5
_MEAN, _SQUARE = 0.5, 0.9  # decays of Adam's moments
_LIMIT = 12.0  # of what a sigmoid is taken of: beyond, it has no slope left


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trigger:
    """x ↦ (1 − mask) · x + mask · pattern, which turns samples into `target`.

    `mask` (…, 1) and `pattern` (…, channels), shares in 0…1, have the shape of one sample. `turned` is the share of the
    samples of other classes that it was made from that it turns.
    """

    target: int
    mask: Array
    pattern: Array
    turned: float

    @property
    def size(self) -> float:
        """The sum of the mask, in places (pixels)."""
        return float(self.mask.sum(dtype=np.float64))

    def put(self, x: Array) -> Array:
        """The samples x (batch, …), shares of the sensor's range, with the trigger."""
        return ((1 - self.mask) * x + self.mask * self.pattern).astype(np.float32)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSearch:
    """Neural Cleanse (Wang et al. 2019, IEEE S&P, doi:10.1109/SP.2019.00031), written from the paper.

    Adam makes cross-entropy to the target + cost · size of the mask smaller. After each of `rounds` of `steps` steps
    all samples are tried: `cost` rises where at least `success` of them are turned, and else falls; of the triggers
    with that success the smallest is kept. All that is tried is put onto the sensor's grid and computed by the victim
    itself; slopes are a surrogate's where it has none.
    """

    rounds: int = 30
    steps: int = 10
    batch: int = 64
    rate: float = 0.3
    cost: float = 0.01
    success: float = 0.99
    surrogate: Surrogate = Surrogate.LEAKY

    def __post_init__(self) -> None:
        check_parameters(
            (min(self.rounds, self.steps, self.batch) >= 1, "rounds, steps and batch must be at least 1"),
            (self.rate > 0 and self.cost > 0, "rate and cost must be above 0"),
            (0 < self.success <= 1, "success must lie above 0 and be at most 1"),
        )

    def __call__(self, victim: Victim, x: Array, labels: Array, target: int, rng: np.random.Generator) -> Trigger:
        """The smallest trigger found; if none has the wanted success, the one that turns most.

        x (batch, …) are shares of the sensor's range, labels (batch,); samples of the target itself are left out.
        Raises `InputError` if no others are left, or the victim has no slopes.
        """
        if victim.linearize is None:
            raise InputError("triggers are searched by gradients, which this victim has not; give the network itself")
        x = x[labels != target]
        if not len(x):
            raise InputError(f"all samples are of class {target}; give some of others")
        shape = x.shape[1:]
        mask = _Descent(rng.normal(-2, 0.1, (*shape[:-1], 1) if len(shape) > 1 else shape), self.rate)
        pattern = _Descent(rng.normal(0, 0.5, shape), self.rate)
        best, cost = Trigger(target=target, mask=mask.share, pattern=pattern.share, turned=0.0), self.cost
        for _ in range(self.rounds):
            for _ in range(self.steps):
                rows = rng.choice(len(x), min(self.batch, len(x)), replace=False)
                tried = replace(best, mask=mask.share, pattern=pattern.share)
                to_mask, to_pattern = self._slopes(victim, x[rows], tried)
                mask.step(to_mask + cost)
                pattern.step(to_pattern)
            found = replace(best, mask=mask.share, pattern=pattern.share)
            turned = float((victim.logits(found.put(x)).argmax(1) == target).mean())
            if self._better(found.size, turned, best):
                best = replace(found, turned=turned)
            cost = cost * _RAISE if turned >= self.success else cost / _LOWER
        return best

    def _slopes(self, victim: Victim, x: Array, tried: Trigger) -> tuple[Array, Array]:
        """The slopes of the mean cross-entropy along mask and pattern."""
        logits, pullback = victim.slopes(tried.put(x), self.surrogate)
        _, up = cross_entropy(logits, np.full(len(x), tried.target))
        along = pullback((up / len(x)).astype(np.float32)).astype(np.float64)
        to_mask = (along * (tried.pattern - x)).sum(0)
        if tried.mask.shape != to_mask.shape:
            to_mask = to_mask.sum(-1, keepdims=True)
        return to_mask, (along * tried.mask).sum(0)

    def _better(self, size: float, turned: float, best: Trigger) -> bool:
        """Whether it turns enough samples with less, or more of them if there was never enough."""
        if best.turned >= self.success:
            return turned >= self.success and size < best.size
        return turned > best.turned


@final
class _Descent:
    """Shares in 0…1, the sigmoids of what Adam (Kingma & Ba 2015) moves; decays are Neural Cleanse's."""

    def __init__(self, start: Array, rate: float) -> None:
        self._free, self._rate, self._steps = start, rate, 0
        self._mean, self._square = np.zeros_like(start), np.zeros_like(start)

    @property
    def share(self) -> Array:
        return (1 / (1 + np.exp(-self._free))).astype(np.float32)

    def step(self, slope: Array) -> None:
        """Goes down, for a slope along the shares."""
        share = self.share.astype(np.float64)
        slope = slope * share * (1 - share)
        self._steps += 1
        self._mean = _MEAN * self._mean + (1 - _MEAN) * slope
        self._square = _SQUARE * self._square + (1 - _SQUARE) * slope**2
        mean, square = self._mean / (1 - _MEAN**self._steps), self._square / (1 - _SQUARE**self._steps)
        self._free = np.clip(self._free - self._rate * mean / (np.sqrt(square) + 1e-8), -_LIMIT, _LIMIT)

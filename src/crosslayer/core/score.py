"""One figure with unit, interval and origin."""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import final

import numpy as np


class Origin(StrEnum):
    """How a figure was obtained."""

    MEASURED = "measured"
    """On this computer, by running or counting the thing itself."""
    EMULATED = "emulated"
    """The firmware ran on an emulated core."""
    PREDICTED = "predicted"
    """Summed from what the parts of the kernels take on an emulated core: what the firmware shows there, exactly."""
    MODELLED = "modelled"
    """From a formula; the interval says how far to trust it."""
    PUBLISHED = "published"
    """Taken from a named source."""


class Better(StrEnum):
    """The direction in which a figure improves."""

    HIGHER = "higher"
    LOWER = "lower"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A figure that a user sees.

    >>> Score(name="flash", value=1024, unit="B", better=Better.LOWER, origin=Origin.MEASURED).low
    1024.0
    """

    name: str
    value: float
    unit: str
    """`1` for shares, `B`, `s`, `J`; empty for counts."""
    better: Better
    origin: Origin
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    """What the origin alone does not say: the model, the core, the source."""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            given: float = getattr(self, name)
            # float, since that is what a saved figure reads back as, and a resumed run must write the same text
            object.__setattr__(self, name, float(self.value if math.isnan(given) else given))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    >>> tuple(round(bound, 3) for bound in wilson(90, 100))
    (0.826, 0.945)
    """
    z = 1.959963984540054  # the 97.5 % point of the standard normal distribution
    share = hits / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if hits == 0 else (centre - half) / scale  # at the ends the bound is exact, its rounding is not
    high = 1.0 if hits == trials else (centre + half) / scale
    return low, high


@lru_cache(maxsize=4096)
def share_score(name: str, hits: int, trials: int, better: Better, note: str) -> Score:
    """A measured share with its 95 % Wilson interval over the trials, of which there is at least one."""
    low, high = wilson(hits, trials)
    return Score(
        name=name,
        value=hits / trials,
        unit="1",
        low=low,
        high=high,
        better=better,
        origin=Origin.MEASURED,
        note=note,
    )


def clopper_pearson(hits: int, trials: int, alpha: float) -> float:
    """The exact lower bound of a share: it lies above the true one with a probability of at most `alpha`
    (Clopper & Pearson 1934, Biometrika 26:404).

    >>> clopper_pearson(100, 100, 0.05) == 0.05 ** (1 / 100)
    True
    """
    if hits in (0, trials):
        return 0.0 if hits == 0 else alpha ** (1 / trials)
    counts = np.arange(hits, trials + 1)
    sizes = np.array([math.lgamma(k + 1) + math.lgamma(trials - k + 1) for k in counts.tolist()])
    ways = math.lgamma(trials + 1) - sizes
    low, high = 0.0, 1.0
    for _ in range(60):  # P(at least so many hits) rises with the share
        middle = (low + high) / 2
        if np.exp(ways + counts * math.log(middle) + (trials - counts) * math.log1p(-middle)).sum() > alpha:
            high = middle
        else:
            low = middle
    return low

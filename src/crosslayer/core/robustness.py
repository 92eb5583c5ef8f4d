"""What attacks on a design have shown, as plain data for the sheet and the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.score import Score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """One attack on its own: of `samples` that were right before, `right` stayed so."""

    name: str
    what: str
    """The attack with its parameters."""
    samples: int
    right: int
    low: float
    """Of the share that stayed right: 95 % Wilson interval."""
    high: float
    seconds: float
    """Of processor time."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that must hold of an evaluation that can be believed, and what was found."""

    name: str
    holds: bool
    finding: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The share of samples that is right at a size of the budget, with its 95 % Wilson interval."""

    size: float
    accuracy: float
    low: float
    high: float


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A sample and what an attack made of it (real values), its class, and what the design calls each."""

    values: npt.NDArray[np.float32]
    attacked: npt.NDArray[np.float32]
    label: int
    before: int
    after: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Robustness:
    """An evaluation under attack.

    `score` is the share of samples that no attack of the set could turn, at this budget: not a bound, and to be
    believed only if all `checks` hold. `threat` says what the attacker knows and may do. `replayed` attacked samples
    ran on the C, of whose bytes `differing` were others.
    """

    budget: str
    threat: Mapping[str, str]
    clean: Score
    score: Score
    attacks: tuple[AttackResult, ...]
    checks: tuple[Check, ...]
    curve: tuple[CurvePoint, ...]
    examples: tuple[Example, ...]
    replayed: int
    differing: int

    @property
    def believable(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What one attack, given with its parameters, leaves right: no claim, for other attacks find more."""

    budget: str
    attack: str
    clean: Score
    score: Score
    """The share of the samples that are still right, on the C."""
    replayed: int
    differing: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sticker:
    """A sticker for all images of other classes than `target` (None: for all), within the share of the image that
    `budget` says; `what` is the attack with its parameters, placements among them.

    `score` is the share of images, each with the sticker put once at random, that were called the target (None: a wrong
    class), `noise` that with a sticker of noise in the same places. `values` (side, side, channels) are real. All
    `replayed` images ran on the C, of whose bytes `differing` were others.
    """

    budget: str
    what: str
    target: int | None
    score: Score
    noise: Score
    values: npt.NDArray[np.float32]
    examples: tuple[Example, ...]
    replayed: int
    differing: int

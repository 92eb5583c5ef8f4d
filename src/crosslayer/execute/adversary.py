"""Whom training defends against. Needs no PyTorch, so that a stage can say it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

from crosslayer.core.stage import check_parameters


class Method(StrEnum):
    """What a step of training makes smaller, and how the attack inside it searches."""

    PGD = "pgd"
    """The loss of attacked samples, found by projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""
    TRADES = "trades"
    """The loss of clean samples, and `beta` times how far attacked ones move its shares (Zhang et al. 2019, arXiv
    1901.08573): `beta` trades accuracy for robustness."""
    FAST = "fast"
    """As `PGD`, in one step of 1.25 epsilon (Wong et al. 2020, arXiv 2001.03994): cheap, but training may learn to
    fool that one step (catastrophic overfitting), which is watched for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Adversary:
    """Moves each value by at most `epsilon`, a share of the range of the training data, and stays in that range.

    The search starts at a random place and takes `steps` steps of `step` times epsilon along the sign of the slope;
    `fast` takes its own. Epsilon grows from 0 over the first share `ramp` of training.
    """

    epsilon: float
    method: Method = Method.PGD
    steps: int = 7
    step: float = 0.35
    beta: float = 6.0
    ramp: float = 0.3

    def __post_init__(self) -> None:
        check_parameters(
            (0 < self.epsilon <= 1, "epsilon must be above 0 and at most 1"),
            (self.steps >= 1, "steps must be at least 1"),
            (0 < self.step <= 2, "step must be above 0 and at most 2"),
            (0 < self.beta <= 1e6, "beta must be above 0 and at most 1000000"),
            (0 <= self.ramp <= 1, "ramp must lie in 0…1"),
        )

    @property
    def moves(self) -> tuple[int, float]:
        """How many steps the search takes, and how long each is in epsilons."""
        return (1, 1.25) if self.method is Method.FAST else (self.steps, self.step)

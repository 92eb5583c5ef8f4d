"""What audits of a finished design have found, as plain data."""

from dataclasses import dataclass
from typing import final

from crosslayer.core.score import Score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTrigger:
    """The smallest trigger found that turns samples into class `target`; `size` in places (pixels).

    `turned` and `turned_float` are the shares of other samples, of other classes, that it turns in the integers and in
    the float network. `index` is by how many deviations it is smaller than the median of all classes.
    """

    target: int
    size: float
    turned: Score
    turned_float: Score
    index: float

    @property
    def awakened(self) -> bool:
        """Whether it works in the integers better than in the float network, beyond both intervals."""
        return self.turned.low > self.turned_float.high


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Backdoors:
    """A scan for backdoors. `agreement` is how often integers and float network call samples with triggers alike.

    `flagged` classes have triggers that are too small to be chance (`limit` deviations) and do turn other samples.
    """

    triggers: tuple[ClassTrigger, ...]
    agreement: Score
    flagged: tuple[int, ...]
    limit: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Imitation:
    """After so many queries the attacker's own network calls this share of test samples as the design does."""

    queries: int
    agreement: Score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What an attacker learns from answers (`labels` or `logits`) to inputs of a kind.

    `needed` is the least number of queries tried with 90 % agreement; None if that was not reached.
    """

    answers: str
    inputs: str
    curve: tuple[Imitation, ...]
    needed: Score | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipAttack:
    """How well samples of the training data are told from others, by the outputs of `outputs`: area under the ROC
    curve, and the share of members that is found where 1 % of the others is taken for members."""

    attack: str
    outputs: str
    auc: Score
    tpr: Score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Attacks on so many members and as many others."""

    samples: int
    attacks: tuple[MembershipAttack, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All audits of a design."""

    backdoors: Backdoors
    extraction: tuple[Extraction, ...]
    membership: Membership

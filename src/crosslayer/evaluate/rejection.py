"""How well a design tells inputs that it has learned of from others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.attack.sensor import Sensor
from crosslayer.core.bench import Executor
from crosslayer.core.dataset import Split
from crosslayer.core.design import Design
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.rejection import Rejection
from crosslayer.core.score import Better, Origin, Score, share_score

_Z = 1.959963984540054  # the 97.5 % point of the standard normal distribution


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How well one kind of unknown inputs is told from known ones.

    `auroc` is the chance that a known input has a larger statistic than an unknown one, a half where both are equal;
    `fpr95` the share of unknown ones that is accepted where 95 % of the known ones are; `accepted` that share by the
    threshold that ships.
    """

    unknown: str
    auroc: Score
    fpr95: Score
    accepted: Score

    @property
    def scores(self) -> tuple[Score, ...]:
        """All three."""
        return self.auroc, self.fpr95, self.accepted


def rejection_of(design: Design) -> Rejection:
    """The rejection that a design ships. Raises `InputError` if it has none."""
    if design.plan is None or design.plan.rejection is None:
        raise InputError("this design rejects nothing; let its recipe end with plan-arena and then reject-unknown")
    return design.plan.rejection


def accepted_score(design: Design, split: Split, executor: Executor) -> Score:
    """The share of a split's samples that the design accepts, with its 95 % Wilson interval."""
    rejection = rejection_of(design)
    kept = rejection.accepts(executor(rejection.watched(design.graph), split.real()))
    return share_score("accepted", int(kept.sum()), len(kept), Better.HIGHER, f"known inputs, {len(kept)} samples")


def detections(design: Design, known: Split, unknown: Mapping[str, Array], executor: Executor) -> tuple[Detection, ...]:
    """How well the design tells each kind of unknown inputs (real values, (count, …)) from the known ones."""
    rejection = rejection_of(design)
    watched = rejection.watched(design.graph)

    def found(x: Array) -> Array:
        return rejection.values(executor(watched, x))

    own = found(known.real())
    return tuple(_detection(name, own, found(x), rejection.threshold) for name, x in unknown.items())


def unknown_inputs(sensor: Sensor, shape: tuple[int, ...], count: int, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs of no class, real values (count, *shape) that the sensor can give: noise and constant images."""
    flat = np.broadcast_to(rng.random((count, *(1 for _ in shape)), np.float32), (count, *shape))
    shares = {"uniform noise": rng.random((count, *shape), np.float32), "constant": flat}
    return {name: sensor.real(values) for name, values in shares.items()}


def _detection(name: str, known: Array, unknown: Array, threshold: int) -> Detection:
    area, low, high = auroc(known, unknown)
    count = len(unknown)
    what = f"{name}, {count} samples"
    strict = int(np.sort(known)[int(np.floor(0.05 * len(known)))])
    return Detection(
        unknown=name,
        auroc=Score(
            name="auroc",
            value=area,
            unit="1",
            low=low,
            high=high,
            better=Better.HIGHER,
            origin=Origin.MEASURED,
            note=f"{what}, against {len(known)} known ones",
        ),
        fpr95=share_score("fpr95", int((unknown >= strict).sum()), count, Better.LOWER, what),
        accepted=share_score("accepted_unknown", int((unknown >= threshold).sum()), count, Better.LOWER, what),
    )


def auroc(known: Array, unknown: Array) -> tuple[float, float, float]:
    """P(known > unknown) + P(known = unknown) / 2, and its 95 % interval (Newcombe 2006, Stat. Med. 25:559, method 5).

    >>> round(auroc(np.array([2, 3]), np.array([1, 2]))[0], 3)
    0.875
    """
    ordered, m, n = np.sort(unknown), len(known), len(unknown)
    wins = np.searchsorted(ordered, known, "left") + np.searchsorted(ordered, known, "right")
    area = float(wins.mean() / (2 * n))
    extra = (m + n) / 2 - 1

    def far(theta: float) -> float:
        """How many standard errors, were `theta` the truth, the area is away from it."""
        more = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(area - theta) / max(np.sqrt(theta * (1 - theta) * more / (m * n)), 1e-12)

    def end(limit: float) -> float:
        inside, outside = area, limit
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if far(middle) <= _Z else (inside, middle)
        return inside

    return area, end(0.0), end(1.0)

"""How far an attacker may go from a sample."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import final

import numpy as np

from crosslayer.core.codec import suggest
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array

_SLACK = 1e-5  # of float32 arithmetic on values in 0…1
_STEP_SLACK = 1e-3  # the same, in steps of a sensor's grid


class Norm(StrEnum):
    """What a budget limits. Samples are arrays (…, channels) of values in 0…1, the shares of the sensor's range."""

    LINF = "linf"
    """The change of each value."""
    L2 = "l2"
    """The Euclidean length of all changes."""
    L0 = "l0"
    """The number of places (pixels) that change, in whatever channels."""
    PATCH = "patch"
    """The share of the image's area that lies in the smallest upright rectangle around all changes."""


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """A norm and how large it may become.

    >>> Budget.parse("linf 8/255").size == 8 / 255
    True
    """

    norm: Norm
    size: float

    def __post_init__(self) -> None:
        most = 1.0 if self.norm in (Norm.LINF, Norm.PATCH) else np.inf
        if not 0 <= self.size <= most or (self.norm is Norm.L0 and self.size != round(self.size)):
            ranges = {Norm.L2: "at least 0, as 0.5", Norm.L0: "a whole number, as 3"}
            wanted = ranges.get(self.norm, "in 0…1, as 8/255")
            raise InputError(f"budget {self.norm} {self.size:g}: the size must be {wanted}")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """The budget that a text such as `linf 8/255`, `l2 0.5`, `l0 3` or `patch 0.05` says. Raises `InputError`."""
        name, _, size = text.strip().partition(" ")
        if name.lower() not in list(Norm):
            raise InputError(f"budget {text!r}: norm '{name}' is not known; {suggest(name.lower(), list(Norm))}")
        try:
            number = float(Fraction(size.strip()))
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"budget {text!r}: '{size}' is no number; write such as linf 8/255") from error
        return cls(Norm(name.lower()), number)

    def __str__(self) -> str:
        """As `parse` reads it."""
        exact = Fraction(self.size).limit_denominator(255)
        shown = str(exact) if self.norm is Norm.LINF and abs(float(exact) - self.size) < 1e-9 else f"{self.size:g}"
        return f"{self.norm} {shown}"

    def size_of(self, x: Array, origin: Array) -> Array:
        """How much of the budget's norm each sample takes, float64 (batch,)."""
        change = (x.astype(np.float64) - origin).reshape(len(x), -1)
        match self.norm:
            case Norm.LINF:
                return np.abs(change).max(1)
            case Norm.L2:
                return np.sqrt((change**2).sum(1))
            case Norm.L0:
                return (x != origin).any(-1).reshape(len(x), -1).sum(1).astype(np.float64)
            case Norm.PATCH:
                return _areas((x != origin).any(-1))

    def holds(self, x: Array, origin: Array) -> Array:
        """Whether each sample is in 0…1 and within the budget (batch,)."""
        inside = ((x >= 0) & (x <= 1)).reshape(len(x), -1).all(1)
        return inside & (self.size_of(x, origin) <= self.size + _SLACK)

    def project(self, x: Array, origin: Array) -> Array:
        """The nearest samples in 0…1 within the budget, float32; for `L0` the largest changes stay. A patch is not
        projected: its attack must place it."""
        match self.norm:
            case Norm.LINF:
                size = np.float32(self.size)
                return np.clip(x, np.maximum(origin - size, 0), np.minimum(origin + size, 1)).astype(np.float32)
            case Norm.L2:
                inside = np.clip(x, 0, 1)
                length = self.size_of(inside, origin).reshape(-1, *(1 for _ in x.shape[1:]))
                shrink = np.minimum(1.0, self.size / np.maximum(length, 1e-12))
                return (origin + (inside - origin) * shrink).astype(np.float32)
            case Norm.L0:
                return _largest(np.clip(x, 0, 1).astype(np.float32), origin, int(self.size))
            case Norm.PATCH:
                return np.clip(x, 0, 1).astype(np.float32)

    def snap(self, x: Array, origin: Array, steps: int) -> Array:
        """Samples on the sensor's grid of so many steps (0: no grid) near `x`, within the budget if `x` is. `origin`
        lies on the grid."""
        if not steps:
            return x
        change = (x - origin) * np.float32(steps)
        match self.norm:
            case Norm.LINF:
                most = np.floor(self.size * steps + _STEP_SLACK)
                whole = np.clip(np.rint(change), -most, most)
            case Norm.L2:
                whole = _shorter(change, self.size * steps)
            case Norm.L0 | Norm.PATCH:
                whole = np.rint(change)
        return (np.clip(np.rint(origin * np.float32(steps)) + whole, 0, steps) / steps).astype(np.float32)


def check_set(budget: Budget) -> None:
    """Raises `InputError` if no set of attacks evaluates under the budget."""
    if budget.norm not in (Norm.LINF, Norm.L2):
        raise InputError(
            f"budget {budget}: evaluations are made under linf and l2; {budget.norm} has single attacks only"
        )


def _shorter(change: Array, length: float) -> Array:
    """Whole numbers near `change` (batch, …), no longer than `length` if it is not: the nearest ones where they fit.

    Else fewer are rounded away from 0: at last none.
    """
    sizes = np.abs(change)
    whole = np.rint(sizes)
    for share in (0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, _STEP_SLACK):
        long = np.flatnonzero((whole.reshape(len(whole), -1) ** 2).sum(1, dtype=np.float64) > length**2 + _STEP_SLACK)
        if not len(long):
            break
        whole[long] = np.floor(sizes[long] + np.float32(share))
    return np.copysign(whole, change)


def _areas(changed: Array) -> Array:
    """The share of the area in the rectangle around what changed (batch, height, width)."""

    high, wide = (_extent(np.asarray(changed.any(axis))) for axis in (2, 1))
    return high * wide / (changed.shape[1] * changed.shape[2])


def _extent(hit: Array) -> Array:
    """From the first to the last place that is hit (batch, places)."""
    first, last = hit.argmax(1), hit.shape[1] - hit[:, ::-1].argmax(1)
    return np.where(hit.any(1), last - first, 0)


def _largest(x: Array, origin: Array, count: int) -> Array:
    """`x` at the `count` places of each sample where it changes most, `origin` elsewhere."""
    change = np.abs(x - origin).sum(-1).reshape(len(x), -1)
    places = np.argsort(-change, axis=1, kind="stable")[:, :count]
    kept = np.zeros(change.shape, bool)
    np.put_along_axis(kept, places, True, axis=1)
    return np.where(kept.reshape(x.shape[:-1])[..., None], x, origin)

"""A modelled quantity with its bounds."""

from typing import Generic, NamedTuple, NewType, TypeVar, final

Cycles = NewType("Cycles", float)
Seconds = NewType("Seconds", float)
Joules = NewType("Joules", float)

Unit = TypeVar("Unit", bound=float)


@final
class Estimate(NamedTuple, Generic[Unit]):
    """A value and the interval that holds it if every figure behind it lies in its own.

    The bounds are products of bounds: a worst case, not a confidence interval.

    >>> value, low, high = Estimate(Seconds(2e-3), Seconds(1e-3), Seconds(4e-3))
    >>> high / low
    4.0
    """

    value: Unit
    low: Unit
    high: Unit

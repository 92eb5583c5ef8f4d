"""Where random choices come from: a seed, or hypothesis, which can then make a failing example smaller."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar, final

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")


class Chance(ABC):
    """A source of choices. All of them come from `integer`, whose smaller values should mean simpler things."""

    @abstractmethod
    def integer(self, low: int, high: int) -> int:
        """An integer in low…high, both included."""

    @final
    def one_of(self, items: Sequence[T]) -> T:
        """One of several things, the simplest first."""
        return items[self.integer(0, len(items) - 1)]

    @final
    def rarely(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.integer(0, one_in - 1) == one_in - 1

    @final
    def between(self, low: float, high: float) -> float:
        """A real number in low…high."""
        return low + (high - low) * self.integer(0, 1000) / 1000

    @final
    def rng(self) -> np.random.Generator:
        """A generator for arrays."""
        return np.random.default_rng(self.integer(0, 2**32 - 1))


@final
class Seeded(Chance):
    """The same choices for the same seed.

    >>> Seeded(3).integer(0, 9) == Seeded(3).integer(0, 9)
    True
    """

    def __init__(self, *seed: int) -> None:
        """Start from one or several non-negative numbers."""
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """An integer in low…high, both included."""
        return int(self._rng.integers(low, high, endpoint=True))


@final
class Drawn(Chance):
    """Choices that hypothesis makes."""

    def __init__(self, draw: st.DrawFn) -> None:
        """Take the `draw` of a composite strategy."""
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        """An integer in low…high, both included."""
        return self._draw(st.integers(low, high))


def grown(make: Callable[[Chance], T]) -> st.SearchStrategy[T]:
    """A strategy for what a function makes by chance, such as `grown(float_graph)`."""

    @st.composite
    def build(draw: st.DrawFn) -> T:
        return make(Drawn(draw))

    return build()

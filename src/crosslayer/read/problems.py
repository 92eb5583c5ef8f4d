"""Everything that is wrong with a network file, told at once."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from crosslayer.core.errors import GraphError, ReadError

LARGEST = 1 << 28
"""Elements of one tensor. A reader refuses a larger one before it asks for its memory."""
_MOST_AXES = 32
_TOLD = 20  # problems in one message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong at one place of a file, and what to do about it."""

    place: str
    what: str
    todo: str

    def __str__(self) -> str:
        """`place: what; todo`."""
        return f"{self.place}: {self.what}; {self.todo}"


@final
class Problems:
    """Collects what is wrong with one file.

    >>> problems = Problems("net.onnx")
    >>> problems.add("node 3 'lstm' (LSTM)", "has no counterpart", "replace it by convolutions")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
    ...
    crosslayer.core.errors.ReadError: net.onnx: node 3 'lstm' (LSTM): has no counterpart; replace it by convolutions
    """

    def __init__(self, where: str) -> None:
        """None so far; `where` names the file."""
        self._where = where
        self._found: dict[Problem, None] = {}

    @property
    def found(self) -> tuple[Problem, ...]:
        """All of them, in the order of the file."""
        return tuple(self._found)

    def add(self, place: str, what: str, todo: str) -> None:
        """One more; the same one counts once."""
        self._found[Problem(place=place, what=what, todo=todo)] = None

    @contextmanager
    def at(self, place: str) -> Generator[None]:
        """A `GraphError` or `Unreadable` in the block becomes a problem of `place`, and the reader goes on."""
        try:
            yield
        except Unreadable as error:
            self.add(place, error.what, error.todo)
        except GraphError as error:
            what, _, todo = str(error).partition("; ")
            self.add(place, what, todo or "change the network")

    def raise_if_any(self) -> None:
        """Raises one `ReadError` that lists them all, a line each."""
        if not self._found:
            return
        told = [str(problem) for problem in self.found[:_TOLD]]
        more = len(self._found) - len(told)
        if len(self._found) == 1:
            raise ReadError(f"{self._where}: {told[0]}")
        rest = [f"… and {more} more"] if more else []
        raise ReadError("\n  ".join([f"{self._where}: cannot be read, for {len(self._found)} reasons:", *told, *rest]))


@final
class Unreadable(Exception):  # noqa: N818  # never leaves a reader: `Problems.at` catches it
    """What is wrong with the place that is being read, and what to do."""

    def __init__(self, what: str, todo: str) -> None:
        """The two halves of a `Problem`."""
        super().__init__(f"{what}; {todo}")
        self.what = what
        self.todo = todo


def checked_size(shape: Sequence[int]) -> int:
    """The number of elements of a tensor. Raises `Unreadable` for a negative axis, too many axes or elements.

    >>> checked_size((2, 3))
    6
    """
    if any(side < 0 for side in shape):
        raise Unreadable(f"the shape {list(shape)} has a negative axis", "export the network again")
    if len(shape) > _MOST_AXES:
        raise Unreadable(f"a tensor has {len(shape)} axes", f"use at most {_MOST_AXES}")
    size = math.prod(shape)
    if size > LARGEST:
        raise Unreadable(f"a tensor of shape {list(shape)} has more than {LARGEST} elements", "use a smaller network")
    return size

"""What a stage finds at hand: data, randomness, progress, and a way to look at the design."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, final

import numpy as np

from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array

T = TypeVar("T")
Executor = Callable[[Graph, Array], Array]
"""(graph, batch of inputs: real values, or codes for an integer input) -> batch of the first output."""


class Progress(Protocol):
    """Yields the items of an iterable and shows how far it got; with a title and a total."""

    def __call__(self, items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
        """The items, one by one."""
        ...


def silent(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """No progress display."""
    return iter(items)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """Data, a seed, an executor for accuracy, and progress. `at(i)` is the bench of stage i, with its own chance."""

    data: Dataset
    seed: int
    executor: Executor
    progress: Progress = silent
    position: int = 0
    scratch: Path | None = None
    """A folder in which the running stage may save how far it got; it survives a kill."""
    cache: Path | None = None
    """A folder of results of the executor, for any run to take up: the name of each says all that it depends on."""

    def at(self, position: int, scratch: Path | None) -> "Bench":
        """The bench of the stage at `position`: its random numbers do not depend on what ran before."""
        return replace(self, position=position, scratch=scratch)

    def accuracy(self, graph: Graph, split: Split) -> float:
        """The share of a split's samples whose largest output is their label; of equal ones the first counts."""
        outputs = self.executor(graph, split.real()).reshape(len(split), -1)
        return float(np.mean(outputs.argmax(axis=1) == split.labels))

    def stage_seed(self) -> int:
        """A seed that is the same for the same seed and position."""
        return int(self.rng().integers(2**31))

    def rng(self) -> np.random.Generator:
        """A fresh generator, the same for the same seed and position."""
        return np.random.default_rng((self.seed, self.position))

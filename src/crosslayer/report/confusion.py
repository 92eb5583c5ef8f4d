"""Which classes are taken for which: the matrix, the recall of each class, and the most frequent mistakes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.score import Better, Origin, Score, wilson
from crosslayer.core.sheet import Sheet
from crosslayer.report.figures import SHARE

MATRIX_CLASSES = 20
"""Beyond this many classes a matrix cannot be read; the most frequent mistakes are listed instead."""

_PAIRS = 20


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """The test samples of one class: what they were called, and which share was right (None without samples)."""

    name: str
    counts: tuple[int, ...]
    total: int
    recall: Score | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """`count` samples of class `label`, a share of all of that class, were called `called`."""

    label: str
    called: str
    count: int
    share: float


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a class, or its number where it has none.

    >>> class_name(("cat", "dog"), 2)
    '2'
    """
    return classes[index] if 0 <= index < len(classes) else str(index)


def class_rows(sheet: Sheet) -> tuple[ClassRow, ...]:
    """One row per class, with a 95 % interval around its recall."""
    rows: list[ClassRow] = []
    for i, line in enumerate(np.asarray(sheet.confusion)):
        counts, total = tuple(int(n) for n in line), int(line.sum())
        rows.append(
            ClassRow(
                name=class_name(sheet.classes, i),
                counts=counts,
                total=total,
                recall=_recall(counts[i], total) if total else None,
            )
        )
    return tuple(rows)


def mistakes(sheet: Sheet) -> tuple[Mistake, ...]:
    """The most frequent pairs of class and wrong answer."""
    rows = class_rows(sheet)
    pairs = [
        Mistake(label=row.name, called=class_name(sheet.classes, j), count=count, share=count / row.total)
        for i, row in enumerate(rows)
        for j, count in enumerate(row.counts)
        if i != j and count
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.count)[:_PAIRS])


def heat(count: int, total: int) -> float:
    """How strongly a cell is tinted, 0…1: visible from the first sample on.

    >>> heat(0, 40), heat(40, 40)
    (0.0, 1.0)
    """
    return round(0.15 + 0.85 * math.sqrt(count / total), 3) if count else 0.0


def _recall(hits: int, total: int) -> Score:
    low, high = wilson(hits, total)
    return Score(
        name="recall",
        value=hits / total,
        unit=SHARE,
        better=Better.HIGHER,
        origin=Origin.MEASURED,
        low=low,
        high=high,
    )

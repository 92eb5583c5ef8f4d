"""Class names and the integer labels that index them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosslayer.core.quant import Array
from crosslayer.datasets.damage import damaged


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names, ascending: as numbers where all are whole numbers, else as text.

    >>> class_order(["10", "9", "10"]), class_order(["dog", "cat"])
    (('9', '10'), ('cat', 'dog'))
    """
    distinct = set(names)
    try:
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(distinct))


def numbered(names: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The position of each name in `classes`, shape (count,).

    >>> numbered(["dog", "cat", "dog"], ("cat", "dog")).tolist()
    [1, 0, 1]
    """
    position = {name: index for index, name in enumerate(classes)}
    return np.fromiter((position[name] for name in names), dtype=np.int64, count=len(names))


def indices(labels: Array, classes: Sequence[str], path: Path) -> npt.NDArray[np.int64]:
    """`labels` (count,) as int64. DataError if one of them is no index into `classes`."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        found = labels.min() if labels.min() < 0 else labels.max()
        raise damaged(path, f"holds label {found}, but the {len(classes)} classes are numbered 0…{len(classes) - 1}")
    return labels.astype(np.int64)

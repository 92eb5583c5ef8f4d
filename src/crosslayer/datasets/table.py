"""Samples as rows of a text table."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosslayer.core.dataset import Split
from crosslayer.core.errors import DataError
from crosslayer.datasets.damage import decoding
from crosslayer.datasets.labels import class_order, numbered
from crosslayer.datasets.parts import Parts

LABEL_NAMES = ("label", "class")


def read(path: Path) -> Parts:
    """Samples (count, columns) float32 and one label each from a UTF-8 table separated by comma, semicolon or tab.

    The first row is a header if it holds `label` or `class`, or text before its last cell. The label column is the one
    with such a name, else the last; every other column must hold finite numbers. DataError names the line at fault.
    """
    samples, names = list[npt.NDArray[np.float32]](), list[str]()
    with decoding(path), path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        rows = csv.reader(file, delimiter=next((mark for mark in "\t;" if mark in first), ","), strict=True)
        header: Sequence[str] | None = None
        width, label = 0, 0
        for row in rows:
            if not row:
                continue
            if not width:
                header = row if is_header(row) else None
                width, label = len(row), label_column(header) if header else len(row) - 1
                if width < 2:
                    raise DataError(f"{path}: has one column; give columns of numbers and one of labels")
                if header:
                    continue
            where = f"{path}, line {rows.line_num}"
            if len(row) != width:
                raise DataError(f"{where}: {len(row)} cells instead of {width}; complete or remove the line")
            name = row.pop(label).strip()
            if not name:
                raise DataError(f"{where}: no label; add it or remove the line")
            names.append(name)
            samples.append(_numbers(where, row))
    codes = np.stack(samples) if samples else np.empty((0, 1), dtype=np.float32)
    classes = class_order(names)
    return Parts(train=Split(codes=codes, labels=numbered(names, classes)), classes=classes)


def is_header(row: Sequence[str]) -> bool:
    """Whether a table's first row names its columns.

    >>> is_header(["width", "kind"]), is_header(["0", "1", "label"]), is_header(["0.5", "1e3", "cat"])
    (True, True, False)
    """
    return any(_plain(cell) in LABEL_NAMES for cell in row) or not all(_is_number(cell) for cell in row[:-1])


def label_column(header: Sequence[str]) -> int:
    """The column of labels: the one called `label`, else `class`, else the last.

    >>> label_column(["Class", "width"]), label_column(["width", "kind"])
    (0, 1)
    """
    plain = [_plain(cell) for cell in header]
    return next((plain.index(name) for name in LABEL_NAMES if name in plain), len(plain) - 1)


def _numbers(where: str, cells: Sequence[str]) -> npt.NDArray[np.float32]:
    """The cells as finite float32 numbers."""
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported below
            numbers = np.fromiter(map(float, cells), dtype=np.float32, count=len(cells))
    except ValueError as error:
        bad = next(cell for cell in cells if not _is_number(cell))
        raise DataError(f"{where}: {bad!r} is not a number; only the label column may hold text") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: holds a value that is not a finite float32 number; replace it or remove the line")
    return numbers


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _plain(cell: str) -> str:
    return cell.strip().casefold()

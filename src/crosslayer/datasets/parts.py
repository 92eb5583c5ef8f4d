"""From what a reader found to three splits."""

from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.errors import DataError

SEED = 20_231
"""Decides every carved split. Changing it changes every figure ever obtained on one."""
TEST_SHARE = 0.2
"""Share of all samples kept for final scores where the source has no test split of its own."""
VALIDATION_SHARE = 0.1
"""Share of the training samples kept for choices where the source has no validation split of its own."""
PIXEL_SCALE = 1 / 255
"""Real value of one step of an 8-bit pixel: images range over [0, 1]."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """The splits that a source itself has. What is None is carved from `train` by `assemble`."""

    train: Split
    validation: Split | None = None
    test: Split | None = None
    classes: tuple[str, ...]
    note: str = ""
    """What a reader of results should know about these samples."""


def assemble(parts: Parts, *, name: str, source: str, where: str) -> Dataset:
    """The parts as a data set of three non-empty splits; the missing ones are carved, stratified, with a fixed seed.

    `source` is what a reader would cite, `where` what an error names. DataError if the splits differ in sample shape or
    number code, or if there are too few samples to carve from.
    """
    for role, split in (("validation", parts.validation), ("test", parts.test)):
        if split is not None and _form(split) != _form(parts.train):
            raise DataError(
                f"{where}: {role} samples are {_form(split)} but training samples are {_form(parts.train)}; "
                "store all splits in one form"
            )
    rest, test = (parts.train, parts.test) if parts.test else stratified(parts.train, TEST_SHARE, SEED)
    train, validation = (rest, parts.validation) if parts.validation else stratified(rest, VALIDATION_SHARE, SEED)
    if not (len(train) and len(validation) and len(test)):
        raise DataError(
            f"{where}: {len(parts.train)} training samples are too few for the splits train, validation and test; "
            "add samples, at least three of one class"
        )
    note = f" ({parts.note})" if parts.note else ""
    return Dataset(
        name=name, train=train, validation=validation, test=test, classes=parts.classes, source=source + note
    )


def stratified(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """`split` without, and only, a random `share` of its samples; the same seed gives the same parts.

    Unlike `core.dataset.split_off`, each class gives its share to within one sample, and no class moves as a whole
    (one with a single sample stays). At least one sample moves if any can, and at most half.

    >>> letters = Split(codes=np.arange(10), labels=np.repeat([0, 1], 5))
    >>> [np.bincount(part.labels).tolist() for part in stratified(letters, 0.4, seed=1)]
    [[3, 3], [2, 2]]
    """
    shuffled = np.random.default_rng(seed).permutation(len(split))
    by_class = shuffled[np.argsort(split.labels[shuffled], kind="stable")]
    pool = by_class[np.bincount(split.labels)[split.labels[by_class]] > 1] if len(split) else by_class
    wanted = min(max(1, round(len(pool) * share)), len(pool) // 2)
    # every (1/share)-th of the samples sorted by class: systematic sampling
    taken = pool[np.diff(np.arange(len(pool) + 1) * wanted // max(1, len(pool))) > 0]
    kept = np.setdiff1d(shuffled, taken, assume_unique=True)
    return split.take(np.sort(kept)), split.take(np.sort(taken))


def _form(split: Split) -> str:
    """Shape and number code of one sample, as printed."""
    shape = "×".join(str(n) for n in split.codes.shape[1:]) or "scalar"
    return f"{shape} {split.codes.dtype} of scale {split.scale:.6g}"

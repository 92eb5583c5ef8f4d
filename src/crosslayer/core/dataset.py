"""Labelled samples in three deterministic splits."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import DataError
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Samples `codes` (count, *shape), stored compactly, and `labels` (count,) int64; real = codes × scale + offset."""

    codes: Array
    labels: npt.NDArray[np.int64]
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.labels):
            raise DataError(f"{len(self.codes)} samples and {len(self.labels)} labels; they must be equally many")

    def __len__(self) -> int:
        return len(self.labels)

    def real(self, chosen: slice | Array = slice(None)) -> npt.NDArray[np.float32]:
        """The chosen samples as float32 values."""
        return self.codes[chosen].astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def take(self, chosen: slice | Array) -> "Split":
        """The chosen samples, in the given order."""
        return Split(codes=self.codes[chosen], labels=self.labels[chosen], scale=self.scale, offset=self.offset)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A named set. `train` is for learning and calibration, `validation` for choices, `test` for final scores only."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    source: str = field(default="")
    """Where the samples come from, as a reader would cite it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample, channels last."""
        return tuple(int(n) for n in self.train.codes.shape[1:])

    def scaled(self, factor: float) -> "Dataset":
        """The set with all real values times `factor`, for a network that takes its inputs in another range."""
        train, validation, test = (
            replace(split, scale=split.scale * factor, offset=split.offset * factor)
            for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def digest(self) -> str:
        """SHA-256 of all samples and labels: two sets of one name may differ."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        for split in (self.train, self.validation, self.test):
            digest.update(repr((split.codes.dtype, split.codes.shape, split.scale, split.offset)).encode())
            digest.update(np.ascontiguousarray(split.codes).data)
            digest.update(np.ascontiguousarray(split.labels).data)
        return digest.hexdigest()


def split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """`split` without, and only, a random `share` of its samples; the same seed gives the same parts."""
    order = np.random.default_rng(seed).permutation(len(split))
    cut = round(len(split) * share)
    return split.take(np.sort(order[cut:])), split.take(np.sort(order[:cut]))

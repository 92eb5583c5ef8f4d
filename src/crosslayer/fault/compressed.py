"""Compressed weights in flash, and what is read of them once bits of masks flip (`kernels/sparse.h`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.quant import Array

Worth = Callable[[Array], Array]
"""What changes of weights (outputs, inputs) count, each for itself."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """Masks (outputs, inputs), bool, the codes, int64, and where those of each output begin (outputs, 1).

    The bits set in a mask take one code after the other. A flip in a mask moves all codes behind it in its output, and
    no others. Behind the last code are zeros.
    """

    mask: Array
    codes: Array
    starts: Array

    @staticmethod
    def of(weight: Array) -> "Stored":
        """As the kernels are given a weight (outputs, …)."""
        rows = weight.reshape(len(weight), -1).astype(np.int64)
        counts = (rows != 0).sum(axis=1, keepdims=True)
        codes = np.concatenate([rows[rows != 0], np.zeros(rows.shape[1] + 1, np.int64)])
        return Stored(mask=rows != 0, codes=codes, starts=np.cumsum(counts, axis=0) - counts)

    def places(self) -> Array:
        """(outputs, inputs): which code is read if the bit is set."""
        return self.starts + np.cumsum(self.mask, axis=1) - self.mask

    def read(self) -> Array:
        """The weights (outputs, inputs), int64."""
        return np.where(self.mask, self.codes[self.places()], 0)

    def worth_of_codes(self, grown: Array, worth: Worth) -> Array:
        """By code: what it counts that it grows by `grown`, which has one for each code."""
        places = self.places()
        total = np.zeros(len(self.codes))
        np.add.at(total, places[self.mask], worth(np.where(self.mask, grown[places], 0))[self.mask])
        return total

    def worth_of_masks(self, worth: Worth) -> Array:
        """(outputs, inputs): what it counts that a bit of a mask flips."""
        places = self.places()
        here, after, before = (self.codes[np.maximum(places + i, 0)] for i in (0, 1, -1))
        own = worth(np.where(self.mask, -here, here))
        taken, added = (_behind(np.where(self.mask, worth(other - here), 0)) for other in (before, after))
        return own + np.where(self.mask, taken, added)


def _behind(values: Array) -> Array:
    """The sum of all that follow in a row."""
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1] - values

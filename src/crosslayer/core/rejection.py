"""When a classifier's firmware says that it does not know an input."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.quant import Array


class Statistic(StrEnum):
    """An integer that is large for inputs like those that a network has learned from."""

    LARGEST = "largest"
    """The code of the largest output. Of logits: Hendrycks et al. 2022, arXiv 1911.11132; of shares: Hendrycks & Gimpel
    2017, arXiv 1610.02136."""
    MARGIN = "margin"
    """By how many codes the largest output is ahead of the second largest."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An input is accepted if the statistic of the outputs' codes is at least `threshold`."""

    statistic: Statistic
    threshold: int

    def accepts(self, codes: Array) -> npt.NDArray[np.bool_]:
        """Whether each input is accepted (batch,), from the codes of its outputs (batch, …)."""
        return statistics(self.statistic, codes) >= self.threshold


def statistics(statistic: Statistic, codes: Array) -> npt.NDArray[np.int64]:
    """The statistic (batch,) of codes (batch, …).

    >>> statistics(Statistic.MARGIN, np.array([[3, -1, 2]], np.int8)).tolist()
    [1]
    """
    flat = np.sort(codes.reshape(len(codes), -1).astype(np.int64), axis=1)
    return flat[:, -1] if statistic is Statistic.LARGEST else flat[:, -1] - flat[:, -2]

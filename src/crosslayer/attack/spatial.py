"""Turned and shifted images."""

import itertools
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.attack.victim import Victim, margins
from crosslayer.attack.warp import sample_alike, turned
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shifts:
    """All turns by up to `degrees` and shifts by up to `pixels` of a grid: `angles` turns, `places` rows and columns.

    Source: Engstrom et al. 2019, arXiv 1712.02779, whose grid is the default, for images of 28 or 32 pixels. What comes
    into the image from outside is the lowest value. This is no attack under a norm: it has no budget.
    """

    degrees: float = 30.0
    pixels: float = 3.0
    angles: int = 31
    places: int = 5

    def __post_init__(self) -> None:
        check_parameters(
            (0 <= self.degrees <= 180, "degrees must lie in 0…180"),
            (self.pixels >= 0, "pixels must be at least 0"),
            (self.angles >= 1 and self.places >= 1, "angles and places must be at least 1"),
        )

    def worst(self, victim: Victim, x: Array, labels: Array) -> tuple[Array, Array]:
        """The worst of all shifts of each image (batch, height, width, channels), on the sensor's grid, and whether it
        fools (batch,).

        A sample takes one query, one more for each shift, and none once it fools. Raises `InputError` for no images.
        """
        if x.ndim != 4:
            raise InputError(f"shifts are of images, got samples of shape {list(x.shape[1:])}")
        logits = victim.logits(x)
        found, least, fooled = x.copy(), margins(logits, labels), logits.argmax(1) != labels
        for angle, shift in self._grid():
            rows = np.flatnonzero(~fooled)
            if not len(rows):
                break
            places = turned(x.shape[1], x.shape[2], np.array([angle]), np.array([shift]))[0]
            moved = sample_alike(x[rows], places)
            moved = victim.sensor.shares(victim.sensor.real(moved))
            logits = victim.logits(moved)
            reached, hit = margins(logits, labels[rows]), logits.argmax(1) != labels[rows]
            worse = hit | (reached < least[rows])
            found[rows[worse]], least[rows[worse]] = moved[worse], reached[worse]
            fooled[rows] = hit
        return found, fooled

    def _grid(self) -> list[tuple[float, tuple[float, float]]]:
        """Turns in radians with shifts in pixels, the smallest first; without the one that changes nothing."""
        turns = _even(np.deg2rad(self.degrees), self.angles)
        steps = _even(self.pixels, self.places)
        shifts = [(turn, (row, column)) for turn, row, column in itertools.product(turns, steps, steps)]
        return sorted(
            (s for s in shifts if s != (0.0, (0.0, 0.0))), key=lambda s: abs(s[0]) + abs(s[1][0]) + abs(s[1][1])
        )


def shifts(victim: Victim, x: Array, labels: Array, grid: Shifts | None = None) -> Array:
    """Whether each image (batch, height, width, channels) is called its label under all shifts of the grid (batch,)."""
    return ~(grid or Shifts()).worst(victim, x, labels)[1]


def _even(most: float, count: int) -> list[float]:
    """`count` numbers from −most to most; 0 if there is one."""
    return np.linspace(-most, most, count).tolist() if count > 1 else [0.0]

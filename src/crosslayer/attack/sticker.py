"""A sticker in the picture: how it may lie, what it looks like there, and how often it fools."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.attack.budget import Budget
from crosslayer.attack.victim import Victim
from crosslayer.attack.warp import pixels, rotated, sample, spread
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.core.stage import check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placements:
    """How a sticker of `side` pixels lies in each of a batch of images of height × width pixels."""

    height: int
    width: int
    places: Array
    """For each pixel of an image where on the sticker it falls, in the sticker's pixels (batch, height, width, 2)."""
    covered: Array
    """Whether the pixel falls on the sticker at all (batch, height, width, 1)."""
    light: Array
    """What the sticker's values are multiplied with (batch, 1, 1, 1)."""

    def put(self, sticker: Array, images: Array) -> Array:
        """Images (batch, height, width, channels) with the sticker (side, side, channels) on them, float32 in 0…1."""
        return np.where(self.covered, np.clip(self._shown(sticker), 0, 1), images).astype(np.float32)

    def pull(self, slopes: Array, sticker: Array) -> Array:
        """Slopes along images with the sticker on them -> the slope along the sticker, summed over the batch."""
        shown = self._shown(sticker)
        through = slopes * self.light * (self.covered & (shown >= 0) & (shown <= 1))
        return spread(through, self.places, (len(slopes), *sticker.shape)).sum(0)

    def _shown(self, sticker: Array) -> Array:
        stack = np.broadcast_to(sticker, (len(self.places), *sticker.shape))
        return self.light * sample(stack, self.places)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """How a sticker comes to lie: anywhere in the picture, turned by up to `degrees`, of a size from the share `scale`
    of the largest up to that, in light that makes it up to the share `light` brighter or darker."""

    degrees: float = 20.0
    scale: float = 0.8
    light: float = 0.2

    def __post_init__(self) -> None:
        check_parameters(
            (0 <= self.degrees <= 180, "degrees must lie in 0…180"),
            (0 < self.scale <= 1, "scale must lie above 0 and be at most 1"),
            (0 <= self.light < 1, "light must be at least 0 and below 1"),
        )

    def draw(self, count: int, side: int, shape: tuple[int, ...], rng: np.random.Generator) -> Placements:
        """So many random placements of a sticker of `side` pixels in images of this shape (height, width, channels).

        Each, turned or not, lies within an upright square of `side` pixels, so that it stays within its share.
        """
        height, width = shape[:2]
        angles = np.deg2rad(rng.uniform(-self.degrees, self.degrees, count))
        extent = side * rng.uniform(self.scale, 1, count)
        length = extent / (np.abs(np.cos(angles)) + np.abs(np.sin(angles)))
        corner = rng.random((count, 2)) * np.stack([height - extent, width - extent], -1)
        centre = corner + extent[:, None] / 2
        away = pixels(height, width) + 0.5 - centre[:, None, None, :]
        inside = rotated(away, -angles) / length[:, None, None, None]  # in −½…½ on the sticker
        return Placements(
            height=height,
            width=width,
            places=np.clip((inside + 0.5) * side - 0.5, 0, side - 1),
            covered=np.abs(inside).max(-1, keepdims=True) < 0.5,
            light=rng.uniform(1 - self.light, 1 + self.light, (count, 1, 1, 1)).astype(np.float32),
        )


def side_of(budget: Budget, shape: tuple[int, ...]) -> int:
    """The side in pixels of the largest square sticker within a `patch` budget, for images of this shape. Raises
    `InputError` if that is none."""
    if len(shape) != 3:
        raise InputError(f"stickers lie on images, got samples of shape {list(shape)}")
    side = min(math.floor(math.sqrt(budget.size * shape[0] * shape[1]) + 1e-9), *shape[:2])
    if side < 1:
        raise InputError(f"budget {budget}: covers no pixel of {shape[0]}×{shape[1]}; give a larger share")
    return side


def fooled_by(
    victim: Victim,
    sticker: Array,
    x: Array,
    labels: Array,
    scene: Scene,
    draws: int,
    rng: np.random.Generator,
    target: int | None = None,
) -> Array:
    """Whether images (batch, height, width, channels) with the sticker (side, side, channels) on them are called the
    target, or without one anything but their label: (draws, batch), each at a random placement."""
    hits = np.empty((draws, len(x)), bool)
    for draw in range(draws):
        placements = scene.draw(len(x), len(sticker), x.shape[1:], rng)
        called = victim.logits(placements.put(sticker, x)).argmax(1)
        hits[draw] = called != labels if target is None else called == target
    return hits

"""Images turned, shifted and scaled, and slopes on their way back."""

from collections.abc import Iterator

import numpy as np

from crosslayer.core.quant import Array


def pixels(height: int, width: int) -> Array:
    """Row and column of each pixel (height, width, 2)."""
    return np.moveaxis(np.indices((height, width)), 0, -1)


def turned(height: int, width: int, angles: Array, shifts: Array) -> Array:
    """Where each pixel of images turned about their middle comes from: (batch, height, width, 2), row and column.

    `angles` (batch,) are in radians, counter-clockwise; `shifts` (batch, 2) in pixels, down and right, after the turn.
    """
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    places = pixels(height, width) - middle
    away = places - shifts[:, None, None, :]
    return rotated(away, -angles) + middle


def rotated(places: Array, angles: Array) -> Array:
    """Places (batch, height, width, 2) turned about the origin by `angles` (batch,), in radians."""
    cosine, sine = (function(angles)[:, None, None] for function in (np.cos, np.sin))
    row, column = places[..., 0], places[..., 1]
    return np.stack([cosine * row - sine * column, sine * row + cosine * column], -1)


def sample(images: Array, places: Array) -> Array:
    """Bilinear values (batch, rows, columns, channels), float32, of images (batch, height, width, channels) at places
    (batch, rows, columns, 2) in pixels; 0 where there is no pixel."""
    batch = np.arange(len(places))[:, None, None]
    total = np.zeros((*places.shape[:3], images.shape[3]), np.float32)
    for row, column, weight in _corners(places, images.shape[1], images.shape[2]):
        total += weight[..., None] * images[batch, row, column]
    return total


def sample_alike(images: Array, places: Array) -> Array:
    """As `sample`, at the same places (rows, columns, 2) in each image: all images as the channels of one."""
    batch, height, width, channels = images.shape
    one = images.transpose(1, 2, 0, 3).reshape(1, height, width, batch * channels)
    return sample(one, places[None]).reshape(*places.shape[:2], batch, channels).transpose(2, 0, 1, 3)


def spread(slopes: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of `sample`: slopes along its values -> slopes along images of this shape (batch, …), float32."""
    batch = np.arange(len(places))[:, None, None]
    total = np.zeros(shape, np.float32)
    for row, column, weight in _corners(places, shape[1], shape[2]):
        np.add.at(total, (batch, row, column), weight[..., None] * slopes)
    return total


def _corners(places: Array, height: int, width: int) -> Iterator[tuple[Array, Array, Array]]:
    """The four pixels around each place, and their weights: 0 where there is no pixel."""
    low = np.floor(places).astype(np.int64)
    share = places - low
    for down in (0, 1):
        for right in (0, 1):
            row, column = low[..., 0] + down, low[..., 1] + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            across = np.abs(1 - right - share[..., 1])
            weight = np.abs(1 - down - share[..., 0]) * across * inside
            yield np.clip(row, 0, height - 1), np.clip(column, 0, width - 1), weight.astype(np.float32)

"""How alike two images look."""

import numpy as np

from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array

_SIDE, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def correlation(x: Array, y: Array) -> Array:
    """Pearson's correlation coefficient of each two samples (batch, …), in −1…1, float64 (batch,).

    Of two samples one of which is the same everywhere it is 1 if they are equal and 0 otherwise.
    """
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (x, y))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    lengths = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    equal = (x == y).reshape(len(x), -1).all(1)
    return np.where(lengths > 0, (a * b).sum(1) / np.where(lengths > 0, lengths, 1), equal)


def ssim(x: Array, y: Array) -> Array:
    """The structural similarity of each two images (batch, height, width, channels) of values in 0…1, float64 (batch,).

    The mean over all windows that lie within the image, and over channels. Source: Wang et al. 2004,
    doi:10.1109/TIP.2003.819861: Gaussian windows of 11×11 and σ = 1.5, K1 = 0.01, K2 = 0.03; an image that is smaller
    has windows of its size. Raises `InputError` for what is no image.

    >>> ssim(np.ones((1, 8, 8, 1)), np.ones((1, 8, 8, 1)))
    array([1.])
    """
    if x.ndim != 4:
        raise InputError(f"structural similarity is one of images, got samples of shape {list(x.shape[1:])}")
    a, b = x.astype(np.float64), y.astype(np.float64)
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    shared = _blurred(a * b) - mean_a * mean_b
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * shared + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean((1, 2, 3))


def texture(x: Array) -> Array:
    """How much images (batch, height, width, channels) vary around each pixel: the standard deviation in 3×3, in 0…1
    of the image's largest; 1 everywhere in an image that is the same everywhere."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    deviation = windows.std((-2, -1))
    most = deviation.max((1, 2, 3), keepdims=True)
    return np.where(most > 0, deviation / np.where(most > 0, most, 1), 1).astype(np.float32)


def _blurred(images: Array) -> Array:
    """The weighted mean of each window (batch, channels, rows, columns)."""
    down, across = (_weights(length) for length in images.shape[1:3])
    return down @ images.transpose(0, 3, 1, 2) @ across.T


def _weights(length: int) -> Array:
    """The Gaussian windows along an axis (windows, length)."""
    side = min(_SIDE, length)
    bell = np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * _SIGMA**2))
    rows = np.zeros((length - side + 1, length))
    for place, row in enumerate(rows):
        row[place : place + side] = bell / bell.sum()
    return rows

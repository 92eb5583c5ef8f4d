"""What happens to pictures by nature: noise, blur, light, coarseness, compression."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from crosslayer.attack.victim import Victim
from crosslayer.attack.warp import pixels, sample_alike
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array

_SIDE = 32
"""Of the images that the strengths are made for: blur in pixels grows with an image's shorter side."""
_COLOURS = (1, 3)
SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(StrEnum):
    """The corruptions, by name; each has five severities."""

    GAUSSIAN_NOISE = "gaussian-noise"
    SHOT_NOISE = "shot-noise"
    IMPULSE_NOISE = "impulse-noise"
    SPECKLE_NOISE = "speckle-noise"
    GAUSSIAN_BLUR = "gaussian-blur"
    DEFOCUS_BLUR = "defocus-blur"
    MOTION_BLUR = "motion-blur"
    ZOOM_BLUR = "zoom-blur"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    PIXELATE = "pixelate"
    JPEG = "jpeg"


def corrupt(x: Array, corruption: Corruption, severity: int, rng: np.random.Generator) -> Array:
    """Images (batch, height, width, channels) of values in 0…1, corrupted, float32.

    In the manner of Hendrycks & Dietterich 2019, arXiv 1903.12261, with the strengths of their CIFAR-10-C; the same
    state of `rng` gives the same. Raises `InputError` for a severity outside 1…5, or what is no grey or colour image.
    """
    if severity not in SEVERITIES:
        raise InputError(f"{corruption}: severity {severity} is not one of 1…5")
    if x.ndim != 4 or x.shape[3] not in _COLOURS:
        raise InputError(f"corruptions are of grey or colour images, got samples of shape {list(x.shape[1:])}")
    change, strengths = _CORRUPTIONS[corruption]
    return np.clip(change(x, strengths[severity - 1], rng), 0, 1).astype(np.float32)


def corrupted_accuracy(
    victim: Victim,
    x: Array,
    labels: Array,
    rng: np.random.Generator,
    corruptions: Sequence[Corruption] = tuple(Corruption),
) -> dict[Corruption, tuple[float, ...]]:
    """The share of images (batch, height, width, channels) that are called their label (batch,) under each corruption,
    at severities 1…5."""
    return {
        corruption: tuple(
            float(1 - victim.fooled(corrupt(x, corruption, severity, chance), labels).mean()) for severity in SEVERITIES
        )
        for corruption, chance in zip(corruptions, rng.spawn(len(corruptions)), strict=True)
    }


def _gaussian_noise(x: Array, deviation: float, rng: np.random.Generator) -> Array:
    return x + rng.normal(0, deviation, x.shape)


def _shot_noise(x: Array, photons: float, rng: np.random.Generator) -> Array:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Array, share: float, rng: np.random.Generator) -> Array:
    return np.where(rng.random(x.shape) < share, rng.integers(0, 2, x.shape), x)


def _speckle_noise(x: Array, deviation: float, rng: np.random.Generator) -> Array:
    return x + x * rng.normal(0, deviation, x.shape)


def _gaussian_blur(x: Array, deviation: float, rng: np.random.Generator) -> Array:
    deviation *= _size(x)
    reach = max(1, math.ceil(3 * deviation))
    steps = [(float(step), math.exp(-(step**2) / (2 * deviation**2))) for step in range(-reach, reach + 1)]
    x = _trail(x, [(step, 0.0, weight) for step, weight in steps])
    return _trail(x, [(0.0, step, weight) for step, weight in steps])


def _defocus_blur(x: Array, strength: tuple[float, float], rng: np.random.Generator) -> Array:
    """The mean over a disk, half a pixel fine, whose edge is soft."""
    radius, soft = strength[0] * _size(x), strength[1]
    reach = math.ceil(2 * radius)
    steps = [step / 2 for step in range(-reach, reach + 1)]
    disk = [(row, column, 1.0) for row in steps for column in steps if row**2 + column**2 <= radius**2]
    return _gaussian_blur(_trail(x, disk), soft, rng)


def _motion_blur(x: Array, strength: tuple[float, float], rng: np.random.Generator) -> Array:
    """A trail that fades, in one random direction for all images."""
    (reach, deviation), angle = strength, rng.uniform(-math.pi / 4, math.pi / 4)
    steps = range(math.ceil(reach * _size(x)) + 1)
    weights = [math.exp(-(step**2) / (2 * (deviation * _size(x)) ** 2)) for step in steps]
    return _trail(
        x, [(step * math.sin(angle), step * math.cos(angle), w) for step, w in zip(steps, weights, strict=True)]
    )


def _zoom_blur(x: Array, most: float, rng: np.random.Generator) -> Array:
    """The mean of the image and its enlargements by each further hundredth."""
    middle = (np.array(x.shape[1:3]) - 1) / 2
    away = pixels(*x.shape[1:3]) - middle
    return _mean(x, [(middle + away, 1.0), *((middle + away / zoom, 1.0) for zoom in np.arange(1, most + 0.005, 0.01))])


def _brightness(x: Array, amount: float, rng: np.random.Generator) -> Array:
    """The largest channel raised, hue and saturation as they are."""
    value = x.max(3, keepdims=True)
    raised = np.minimum(value + amount, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def _contrast(x: Array, share: float, rng: np.random.Generator) -> Array:
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * share + mean


def _pixelate(x: Array, share: float, rng: np.random.Generator) -> Array:
    height, width = x.shape[1:3]
    small = max(1, int(width * share)), max(1, int(height * share))

    def coarse(channel: Array) -> Array:
        image = Image.fromarray(np.ascontiguousarray(channel, np.float32))
        return np.asarray(image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX))

    return np.stack([np.stack([coarse(image[..., c]) for c in range(x.shape[3])], -1) for image in x])


def _jpeg(x: Array, quality: float, rng: np.random.Generator) -> Array:
    def compressed(image: Array) -> Array:
        file = io.BytesIO()
        codes = np.rint(image * 255).astype(np.uint8)
        Image.fromarray(codes[..., 0] if x.shape[3] == 1 else codes).save(file, "JPEG", quality=int(quality))
        return np.asarray(Image.open(file), np.float32).reshape(image.shape) / 255

    return np.stack([compressed(image) for image in x])


def _size(x: Array) -> float:
    return min(x.shape[1:3]) / _SIDE


def _trail(x: Array, steps: Sequence[tuple[float, float, float]]) -> Array:
    """The weighted mean of images shifted by rows and columns."""
    places = pixels(*x.shape[1:3])
    return _mean(x, [(places + np.array([row, column]), weight) for row, column, weight in steps])


def _mean(x: Array, views: Sequence[tuple[Array, float]]) -> Array:
    """The weighted mean of images seen at other places (height, width, 2); an image goes on beyond as its edge is."""
    edge = [x.shape[1] - 1, x.shape[2] - 1]
    total = sum(np.float32(weight) * sample_alike(x, np.clip(places, 0, edge)) for places, weight in views)
    return np.asarray(total) / np.float32(sum(weight for _, weight in views))


_CORRUPTIONS: Mapping[Corruption, tuple[Callable[[Array, Any, np.random.Generator], Array], tuple[Any, ...]]] = (
    MappingProxyType(
        {
            Corruption.GAUSSIAN_NOISE: (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
            Corruption.SHOT_NOISE: (_shot_noise, (500, 250, 100, 75, 50)),
            Corruption.IMPULSE_NOISE: (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
            Corruption.SPECKLE_NOISE: (_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
            Corruption.GAUSSIAN_BLUR: (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
            Corruption.DEFOCUS_BLUR: (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
            Corruption.MOTION_BLUR: (_motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
            Corruption.ZOOM_BLUR: (_zoom_blur, (1.05, 1.10, 1.15, 1.20, 1.25)),
            Corruption.BRIGHTNESS: (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
            Corruption.CONTRAST: (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
            Corruption.PIXELATE: (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
            Corruption.JPEG: (_jpeg, (80, 65, 58, 50, 40)),
        }
    )
)
"""What makes each, and its five strengths."""

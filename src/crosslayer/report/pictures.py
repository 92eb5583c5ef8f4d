"""Test samples as pictures: images as PNG in a data address, everything one-dimensional as a curve."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from PIL import Image

from crosslayer.core.robustness import Example
from crosslayer.core.sheet import Sheet
from crosslayer.report.confusion import class_name

Values = npt.NDArray[np.float32]

_CURVE = (96.0, 96.0)  # width and height of a curve's coordinate system
_BINS = 96


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bitmap:
    """An image as a `data:` address."""

    address: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A signal as the points of a polyline in a square of 96 × 96."""

    points: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A sample as the page shows it."""

    picture: Bitmap | Curve
    label: str
    predicted: str
    right: bool


def cards(sheet: Sheet) -> tuple[Card, ...]:
    """All samples; black and white are the least and largest value among them, so that they can be compared."""
    lowest, highest = extremes([sample.values for sample in sheet.samples])
    return tuple(
        Card(
            picture=picture(sample.values, lowest, highest),
            label=class_name(sheet.classes, sample.label),
            predicted=class_name(sheet.classes, sample.predicted),
            right=sample.label == sample.predicted,
        )
        for sample in sheet.samples
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A sample, what an attack made of it, and how the design calls each."""

    sample: Bitmap | Curve
    attacked: Bitmap | Curve
    label: str
    called: str


def pairs(examples: Sequence[Example], classes: Sequence[str]) -> tuple[Pair, ...]:
    """Examples of attacks, on one scale."""
    lowest, highest = extremes([values for e in examples for values in (e.values, e.attacked)])
    return tuple(
        Pair(
            sample=picture(example.values, lowest, highest),
            attacked=picture(example.attacked, lowest, highest),
            label=class_name(classes, example.label),
            called=class_name(classes, example.after),
        )
        for example in examples
    )


def picture(values: Values, lowest: float, highest: float) -> Bitmap | Curve:
    """A sample's values between `lowest` and `highest`: an image if it extends in two directions, else a curve."""
    share = np.clip((_finite(values) - lowest) / (highest - lowest), 0, 1)
    if share.ndim < 2 or min(share.shape[:2]) == 1:
        return Curve(points=_polyline(share.reshape(-1)))
    pixels = np.rint(255 * (share if share.ndim == 3 else share[:, :, np.newaxis])).astype(np.uint8)
    if pixels.shape[2] != 3:
        pixels = pixels.mean(axis=2).astype(np.uint8)  # one channel stays what it is; odd numbers of them turn grey
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return Bitmap(address=f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}")


def is_bitmap(picture: Bitmap | Curve) -> bool:
    """True for an image, False for a signal."""
    return isinstance(picture, Bitmap)


def _polyline(share: Values) -> str:
    """Up to 96 points; a longer signal shows the least and largest value of each stretch."""
    wide, high = _CURVE
    if len(share) > _BINS:
        stretches = np.array_split(share, _BINS // 2)
        share = np.array([end for part in stretches for end in (part.min(), part.max())])
    step = wide / max(1, len(share) - 1)
    return " ".join(f"{i * step:.1f},{high - 4 - (high - 8) * float(y):.1f}" for i, y in enumerate(share))


def extremes(values: Sequence[Values]) -> tuple[float, float]:
    """The least and the largest value among samples, between which all can be shown; they differ."""
    lowest = min((float(_finite(v).min()) for v in values), default=0.0)
    highest = max((float(_finite(v).max()) for v in values), default=1.0)
    return lowest, highest if highest > lowest else lowest + 1.0


def _finite(values: Values) -> Values:
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)

"""Number codes for given values: where to clip, and how far apart the codes lie."""

from collections.abc import Callable

import numpy as np

from crosslayer.core.quant import Array, Quant, affine, symmetric

_SHARES = 0.96 ** np.arange(64)
"""Clips that are tried, relative to the largest magnitude: 1 … 0.076, near enough to the error's flat optimum."""
_WIDE = 8
"""From this many bits on the largest weight is not clipped, as in the TFLite specification."""


def activation_code(low: float, high: float, bits: int, *, power_of_two: bool = False) -> Quant:
    """The code of an activation with values in [low, high], which are widened to hold zero.

    >>> activation_code(0.0, 3.0, 4, power_of_two=True).scale
    (0.25,)
    """
    code = affine(low, high, bits)
    if not power_of_two:
        return code
    (scale,) = power_above(np.array(code.scale))
    if bits > 8 or min(low, 0.0) == max(high, 0.0):
        return Quant(bits=bits, scale=(scale,))
    zero = int(np.clip(round(code.lowest - min(low, 0.0) / scale), code.lowest, code.highest))
    return Quant(bits=bits, scale=(scale,), zero=(zero,))


def weight_code(
    weight: Array, bits: int, axis: int | None, *, least: Array | float = 0.0, power_of_two: bool = False
) -> Quant:
    """The code of a weight: symmetric, one scale per index along `axis` or one, at least `least`.

    1 bit: the mean magnitude, which has the least squared error (Rastegari et al. 2016, XNOR-Net, eq. 6). 2…7 bits: of
    64 clips the one with the least squared error. From 8 bits on nothing is clipped.
    """
    rows = np.abs(weight.astype(np.float64))
    rows = rows.reshape(1, -1) if axis is None else np.moveaxis(rows, axis, 0).reshape(rows.shape[axis], -1)
    peak = rows.max(axis=1)
    top = symmetric(np.ones(1), bits).highest
    if power_of_two:
        whole = power_above(np.where(peak > 0, peak, 1.0) / top)
        candidates = whole * np.exp2(-np.arange(8.0))[:, None]
    elif bits == 1:
        candidates = rows.mean(axis=1)[None]
    else:
        candidates = peak / top * (_SHARES if bits < _WIDE else _SHARES[:1])[:, None]
    scale = candidates[0] if len(candidates) == 1 else _least_error(rows, candidates, bits, top)
    floor = np.maximum(np.broadcast_to(least, scale.shape), 0.0)
    scale = np.maximum(scale, power_above(floor) if power_of_two else floor)
    return symmetric(scale * top, bits, axis)


def power_above(values: Array) -> Array:
    """The least power of two that is not below each value, as float32 has it; 0 stays 0."""
    return np.where(values > 0, np.exp2(np.ceil(np.log2(np.where(values > 0, values, 1.0).astype(np.float32)))), 0.0)


def _least_error(magnitudes: Array, scales: Array, bits: int, top: int) -> Array:
    """For each row of magnitudes the scale, of its column of candidates, with the least squared error."""
    nearest: Callable[[Array], Array] = np.ones_like if bits == 1 else lambda steps: np.minimum(np.rint(steps), top)
    errors = []
    for scale in scales:
        step = np.where(scale > 0, scale, 1.0)[:, None]
        errors.append(((nearest(magnitudes / step) * step - magnitudes) ** 2).sum(axis=1))
    return scales[np.argmin(errors, axis=0), np.arange(len(magnitudes))]

"""Fixed-point arithmetic, to the bit: the one place that says how a sum becomes a code.

Three rules, because runtimes differ: see `Rounding`. Sources: gemmlowp `fixedpoint.h`, TensorFlow Lite
`kernels/internal/common.h` and `quantization_util.cc`, XNNPACK `qs8-requantization`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import GraphError
from crosslayer.core.quant import Array


class Rounding(StrEnum):
    """Which runtime a graph's integers agree with."""

    DOUBLE = "double"
    """TensorFlow Lite Micro and CMSIS-NN: round at 2^-31, then round the shift. The default."""
    REFERENCE = "reference"
    """LiteRT's reference kernels: as `DOUBLE`, but dense layers round once, from float64."""
    FLOAT = "float"
    """LiteRT's default (XNNPACK): a float32 factor, nearest even."""


class Rule(StrEnum):
    """How one rescaling rounds."""

    DOUBLE = "double"
    """A Q31 mantissa: rounded at 2^-31, and again after the shift."""
    SINGLE = "single"
    """A float64 factor, halves away from zero."""
    FLOAT = "float"
    """A float32 factor, nearest even."""
    REDUCED = "reduced"
    """A Q15 mantissa for sums of up to 48 bits, halves up."""

    @property
    def number(self) -> int:
        """What the C kernels call it: CL_DOUBLE, CL_SINGLE, …"""
        return list(Rule).index(self)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rescale:
    """Multiplication of sums by a positive real factor per channel.

    `factor` is its value (float32 under `FLOAT`, else float64), `mult`/`shift` the same as mantissa (Q31, Q15 under
    `REDUCED`) and power of two (positive = left). `DOUBLE` and `REDUCED` compute from the pair, the others from the
    value. Sums have 32 bits; under `REDUCED` and `SINGLE` 48.
    """

    rule: Rule
    mult: npt.NDArray[np.int32]
    shift: npt.NDArray[np.int32]
    factor: npt.NDArray[np.float32] | npt.NDArray[np.float64]

    def __call__(self, acc: Array) -> npt.NDArray[np.int64]:
        """The rescaled integers; `acc` holds the sums, channels on its last axis."""
        if self.rule is Rule.FLOAT:
            scaled = acc.astype(np.float32) * self.factor
            return np.rint(np.clip(scaled, np.float32(-(2**30)), np.float32(2**30))).astype(np.int64)
        if self.rule is Rule.SINGLE:
            return multiply_single(acc, self.factor)
        if self.rule is Rule.REDUCED:
            return multiply_reduced(acc, self.mult, self.shift)
        return multiply_double(acc, self.mult, self.shift)


def rescale(factors: Array, rule: Rule) -> Rescale:
    """The `Rescale` by the given real factors (float64, one per channel or one).

    Raises `GraphError` for factors from 2^31 on, under `REDUCED` from 2^7 on.
    """
    real = np.atleast_1d(factors).astype(np.float64)
    if not real.max() < (2.0**7 if rule is Rule.REDUCED else 2.0**31):
        raise GraphError(f"the scale of the result is too small, by a factor of {real.max():.3g}; give it a larger one")
    pairs = [split_factor(f) for f in real.tolist()]
    if rule is Rule.REDUCED:
        pairs = [(min((mult + (1 << 15)) >> 16, 0x7FFF), shift) for mult, shift in pairs]
    return Rescale(
        rule=rule,
        mult=np.array([m for m, _ in pairs], np.int32),
        shift=np.array([s for _, s in pairs], np.int32),
        factor=real.astype(np.float32) if rule is Rule.FLOAT else real,
    )


def split_factor(factor: float) -> tuple[int, int]:
    """Q31 mantissa and shift of a factor (TFLite `QuantizeMultiplier`).

    >>> split_factor(0.75)
    (1610612736, 0)
    """
    if factor == 0:
        return 0, 0
    mantissa, shift = math.frexp(factor)
    mult = math.floor(mantissa * 2**31 + 0.5)
    if mult == 2**31:
        mult, shift = mult // 2, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        return 2**31 - 1, 30
    return mult, shift


def doubling_high(a: Array | np.int64, b: Array | np.int64) -> npt.NDArray[np.int64]:
    """Rounding doubling high product of int32 values, (a·b + 2^30) >> 31, saturated at −2^31·−2^31 (gemmlowp)."""
    product = a.astype(np.int64) * b.astype(np.int64)
    high = (product + (1 << 30)) >> 31
    return np.minimum(np.asarray(high, np.int64), np.int64(2**31 - 1))


def divide_by_power(value: Array, exponent: Array | int) -> npt.NDArray[np.int64]:
    """value / 2^exponent, halves away from zero (gemmlowp `RoundingDivideByPOT`)."""
    value = value.astype(np.int64)
    exponent = np.asarray(exponent, np.int64)
    half = np.where(exponent > 0, np.int64(1) << np.maximum(exponent - 1, 0), 0)
    away = ((value < 0) & (exponent > 0)).astype(np.int64)
    return np.asarray((value + half - away) >> exponent, np.int64)


def multiply_double(acc: Array, mult: Array, shift: Array) -> npt.NDArray[np.int64]:
    """acc · mult · 2^(shift−31), rounded at 2^-31 and again after the right shift; the left shift wraps as int32."""
    left, right = np.maximum(shift, 0), np.maximum(-shift.astype(np.int64), 0)
    shifted = (acc.astype(np.int64) << left).astype(np.int32)
    return divide_by_power(doubling_high(shifted, mult), right)


def multiply_single(acc: Array, factor: Array) -> npt.NDArray[np.int64]:
    """acc · factor in float64, rounded once, halves away from zero (LiteRT `reference_integer_ops::FullyConnected`)."""
    scaled = np.clip(acc.astype(np.float64) * factor, -(2.0**62), 2.0**62)
    whole = np.trunc(scaled)
    away = np.where(np.abs(scaled - whole) >= 0.5, np.sign(scaled), 0)  # exact: scaled − whole loses no bit
    return (whole + away).astype(np.int64)


def multiply_reduced(acc: Array, mult: Array, shift: Array) -> npt.NDArray[np.int64]:
    """acc · mult · 2^(shift−15) for a Q15 mantissa, halves up (TFLite `MultiplyByQuantizedMultiplier` of 64-bit sums).

    |acc| < 2^47.
    """
    right = 15 - shift.astype(np.int64)
    return np.asarray((acc.astype(np.int64) * mult + (np.int64(1) << (right - 1))) >> right, np.int64)

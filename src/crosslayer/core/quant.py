"""Number codes: how real values are stored as integers."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import GraphError

Array = npt.NDArray[Any]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quant:
    """A signed integer code: real = scale × (integer − zero).

    Per tensor when `axis` is None (one scale, one zero); else one scale per index along `axis`. Scales are kept as
    float32 values, as the TFLite int8 specification stores them. 2…16 bits, or 32 for biases.

    >>> Quant(bits=8, scale=(0.5,), zero=(3,)).lowest
    -128
    """

    bits: int
    scale: tuple[float, ...]
    zero: tuple[int, ...] = (0,)
    axis: int | None = None

    def __post_init__(self) -> None:
        if not (2 <= self.bits <= 16 or self.bits == 32):
            raise GraphError(f"a number code has 2…16 bits (or 32 for biases), not {self.bits}")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            scale = tuple(float(np.float32(s)) for s in self.scale)
        if not all(np.isfinite(s) and s > 0 for s in scale):
            raise GraphError(f"scales must be positive and finite, got {self.scale[:4]}")
        object.__setattr__(self, "scale", scale)
        if len(self.zero) == 1 and len(scale) > 1:
            object.__setattr__(self, "zero", self.zero * len(scale))
        if len(self.zero) != len(scale) or (self.axis is None and len(scale) != 1) or not scale:
            raise GraphError(f"{len(scale)} scales and {len(self.zero)} zeros do not make a code with axis {self.axis}")
        if min(self.zero) < self.lowest or max(self.zero) > self.highest:
            raise GraphError(f"zeros must be codes of {self.bits} bits, got {self.zero[:4]}")

    @property
    def lowest(self) -> int:
        """The smallest integer of the code."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest integer of the code."""
        return (1 << (self.bits - 1)) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The storage type of one element."""
        return np.dtype(np.int8 if self.bits <= 8 else np.int16 if self.bits <= 16 else np.int32)

    def encode(self, real: Array) -> Array:
        """Nearest codes, halves away from zero, saturated (TFLite `AffineQuantize`, float32 arithmetic).

        What is not a number becomes the lowest code, here and in the firmware.
        """
        scale, zero = self._along(real)
        with np.errstate(over="ignore"):  # beyond float32 is beyond the code
            steps = real.astype(np.float32) / scale.astype(np.float32)
        steps = np.fmin(np.fmax(steps, np.float32(-(2.0**31))), np.float32(2.0**31))
        whole = np.trunc(steps)
        away = np.where(np.abs(steps - whole) >= 0.5, np.sign(steps), 0)  # exact: steps − whole loses no bit
        return np.clip((whole + away).astype(np.int64) + zero, self.lowest, self.highest).astype(self.dtype)

    def decode(self, codes: Array) -> npt.NDArray[np.float32]:
        """The real values, float32."""
        scale, zero = self._along(codes)
        return (scale.astype(np.float32) * (codes.astype(np.int64) - zero).astype(np.float32)).astype(np.float32)

    def _along(self, values: Array) -> tuple[Array, Array]:
        """Scale and zero, shaped to broadcast over `values`."""
        if self.axis is None:
            return np.asarray(self.scale[0]), np.asarray(self.zero[0])
        shape = [1] * values.ndim
        shape[self.axis] = -1
        return np.reshape(self.scale, shape), np.reshape(self.zero, shape)


def affine(low: float, high: float, bits: int = 8) -> Quant:
    """The code that covers [low, high] and represents zero exactly (TFLite quantization specification).

    >>> affine(0.0, 1.0).zero
    (-128,)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-30:
        return Quant(bits=bits, scale=(1.0,), zero=(0,))
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    scale = (high - low) / (highest - lowest)
    zero = int(np.clip(round(lowest - low / scale), lowest, highest))
    return Quant(bits=bits, scale=(scale,), zero=(zero,))


def symmetric(peak: Array, bits: int = 8, axis: int | None = None) -> Quant:
    """The code with zero 0 and codes in ±(2^(bits−1)−1) whose largest magnitude is `peak` (one per channel or one).

    >>> symmetric(np.array([127.0])).scale
    (1.0,)
    """
    top = (1 << (bits - 1)) - 1
    safe = np.where(np.atleast_1d(peak) > 1e-30, np.atleast_1d(peak), 1.0)
    return Quant(bits=bits, scale=tuple(float(p) / top for p in safe), zero=(0,), axis=axis)

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
    float32 values, as the TFLite int8 specification stores them. 2…16 bits, 1 for weights, 32 or 64 for biases. The
    codes of 1 bit are −1 and +1 (Courbariaux et al. 2016): there is no code for zero.

    >>> Quant(bits=8, scale=(0.5,), zero=(3,)).lowest
    -128
    """

    bits: int
    scale: tuple[float, ...]
    zero: tuple[int, ...] = (0,)
    axis: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.bits <= 16 or self.bits in (32, 64)):
            raise GraphError(f"a number code has 1…16 bits (or 32 or 64 for biases), not {self.bits}")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            scale = tuple(float(np.float32(s)) for s in self.scale)
        if not all(np.isfinite(s) and s > 0 for s in scale):
            raise GraphError(f"scales must be positive and finite, got {self.scale[:4]}")
        object.__setattr__(self, "scale", scale)
        if len(self.zero) == 1 and len(scale) > 1:
            object.__setattr__(self, "zero", self.zero * len(scale))
        if len(self.zero) != len(scale) or (self.axis is None and len(scale) != 1) or not scale:
            raise GraphError(f"{len(scale)} scales and {len(self.zero)} zeros do not make a code with axis {self.axis}")
        if self.bits == 1 and any(self.zero):
            raise GraphError("a code of 1 bit is symmetric: its zero must be 0")
        if min(self.zero) < self.lowest or max(self.zero) > self.highest:
            raise GraphError(f"zeros must be codes of {self.bits} bits, got {self.zero[:4]}")

    @property
    def lowest(self) -> int:
        """The smallest integer of the code."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest integer of the code."""
        return max((1 << (self.bits - 1)) - 1, 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The storage type of one element."""
        return np.dtype(f"int{max(8, 1 << (self.bits - 1).bit_length())}")

    def encode(self, real: Array) -> Array:
        """Nearest codes, halves away from zero, saturated (TFLite `AffineQuantize`, float32 arithmetic).

        What is not a number becomes the lowest code, here and in the firmware. In 1 bit the code is the sign, +1 for 0.
        """
        if self.bits == 1:
            return np.where(real >= 0, 1, -1).astype(self.dtype)
        scale, zero = self._along(real)
        with np.errstate(over="ignore"):  # beyond float32 is beyond the code
            steps = real.astype(np.float32) / scale.astype(np.float32)
        bound = np.float32(2.0 ** min(self.bits, 62))  # int64 holds it, and no code lies beyond
        steps = np.fmin(np.fmax(steps, -bound), bound)
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
    """The code of an activation that covers [low, high] and holds zero exactly (TFLite quantization specification).

    Codes of more than 8 bits are symmetric, with zero 0, as the specification has them for int16.

    >>> affine(0.0, 1.0).zero
    (-128,)
    """
    if not 2 <= bits <= 16:
        raise GraphError(f"activations have 2…16 bits, not {bits}")
    low, high = min(low, 0.0), max(high, 0.0)
    if bits > 8:
        return symmetric(np.array([max(-low, high)]), bits)
    if high - low < 1e-30:
        return Quant(bits=bits, scale=(1.0,), zero=(0,))
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    scale = (high - low) / (highest - lowest)
    zero = int(np.clip(round(lowest - low / scale), lowest, highest))
    return Quant(bits=bits, scale=(scale,), zero=(zero,))


def symmetric(peak: Array, bits: int = 8, axis: int | None = None) -> Quant:
    """The code with zero 0 and codes in ±(2^(bits−1)−1) whose largest magnitude is `peak` (one per channel or one).

    In 1 bit the codes are −1 and +1; in 2 bits this makes −1, 0 and 1.

    >>> symmetric(np.array([127.0])).scale
    (1.0,)
    """
    top = max((1 << (bits - 1)) - 1, 1)
    safe = np.where(np.atleast_1d(peak) > 1e-30, np.atleast_1d(peak), 1.0)
    return Quant(bits=bits, scale=tuple(float(p) / top for p in safe), zero=(0,), axis=axis)


def weight_codes(weight: Array, taps: Quant) -> Array:
    """The nearest codes, but for the most negative one (TFLite specification: −127…127; 2 bits: −1, 0, 1)."""
    return np.maximum(taps.encode(weight), -taps.highest)


def bias_codes(bias: Array, source: Quant, taps: Quant) -> Array:
    """Nearest codes of a bias at scale_x · scale_w, in float64; saturated at 32 bits."""
    # a bias scale is a product of two float32 scales; float64 keeps the quotient exact enough for 32 bits
    steps = np.rint(bias.astype(np.float64) / (source.scale[0] * np.array(taps.scale)))
    return np.clip(steps, -(2**31), 2**31 - 1)


def pack(codes: Array, bits: int) -> Array:
    """Weight codes as firmware stores them, flat: those of 1…7 bits as one little-endian stream of bits.

    Where a code can lie across two bytes, one more byte ends the stream, so that reading two is always legal.

    >>> pack(np.array([1, -1, 0], np.int8), 2).tolist()
    [13]
    """
    flat = codes.ravel()
    if bits >= 8:
        return flat
    fields = flat > 0 if bits == 1 else flat
    stream = np.packbits(fields.astype(np.uint8)[:, None] >> np.arange(bits, dtype=np.uint8) & 1, bitorder="little")
    return np.append(stream, np.zeros(packed_bytes(codes.size, bits) - len(stream), np.uint8))


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes `pack` makes of that many codes.

    >>> packed_bytes(3, 2), packed_bytes(3, 3), packed_bytes(3, 8)
    (1, 3, 3)
    """
    if bits >= 8:
        return count * (1 if bits == 8 else 2)
    return -(-count * bits // 8) + (8 % bits != 0)

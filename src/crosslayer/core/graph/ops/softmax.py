"""Softmax."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding, Rule, divide_by_power, doubling_high, rescale, split_factor
from crosslayer.core.graph.operation import (
    OUTPUT,
    Op,
    Operand,
    Params,
    Shape,
    Slot,
    TensorType,
    Tie,
    is_wide,
    rescaler,
    scalar,
    table,
)
from crosslayer.core.quant import Array, Quant

_INTEGER_BITS = 5  # TFLite `reference/softmax.h`: kScaledDiffIntegerBits
_SUM_BITS = 12  # same: kAccumulationIntegerBits
_MOST = (1 << _SUM_BITS) - 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Op):
    """y[i] = e^x[i] / Σ e^x over the last axis. In integers the result's code is scale 1/256, zero −128.

    The integer meaning is that of TFLite's reference kernel (gemmlowp fixed-point exponential and reciprocal); under
    `Rounding.FLOAT` that of its optimised kernel (a float32 table of powers). For codes of more than 8 bits the result
    has 16 bits, scale 1/32768, and comes from two interpolated tables under every rule.
    """

    kernel: ClassVar[str] = "softmax_s8"
    wide_kernel: ClassVar[str] = "softmax_s16"

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the input."""
        return shapes[0]

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """Scale 1/256, zero −128, or for codes of more than 8 bits scale 1/32768, zero 0 (TFLite specification)."""
        if codes[0] is not None and is_wide(codes[0]):
            return Quant(bits=16, scale=(1 / 32768,))
        return None if codes[0] is None else Quant(bits=8, scale=(1 / 256,), zero=(-128,))

    def real(self, xp: Any, *values: Any) -> Any:
        """The shares."""
        x = values[0]
        peak = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
        return peak / peak.sum(axis=-1, keepdims=True)

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """The factor that brings code differences to Q5.26, and the difference beyond which a share is 0.

        Under `Rounding.FLOAT` e^(−scale·d) for the differences d = 0 … 255.
        """
        quant, depth = operands[0].code(), output.shape[-1]
        if is_wide(quant):
            return {"rows": output.size // depth, "depth": depth, **_wide_params(quant, depth)}
        if rounding is Rounding.FLOAT:
            steps = np.float32(quant.scale[0]) * np.arange(256, dtype=np.float32)
            powers = np.exp(-steps.astype(np.float64)).astype(np.float32)
            return {"rows": output.size // depth, "depth": depth, "powers": powers}
        if depth > _MOST:
            raise GraphError(f"shares of {depth} values; their sum stays within 32 bits up to {_MOST}")
        # below a factor of 1 all shares are equal, and the shift would go to the right
        factor = min(max(quant.scale[0] * (1 << (31 - _INTEGER_BITS)), 1.0), 2.0**31 - 1)
        mult, shift = split_factor(factor)
        limit = ((1 << _INTEGER_BITS) - 1) * (1 << (31 - _INTEGER_BITS)) / (1 << max(shift, 0))
        return {"rows": output.size // depth, "depth": depth, "mult": mult, "shift": shift, "diff_min": -int(limit)}

    def integer(self, params: Params, *codes: Array) -> Array:
        """TFLite `reference_ops::Softmax`, or `optimized_ops::Softmax` with a table."""
        x = codes[0].astype(np.int64)
        diff = x - x.max(axis=-1, keepdims=True)
        if "rescale" in params:
            return _wide_softmax(params, diff)
        if "powers" in params:
            return _table_softmax(table(params, "powers")[-diff])
        powers = fixed_powers(params)[-diff]
        total = divide_by_power(powers, _SUM_BITS).sum(axis=-1, keepdims=True)
        headroom = 32 - _bit_length(total)  # count of leading zeros of a 32-bit number
        reciprocal = _reciprocal_above_one(((total << headroom) - (1 << 31)).astype(np.int64))
        over = _SUM_BITS - headroom
        share = divide_by_power(doubling_high(reciprocal, powers), over + 31 - 8)
        return np.clip(share - 128, -128, 127)

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """None: the channels are frozen."""
        return ()

    def frozen(self) -> Iterable[Slot]:
        """Removing one class changes the shares of all others."""
        return ((0, -1), (OUTPUT, -1))


def fixed_powers(params: Params) -> Array:
    """e^(−scale·d) in Q0.31 for the differences d = 0 … 255 of two codes, 0 where the share is too small to count."""
    diff = -np.arange(256, dtype=np.int64)
    alive = diff >= scalar(params, "diff_min")
    scaled = np.where(alive, diff, 0) << scalar(params, "shift")
    powers = _exp_negative(doubling_high(scaled, np.int64(scalar(params, "mult"))))
    return np.where(alive, powers, 0)


def _wide_params(quant: Quant, depth: int) -> Params:
    """Tables of e^−10…0 and of 1 / (1 + v) for v in 0…1, and what brings code differences to the first one's places
    (TFLite `SoftmaxPrepare` for int16)."""
    factor = quant.scale[0] / (10 / 65535)
    if factor >= 2**15 or depth >= 2**16:
        raise GraphError("takes codes of a scale of at most 5 and at most 65535 values; requantize or split it")
    return {
        "rescale": rescale(np.array([factor]), Rule.DOUBLE),
        "powers": _interpolated(np.exp, 10 / 65535, 32767),
        "reciprocals": _interpolated(lambda v: 1 / (1 + v), 1 / 65535, -32768),
    }


def _interpolated(function: Callable[[Array], Array], scale: float, zero: int) -> Array:
    """513 values in Q15 of a function of int16 codes, 128 codes apart, for linear interpolation between them.

    Each is moved by half the error that interpolation would make in the middle (TFLite `LUTPopulateInt16`).
    """
    codes = np.append(np.arange(512) * (65535 / 512), 65535.0) - 32768 - zero
    step = scale * (65535 / 512)

    def sampled(x: Array) -> Array:
        return function(x) * 32768

    places = scale * codes
    here, after = _away(sampled(places[:-1])), sampled(places[:-1] + step)
    error = _away((after + here) / 2) - _away(sampled(places[:-1] + step / 2))
    values = np.append(here - _away(error / 2), _away(sampled(places[-1:])))
    return np.clip(values, -32768, 32767).astype(np.int16)


def _away(value: Array) -> Array:
    """The nearest integer, halves away from zero."""
    return np.trunc(value + np.copysign(0.5, value))


def _looked_up(values: Array, code: Array) -> Array:
    """The table's value at int16 codes (TFLite `LUTLookup`)."""
    place, between = (code >> 7) + 256, code & 127
    values = values.astype(np.int64)
    return values[place] + (((values[place + 1] - values[place]) * between + 64) >> 7)


def _wide_softmax(params: Params, diff: Array) -> Array:
    """TFLite `reference_ops::SoftmaxInt16`."""
    places = np.clip(rescaler(params)(diff) + 32767, -32768, 32767)
    powers = _looked_up(table(params, "powers"), places)
    total = powers.sum(axis=-1, keepdims=True)
    headroom = 31 - _bit_length(total)
    places = (((total << headroom) + (1 << 13)) >> 14) - (1 << 15) - (1 << 16)
    reciprocal = _looked_up(table(params, "reciprocals"), np.clip(places, -32768, 32767))
    right = 30 - headroom
    return np.clip((powers * reciprocal + (np.int64(1) << (right - 1))) >> right, 0, 32767)


def _table_softmax(powers: Array) -> Array:
    """The codes of powers / Σ powers in float32, added one after the other, halves away from zero."""
    total = np.cumsum(powers, axis=-1, dtype=np.float32)[..., -1:]
    share = powers * (np.float32(1) / (total * np.float32(1 / 256)))
    whole = np.trunc(share)
    return np.clip(whole.astype(np.int64) + (share - whole >= 0.5) - 128, -128, 127)


def _bit_length(value: Array) -> Array:
    """Bits of positive integers below 2^32: floor(log2) + 1, exact in float64."""
    return np.frexp(value.astype(np.float64))[1].astype(np.int64)


def _exp_negative(value: Array) -> Array:
    """e^value for value ≤ 0 in Q5.26; result Q0.31 (gemmlowp `exp_on_negative_values`)."""
    quarter = np.int64(1 << 24)
    remainder = (value & (quarter - 1)) - quarter
    result = _exp_quarter(remainder << _INTEGER_BITS)
    beyond = remainder - value
    for exponent, factor in (
        (-2, 1672461947),
        (-1, 1302514674),
        (0, 790015084),
        (1, 290630308),
        (2, 39332535),
        (3, 720401),
        (4, 242),
    ):
        bit = 1 << (26 + exponent)
        result = np.where(beyond & bit, doubling_high(result, np.int64(factor)), result)
    return np.where(value == 0, 2**31 - 1, result)


def _exp_quarter(value: Array) -> Array:
    """e^value for value in [−1/4, 0), Q0.31 (gemmlowp `exp_on_interval_between_negative_one_quarter_and_0_excl`)."""
    x = value + (1 << 28)
    x2 = doubling_high(x, x)
    x3 = doubling_high(x2, x)
    x4_over_4 = divide_by_power(doubling_high(x2, x2), 2)
    tail = divide_by_power(doubling_high(x4_over_4 + x3, np.int64(715827883)) + x2, 1)
    return 1895147668 + doubling_high(np.int64(1895147668), x + tail)


def _reciprocal_above_one(value: Array) -> Array:
    """1 / (1 + value) for value in [0, 1), Q0.31, three Newton steps (gemmlowp `one_over_one_plus_x_for_x_in_0_1`)."""
    half = (value + (2**31 - 1) + 1) >> 1  # gemmlowp `RoundingHalfSum` of value and one
    x = 1515870810 + doubling_high(half, np.int64(-1010580540))  # Q2.29: 48/17, −32/17
    for _ in range(3):
        missing = (1 << 29) - doubling_high(half, x)
        x = x + (doubling_high(x, missing) << 2)
    return np.minimum(x << 1, 2**31 - 1)

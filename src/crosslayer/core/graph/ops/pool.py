"""Pooling: largest or mean value of a window, and the mean of a whole map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rescale, Rounding, Rule, split_factor
from crosslayer.core.graph.operation import (
    Op,
    Operand,
    Params,
    Shape,
    TensorType,
    Tie,
    is_wide,
    same_channels,
    scalar,
)
from crosslayer.core.graph.ops.products import finish
from crosslayer.core.graph.ops.windows import Windows
from crosslayer.core.quant import Array, Quant


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Op):
    """y[p, c] = some summary of the window of x[·, c]; padded places do not count. A subclass writes the summary."""

    windows: Windows

    @final
    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """(h', w', c)."""
        high, wide = self.windows.output(shapes[0])
        if int(self.windows.counts(shapes[0]).min()) == 0:
            raise GraphError("some window lies wholly in the padding; pad less")
        return high, wide, shapes[0][2]

    @final
    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """That of the input."""
        return codes[0]

    @final
    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """The geometry, and whether codes are stored as int16."""
        wide = int(is_wide(operands[0].code()))
        return {**self.windows.params(operands[0].type.shape, output.shape), "wide": wide}

    @final
    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool(Pool):
    """y[p, c] = max over the window of x[·, c]; padded places do not count."""

    kernel: ClassVar[str] = "max_pool"
    wide_kernel: ClassVar[str] = "max_pool"

    def real(self, xp: Any, *values: Any) -> Any:
        """Largest value of each window."""
        return self.windows.view(values[0], -np.inf).max(axis=(-2, -1))

    def integer(self, params: Params, *codes: Array) -> Array:
        """Largest code of each window."""
        return self.windows.view(codes[0].astype(np.int64), np.iinfo(np.int64).min).max(axis=(-2, -1))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool(Pool):
    """y[p, c] = mean over the window of x[·, c]; padded places do not count. Integers round halves away from zero."""

    kernel: ClassVar[str] = "average_pool"
    wide_kernel: ClassVar[str] = "average_pool"

    def real(self, xp: Any, *values: Any) -> Any:
        """Mean of each window."""
        counts = self.windows.counts(values[0].shape[1:])
        return (self.windows.view(values[0], 0.0).sum(axis=(-2, -1)) / counts[:, :, None]).astype(values[0].dtype)

    def integer(self, params: Params, *codes: Array) -> Array:
        """Sum of codes over count, halves away from zero (TFLite `AveragePool`)."""
        counts = self.windows.counts(codes[0].shape[1:])[:, :, None]
        return divide_away(self.windows.view(codes[0].astype(np.int64), 0).sum(axis=(-2, -1)), counts)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMean(Op):
    """y[c] = mean over height and width of x[·, ·, c]."""

    kernel: ClassVar[str] = "global_mean_s8"
    wide_kernel: ClassVar[str] = "global_mean_s16"

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """(c,)."""
        if len(shapes[0]) != 3:
            raise GraphError(f"expects an input (height, width, channels), got {list(shapes[0])}")
        return (shapes[0][2],)

    def real(self, xp: Any, *values: Any) -> Any:
        """Mean of each channel."""
        return values[0].mean((1, 2))

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Sizes, bounds, zeros and the factor scale_x / scale_y / pixels; for XNNPACK it and what to add after it."""
        source, result = operands[0].code(), Operand(type=output).code()
        high, wide, channels = operands[0].type.shape
        sizes = {"pixels": high * wide, "channels": channels, "low": result.lowest, "high": result.highest}
        if is_wide(source) and high * wide >= 2**16:
            raise GraphError(f"its sums of {high * wide} values could grow past 32 bits; pool before it")
        if source.scale[0] / result.scale[0] >= 2.0**31:
            raise GraphError("the scale of the result is far too small; give it a larger one")
        if rounding is Rounding.FLOAT and not is_wide(source):
            factor = np.float32(source.scale[0]) / np.float32(result.scale[0]) / np.float32(high * wide)
            offset = np.float32(result.zero[0]) - np.float32(source.zero[0] * high * wide) * factor
            return {**sizes, "factor": float(factor), "offset": float(offset)}
        return {
            **sizes,
            "zero_in": source.zero[0],
            "zero_out": result.zero[0],
            "rescale": mean_rescale(source.scale[0] / result.scale[0], high * wide),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """Rescaled sum of (x − zero) (TFLite `QuantizedMeanOrSum`), or of x in float32, nearest even (XNNPACK)."""
        total = codes[0].astype(np.int64).sum(axis=(1, 2))
        if "factor" in params:
            real = total.astype(np.float32) * _float32(params, "factor") + _float32(params, "offset")
            return np.clip(np.rint(real).astype(np.int64), scalar(params, "low"), scalar(params, "high"))
        centred = total - scalar(params, "zero_in") * scalar(params, "pixels")
        return finish(params, centred)

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


def _float32(params: Params, name: str) -> np.float32:
    value = params[name]
    assert isinstance(value, float), name
    return np.float32(value)


def mean_rescale(factor: float, count: int) -> Rescale:
    """By factor / count: the mantissa of `factor`, doubled as often as `count` allows, over `count`, rounded down."""
    mult, shift = split_factor(factor)
    grow = min(count.bit_length() - 1, 31 + shift)
    return Rescale(
        rule=Rule.DOUBLE,
        mult=np.array([(mult << grow) // count], np.int32),
        shift=np.array([shift - grow], np.int32),
        factor=np.array([factor / count]),
    )


def divide_away(total: Array, count: Array) -> Array:
    """total / count, halves away from zero.

    >>> divide_away(np.array([3, -3]), np.array(2)).tolist()
    [2, -2]
    """
    return np.sign(total) * ((np.abs(total) + count // 2) // count)

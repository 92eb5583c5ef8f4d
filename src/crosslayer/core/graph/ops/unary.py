"""Functions of one value. In integers each is a table of 256 codes; codes of more than 8 bits are computed."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding, Rule, rescale
from crosslayer.core.graph.operation import (
    Op,
    Operand,
    Params,
    Shape,
    TensorType,
    Tie,
    is_wide,
    rescaler,
    same_channels,
    scalar,
    table,
)
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.quant import Array, Quant

_SHARES = Quant(bits=16, scale=(1 / 32768,))  # TFLite's code of int16 sigmoid and tanh


class Unary(Op):
    """y[i] = f(x[i]); a subclass writes f, and `wide`, its arithmetic on codes of more than 8 bits, if there is one."""

    kernel: ClassVar[str] = "lookup_s8"

    @final
    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the input."""
        return shapes[0]

    @final
    def real(self, xp: Any, *values: Any) -> Any:
        """f of each value."""
        return self.function(xp, values[0])

    @abstractmethod
    def function(self, xp: Any, x: Any) -> Any:
        """f, from functions that NumPy and PyTorch share."""

    @final
    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """f of all 256 codes: decoded, in float64, nearest code, halves away from zero (TFLite `LUTPopulate`)."""
        source, result = operands[0].code(), Operand(type=output).code()
        if is_wide(source):
            return {"count": output.size, **self.wide(source, result)}
        real = source.scale[0] * (np.arange(-128, 128) - source.zero[0]).astype(np.float64)
        steps = self.function(np, real) / result.scale[0]
        codes = np.sign(steps) * np.floor(np.abs(steps) + 0.5) + result.zero[0]
        return {"count": output.size, "table": np.clip(codes, result.lowest, result.highest).astype(np.int8)}

    def wide(self, source: Quant, result: Quant) -> Params:
        """The constants of the meaning on codes of more than 8 bits, for `wide_kernel`."""
        raise GraphError("has no integer meaning for codes of more than 8 bits; give it a code of at most 8")

    @final
    def integer(self, params: Params, *codes: Array) -> Array:
        """The table's entries, or the value as `wide_kernel` computes it."""
        x = codes[0].astype(np.int64)
        if "rescale" in params:
            return _rectified(params, x)
        return _sigmoid(params, x) if "shift" in params else table(params, "table")[x + 128]

    @final
    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Relu(Unary):
    """max(x, 0)."""

    wide_kernel: ClassVar[str] = "rectify_s16"

    def function(self, xp: Any, x: Any) -> Any:
        """max(x, 0)."""
        return xp.clip(x, 0.0, None)

    def wide(self, source: Quant, result: Quant) -> Params:
        """Rescaled, clamped."""
        return _rectifier(source, result, Activation.RELU)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Relu6(Unary):
    """min(max(x, 0), 6)."""

    wide_kernel: ClassVar[str] = "rectify_s16"

    def function(self, xp: Any, x: Any) -> Any:
        """min(max(x, 0), 6)."""
        return xp.clip(x, 0.0, 6.0)

    def wide(self, source: Quant, result: Quant) -> Params:
        """Rescaled, clamped."""
        return _rectifier(source, result, Activation.RELU6)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyRelu(Unary):
    """x for x ≥ 0, else slope · x."""

    wide_kernel: ClassVar[str] = "rectify_s16"

    slope: float = 0.01

    def function(self, xp: Any, x: Any) -> Any:
        """x for x ≥ 0, else slope · x."""
        return xp.where(x < 0, x * self.slope, x)

    def wide(self, source: Quant, result: Quant) -> Params:
        """Rescaled by one of two factors."""
        if self.slope < 0:
            raise GraphError("a falling slope has no integer meaning for codes of more than 8 bits; give it at most 8")
        return _rectifier(source, result, Activation.NONE, self.slope)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HardSwish(Unary):
    """x · min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, MobileNetV3)."""

    def function(self, xp: Any, x: Any) -> Any:
        """x · relu6(x + 3) / 6."""
        return x * xp.clip(x + 3.0, 0.0, 6.0) / 6.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid(Unary):
    """1 / (1 + e^−x)."""

    wide_kernel: ClassVar[str] = "sigmoid_s16"

    def function(self, xp: Any, x: Any) -> Any:
        """(1 + tanh(x / 2)) / 2: the same value, without overflow."""
        return 0.5 * (1.0 + xp.tanh(0.5 * x))

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """Scale 1/32768 for codes of more than 8 bits (TFLite specification)."""
        return _shares(codes[0])

    def wide(self, source: Quant, result: Quant) -> Params:
        """An interpolated table."""
        return _sigmoid_table(source, tanh=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tanh(Unary):
    """tanh x."""

    wide_kernel: ClassVar[str] = "sigmoid_s16"

    def function(self, xp: Any, x: Any) -> Any:
        """tanh x."""
        return xp.tanh(x)

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """Scale 1/32768 for codes of more than 8 bits (TFLite specification)."""
        return _shares(codes[0])

    def wide(self, source: Quant, result: Quant) -> Params:
        """An interpolated table, as tanh x = 2 sigmoid(2 x) − 1."""
        return _sigmoid_table(source, tanh=True)


def _shares(quant: Quant | None) -> Quant | None:
    return _SHARES if quant is not None and is_wide(quant) else None


def _rectifier(source: Quant, result: Quant, activation: Activation, slope: float = 0.0) -> Params:
    """Bounds, and one factor for x ≥ 0, another for x < 0, both from float32 (TFLite `QuantizeLeakyRelu`)."""
    factor = np.float32(source.scale[0]) / np.float32(result.scale[0])
    negative = np.float32(source.scale[0]) * np.float32(slope) / np.float32(result.scale[0])
    return {
        **activation.bounds(result, Rule.DOUBLE),
        "rescale": rescale(np.array([factor]), Rule.DOUBLE),
        "rescale_negative": rescale(np.array([negative]), Rule.DOUBLE),
    }


def _rectified(params: Params, x: Array) -> Array:
    value = np.where(x >= 0, rescaler(params)(x), rescaler(params, "rescale_negative")(x))
    return np.clip(value, scalar(params, "low"), scalar(params, "high"))


def _sigmoid_table(source: Quant, *, tanh: bool) -> Params:
    """What brings codes to steps of 1/12288, and sigmoid(i/24) for i = 0 … 255 in Q16 (TFLite `SigmoidPrepare`).

    Each entry is moved by half the error that linear interpolation would make in the middle; the last is the largest.
    """
    mult, shift = source.scale[0] * 4096 * 3, 0
    if source.scale[0] in ((2.0**-12, 2.0**-11) if tanh else (2.0**-12,)):
        mult = float(int(mult))
    else:
        while mult <= 32767 / 2 and shift <= 30:
            mult, shift = mult * 2, shift + 1
    if mult >= 2**16:
        raise GraphError("the scale of its input is too large: at most 5; give it a smaller one")
    here, middle, after = (65536 / (1 + np.exp(-(np.arange(255) + part) / 24)) for part in (0.0, 0.5, 1.0))
    table = np.append(np.rint(here - ((here + after) / 2 - middle) / 2), 65535).astype(np.uint16)
    return {"tanh": int(tanh), "mult": int(mult), "shift": shift, "table": table}


def _sigmoid(params: Params, x: Array) -> Array:
    """TFLite `reference_integer_ops::Logistic` and `Tanh` for int16."""
    shift, shares = scalar(params, "shift"), table(params, "table").astype(np.int64)
    steps = (x * scalar(params, "mult") + ((1 << shift) >> 1)) >> shift
    size, bits = np.abs(steps), 8 if scalar(params, "tanh") else 9
    place = np.minimum(size >> bits, 254)
    between = (shares[place] << bits) + (size & ((1 << bits) - 1)) * (shares[place + 1] - shares[place])
    if bits == 8:
        value = np.where(size >> bits >= 255, 0xFFFF << 8, between) - (1 << 23)
        return np.where(steps >= 0, value + 128, -value + 127) >> 8
    value = np.where(size >> bits >= 255, 0x7FFF << 10, between)
    return np.where(steps >= 0, value + 512, (1 << 25) - value + 511) >> 10

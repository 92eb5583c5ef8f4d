"""Sum and product of two values of one shape."""

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
)
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.graph.ops.products import conv_rule, finish
from crosslayer.core.quant import Array

_HEADROOM, _WIDE_HEADROOM = 20, 15  # TFLite `add.cc`: left shifts of the inputs of an int8 and an int16 addition


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Op):
    """y = activation(a + b)."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    kernel: ClassVar[str] = "add_s8"
    wide_kernel: ClassVar[str] = "add_s16"

    activation: Activation = Activation.NONE

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """The common shape."""
        return equal_shape(shapes)

    def real(self, xp: Any, *values: Any) -> Any:
        """The sum of `values` = a, b."""
        return self.activation.real(xp, values[0] + values[1])

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Two factors to a common scale and one back (TFLite `add.cc`), or XNNPACK's two multipliers and a shift."""
        a, b, result = operands[0].code(), operands[1].code(), Operand(type=output).code()
        common: dict[str, Any] = {
            **self.activation.bounds(result, conv_rule(rounding, result)),
            "count": output.size,
            "zero_out": result.zero[0],
        }
        if conv_rule(rounding, a, b, result) is Rule.FLOAT:
            factors = [np.float32(q.scale[0]) / np.float32(result.scale[0]) for q in (a, b)]
            shift = 20 - (int(np.frexp(max(factors))[1]) - 1)
            if not 1 <= shift <= 30:
                raise GraphError(
                    f"the larger input scale is {max(factors):.3g} times the output's, too far for rounding 'float'; "
                    "put a Requantize before it"
                )
            mult_a, mult_b = (int(np.rint(np.ldexp(np.float64(f), shift))) for f in factors)
            return {
                **common,
                "mult_a": mult_a,
                "mult_b": mult_b,
                "shift": shift,
                "bias": (1 << (shift - 1)) - mult_a * a.zero[0] - mult_b * b.zero[0],
            }
        double = 2 * max(a.scale[0], b.scale[0])
        headroom = _WIDE_HEADROOM if is_wide(result) else _HEADROOM
        return {
            **common,
            "headroom": headroom,
            "zero_a": a.zero[0],
            "zero_b": b.zero[0],
            "rescale_a": rescale(np.array([a.scale[0] / double]), Rule.DOUBLE),
            "rescale_b": rescale(np.array([b.scale[0] / double]), Rule.DOUBLE),
            "rescale": rescale(np.array([double / ((1 << headroom) * result.scale[0])]), Rule.DOUBLE),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """The rescaled sum of both."""
        a, b = (c.astype(np.int64) for c in codes)
        if "shift" in params:
            acc = scalar(params, "bias") + a * scalar(params, "mult_a") + b * scalar(params, "mult_b")
            total = (acc >> scalar(params, "shift")) + scalar(params, "zero_out")
            return np.clip(total, scalar(params, "low"), scalar(params, "high"))
        headroom = scalar(params, "headroom")
        left = rescaler(params, "rescale_a")((a - scalar(params, "zero_a")) << headroom)
        right = rescaler(params, "rescale_b")((b - scalar(params, "zero_b")) << headroom)
        return finish(params, left + right)

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(2, output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mul(Op):
    """y = activation(a · b)."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    kernel: ClassVar[str] = "mul_s8"
    wide_kernel: ClassVar[str] = "mul_s16"

    activation: Activation = Activation.NONE

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """The common shape."""
        return equal_shape(shapes)

    def real(self, xp: Any, *values: Any) -> Any:
        """The product of `values` = a, b."""
        return self.activation.real(xp, values[0] * values[1])

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Zeros, bounds and the factor scale_a · scale_b / scale_y, in float32 under every rule (TFLite `mul.cc`)."""
        a, b, result = operands[0].code(), operands[1].code(), Operand(type=output).code()
        factor = np.float32(a.scale[0]) * np.float32(b.scale[0]) / np.float32(result.scale[0])
        return {
            **self.activation.bounds(result, conv_rule(rounding, result)),
            "count": output.size,
            "zero_a": a.zero[0],
            "zero_b": b.zero[0],
            "zero_out": result.zero[0],
            "rescale": rescale(np.array([factor]), conv_rule(rounding, result)),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """The rescaled product."""
        a, b = (c.astype(np.int64) for c in codes)
        return finish(params, (a - scalar(params, "zero_a")) * (b - scalar(params, "zero_b")))

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(2, output)


def equal_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape that both operands have."""
    if shapes[0] != shapes[1]:
        raise GraphError(f"expects two operands of one shape, got {list(shapes[0])} and {list(shapes[1])}")
    return shapes[0]

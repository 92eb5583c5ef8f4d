"""Between float and integer codes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding, rescale
from crosslayer.core.graph.operation import Op, Operand, Params, Shape, TensorType, Tie, is_wide, same_channels, scalar
from crosslayer.core.graph.ops.products import conv_rule, finish
from crosslayer.core.quant import Array, Quant


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize(Op):
    """Nearest code of a float32 value, halves away from zero."""

    kernel: ClassVar[str] = "quantize"
    wide_kernel: ClassVar[str] = "quantize"

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the input."""
        return shapes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The value itself."""
        return values[0]

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Scale and zero of the result."""
        if operands[0].type.quant is not None:
            raise GraphError("expects a float input; use Requantize between codes")
        return {"count": output.size, **scale_and_zero(Operand(type=output).code())}

    def integer(self, params: Params, *codes: Array) -> Array:
        """`codes` is a float array here."""
        return code_of(params).encode(codes[0])

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dequantize(Op):
    """scale × (code − zero), float32."""

    kernel: ClassVar[str] = "dequantize"
    wide_kernel: ClassVar[str] = "dequantize"

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the input."""
        return shapes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The value itself."""
        return values[0]

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Scale and zero of the input."""
        return {"count": output.size, **scale_and_zero(operands[0].code())}

    def integer(self, params: Params, *codes: Array) -> Array:
        """Float32 values."""
        return code_of(params).decode(codes[0])

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Requantize(Op):
    """The nearest value in another code."""

    kernel: ClassVar[str] = "requantize_s8"
    wide_kernel: ClassVar[str] = "requantize_s16"
    converts: ClassVar[bool] = True

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the input."""
        return shapes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The value itself."""
        return values[0]

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Zeros and the factor scale_x / scale_y."""
        source, result = operands[0].code(), Operand(type=output).code()
        widths = {"wide_in": int(is_wide(source)), "wide_out": int(is_wide(result))}
        return {
            **(widths if any(widths.values()) else {}),
            "count": output.size,
            "low": result.lowest,
            "high": result.highest,
            "zero_in": source.zero[0],
            "zero_out": result.zero[0],
            "rescale": rescale(np.array([source.scale[0] / result.scale[0]]), conv_rule(rounding, source, result)),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """The rescaled codes."""
        return finish(params, codes[0].astype(np.int64) - scalar(params, "zero_in"))

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


def scale_and_zero(quant: Quant) -> dict[str, int | float]:
    """A per-tensor code as parameters."""
    bounds = {"low": quant.lowest, "high": quant.highest}
    return {"wide": int(is_wide(quant)), "scale": quant.scale[0], "zero": quant.zero[0], **bounds}


def code_of(params: Params) -> Quant:
    """The inverse of `scale_and_zero`."""
    scale = params["scale"]
    assert isinstance(scale, float)
    bits = (scalar(params, "high") + 1).bit_length()
    return Quant(bits=bits, scale=(scale,), zero=(scalar(params, "zero"),))

"""Operations that move values without changing them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import (
    OUTPUT,
    Op,
    Operand,
    Params,
    Shape,
    TensorType,
    Tie,
    same_channels,
    scalar,
)
from crosslayer.core.graph.ops.windows import Margins
from crosslayer.core.quant import Array, Quant


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape(Op):
    """The same values, in the same row-major order, under another shape."""

    is_view: ClassVar[bool] = True

    shape: tuple[int, ...]

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """`shape`."""
        if math.prod(self.shape) != math.prod(shapes[0]):
            raise GraphError(f"cannot give {math.prod(shapes[0])} values the shape {list(self.shape)}")
        return self.shape

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """That of the input."""
        return codes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The reshaped values."""
        return values[0].reshape((values[0].shape[0], *self.shape))

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Nothing to compute."""
        return {}

    def integer(self, params: Params, *codes: Array) -> Array:
        """The reshaped codes."""
        return codes[0].reshape((codes[0].shape[0], *self.shape))

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Places that are a multiple of the greatest common divisor of both last axes apart, here and there.

        The value at place t of the flat order is at t mod a and t mod b of last axes of a and b places. So a pixel of a
        vector, or a vector cut into pixels, is a channel at many places; axes without a common divisor go as a whole.
        """
        before, after = np.arange(shapes[0][-1]), np.arange(output[-1])
        period = math.gcd(len(before), len(after))
        return [Tie((0, -1), (0, -1), before % period, before), Tie((0, -1), (OUTPUT, -1), after % period, after)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(Op):
    """x (h, w, c) with margins of real zeros: (top, bottom, left, right)."""

    kernel: ClassVar[str] = "pad"
    wide_kernel: ClassVar[str] = "pad"

    margins: Margins

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """(h + top + bottom, w + left + right, c)."""
        if len(shapes[0]) != 3 or min(self.margins) < 0:
            raise GraphError(f"pads an input (height, width, channels) with margins ≥ 0, got {list(shapes[0])}")
        top, bottom, left, right = self.margins
        return shapes[0][0] + top + bottom, shapes[0][1] + left + right, shapes[0][2]

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """That of the input."""
        return codes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The padded values."""
        return self._pad(values[0], 0.0)

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Sizes, bytes of a pixel, margins and the byte that fills them: wide codes have zero 0."""
        top, _, left, _ = self.margins
        high, wide, channels = operands[0].type.shape
        return {
            "in_h": high,
            "in_w": wide,
            "pixel": channels * operands[0].code().dtype.itemsize,
            "out_h": output.shape[0],
            "out_w": output.shape[1],
            "top": top,
            "left": left,
            "fill": operands[0].code().zero[0],
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """The padded codes."""
        return self._pad(codes[0], scalar(params, "fill"))

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)

    def _pad(self, x: Array, fill: int | float) -> Array:
        top, bottom, left, right = self.margins
        return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(Op):
    """All operands one after the other along `axis` (of one sample); in integers all have one code."""

    operands: ClassVar[tuple[str, ...]] = ("parts",)
    variadic: ClassVar[bool] = True
    kernel: ClassVar[str] = "concat"
    wide_kernel: ClassVar[str] = "concat"

    axis: int = -1

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """The common shape, with the sum along `axis`."""
        rank = len(shapes[0])
        if not -rank <= self.axis < rank:
            raise GraphError(f"axis {self.axis} does not exist in {list(shapes[0])}")
        axis = self.axis % rank
        rests = {(len(s), s[:axis], s[axis + 1 :]) for s in shapes}
        if len(rests) > 1:
            raise GraphError(f"operands must agree outside axis {axis}, got {[list(s) for s in shapes]}")
        return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """The one code of all operands."""
        if len(set(codes)) > 1:
            raise GraphError("operands have different number codes; put a Requantize before it")
        return codes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The joined values."""
        return xp.concatenate(values, axis=self._batched(values[0].ndim))

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """How many bytes of each operand follow each other, and how often."""
        rank = len(output.shape)
        axis = self.axis % rank
        inner = math.prod(output.shape[axis + 1 :])
        inner *= operands[0].code().dtype.itemsize
        return {
            "outer": math.prod(output.shape[:axis]),
            "parts": len(operands),
            "runs": np.array([o.type.shape[axis] * inner for o in operands], np.int32),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """The joined codes."""
        return np.concatenate(codes, axis=self._batched(codes[0].ndim))

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Along the channels, each operand with its part of the result; else channels stay apart."""
        if self.axis % len(output) != len(output) - 1:
            return same_channels(len(shapes), output)
        offsets = np.cumsum([0, *(s[-1] for s in shapes)])
        return [
            Tie((i, -1), (OUTPUT, -1), np.arange(s[-1]), np.arange(s[-1]) + offsets[i]) for i, s in enumerate(shapes)
        ]

    def _batched(self, rank: int) -> int:
        return self.axis % (rank - 1) + 1

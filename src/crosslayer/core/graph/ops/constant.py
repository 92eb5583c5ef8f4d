"""A value that is the same for every input."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import Op, Operand, Params, Shape, TensorType, Tie, same_channels, table
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Op):
    """y = value, so that a sum, product or concatenation may have a constant operand; value and y have one code."""

    operands: ClassVar[tuple[str, ...]] = ("value",)
    weights: ClassVar[tuple[str, ...]] = ("value",)
    kernel: ClassVar[str] = "constant"
    wide_kernel: ClassVar[str] = "constant"

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the constant."""
        return shapes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The constant, for a batch of one."""
        return values[0][None]

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """The codes."""
        if operands[0].code() != Operand(type=output).code():
            raise GraphError("its constant has another number code than its result; give both one code")
        return {"count": output.bytes, "value": operands[0].constant()}

    def integer(self, params: Params, *codes: Array) -> Array:
        """The codes, for a batch of one."""
        return table(params, "value")[None]

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels of the constant with those of the result."""
        return same_channels(1, output)

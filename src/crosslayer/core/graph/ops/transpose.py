"""The axes of a value in another order."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import OUTPUT, Op, Operand, Params, Shape, Slot, TensorType, Tie, same_channels
from crosslayer.core.quant import Array, Quant

_MOST = 8  # `at` in the C kernel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Transpose(Op):
    """y[i_0, i_1, …] = x[j_0, j_1, …] with i_k = j_permutation[k]: axis k of y is axis permutation[k] of x."""

    kernel: ClassVar[str] = "transpose"
    wide_kernel: ClassVar[str] = "transpose"

    permutation: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.permutation) != list(range(len(self.permutation))) or len(self.permutation) > _MOST:
            raise GraphError(f"{list(self.permutation)} does not order axes 0, 1, … of at most {_MOST} axes")

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """The sides in the new order."""
        if len(shapes[0]) != len(self.permutation):
            raise GraphError(f"orders {len(self.permutation)} axes, got {list(shapes[0])}")
        return tuple(shapes[0][axis] for axis in self.permutation)

    def code(self, codes: Sequence[Quant | None], shapes: Sequence[Shape]) -> Quant | None:
        """That of the input."""
        return codes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The values in the new order."""
        return xp.permute_dims(values[0], (0, *(axis + 1 for axis in self.permutation)))

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Sides of y and how many bytes of x lie between neighbours along each; `run` bytes stay together."""
        width, shape = operands[0].code().dtype.itemsize, operands[0].type.shape
        steps = [width * math.prod(shape[axis + 1 :]) for axis in self.permutation]
        sides = list(output.shape)
        run = width
        while sides and steps[-1] == run:
            run *= sides.pop()
            steps.pop()
        return {
            "count": output.size * width // run,
            "run": run,
            "rank": len(sides),
            "sides": np.array(sides or [1], np.int32),
            "steps": np.array(steps or [0], np.int32),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """The codes in the new order."""
        return codes[0].transpose(0, *(axis + 1 for axis in self.permutation))

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart where the last axis stays the last."""
        return () if self.frozen() else same_channels(1, output)

    def frozen(self) -> Iterable[Slot]:
        """Only last axes can lose places: one that moves keeps them all."""
        last = len(self.permutation) - 1
        return () if self.permutation[-1] == last else ((0, -1), (OUTPUT, -1))

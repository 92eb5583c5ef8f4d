"""Functions of one value. In integers each is a table of 256 codes."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import Op, Operand, Params, Shape, TensorType, Tie, same_channels, table
from crosslayer.core.quant import Array


class Unary(Op):
    """y[i] = f(x[i]); a subclass writes f."""

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
        if source.bits > 8 or result.bits > 8:
            raise GraphError("has integer kernels for codes of at most 8 bits only")
        real = source.scale[0] * (np.arange(-128, 128) - source.zero[0]).astype(np.float64)
        steps = self.function(np, real) / result.scale[0]
        codes = np.sign(steps) * np.floor(np.abs(steps) + 0.5) + result.zero[0]
        return {"count": output.size, "table": np.clip(codes, result.lowest, result.highest).astype(np.int8)}

    @final
    def integer(self, params: Params, *codes: Array) -> Array:
        """The table's entries."""
        return table(params, "table")[codes[0].astype(np.int64) + 128]

    @final
    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Channels stay apart."""
        return same_channels(1, output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Relu(Unary):
    """max(x, 0)."""

    def function(self, xp: Any, x: Any) -> Any:
        """max(x, 0)."""
        return xp.clip(x, 0.0, None)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Relu6(Unary):
    """min(max(x, 0), 6)."""

    def function(self, xp: Any, x: Any) -> Any:
        """min(max(x, 0), 6)."""
        return xp.clip(x, 0.0, 6.0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyRelu(Unary):
    """x for x ≥ 0, else slope · x."""

    slope: float = 0.01

    def function(self, xp: Any, x: Any) -> Any:
        """x for x ≥ 0, else slope · x."""
        return xp.where(x < 0, x * self.slope, x)


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

    def function(self, xp: Any, x: Any) -> Any:
        """(1 + tanh(x / 2)) / 2: the same value, without overflow."""
        return 0.5 * (1.0 + xp.tanh(0.5 * x))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tanh(Unary):
    """tanh x."""

    def function(self, xp: Any, x: Any) -> Any:
        """tanh x."""
        return xp.tanh(x)

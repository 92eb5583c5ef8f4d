"""Batch normalization: a float operation of training; folding removes it before integers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import OUTPUT, Op, Operand, Params, Shape, TensorType, Tie, tie
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm(Op):
    """y = gamma · (x − mean) / √(variance + epsilon) + beta, per channel (Ioffe & Szegedy 2015)."""

    operands: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta", "mean", "variance")
    weights: ClassVar[tuple[str, ...]] = ("gamma", "beta", "mean", "variance")

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1:
            raise GraphError(f"epsilon must lie between 0 and 1, not be {self.epsilon}")

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """That of the input."""
        channels = shapes[0][-1]
        if any(s != (channels,) for s in shapes[1:]):
            raise GraphError(f"expects four vectors of {channels} values, got {[list(s) for s in shapes[1:]]}")
        return shapes[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """The normalized values."""
        x, gamma, beta, mean, variance = values
        return (x - mean) * (gamma / xp.sqrt(variance + self.epsilon)) + beta

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """There is none."""
        raise GraphError("has no integer meaning; run FoldNorms before quantizing")

    def integer(self, params: Params, *codes: Array) -> Array:
        """There is none."""
        raise GraphError("has no integer meaning; run FoldNorms before quantizing")

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """A channel with its four constants."""
        yield tie((0, -1), (OUTPUT, -1), output[-1])
        for operand in range(1, 5):
            yield tie((operand, 0), (OUTPUT, -1), output[-1])

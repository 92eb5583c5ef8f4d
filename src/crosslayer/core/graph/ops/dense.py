"""Fully connected layer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import OUTPUT, Op, Operand, Params, Shape, TensorType, Tie, scalar, table, tie
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.graph.ops.products import dense_rescale, finish, product_params
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dense(Op):
    """y = activation(W x + b); x (in,), weight (out, in), bias (out,)."""

    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    weights: ClassVar[tuple[str, ...]] = ("weight", "bias")
    kernel: ClassVar[str] = "dense_s8"
    wide_kernel: ClassVar[str] = "dense_s16"
    channel_axis: ClassVar[int | None] = 0

    activation: Activation = Activation.NONE

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """(out,)."""
        x, weight, bias = shapes
        if len(x) != 1:
            raise GraphError(f"expects a vector, got {list(x)}; put a Reshape before it")
        if len(weight) != 2 or weight[1] != x[0] or bias != (weight[0],):
            raise GraphError(f"expects weight (out, {x[0]}) and bias (out,), got {list(weight)} and {list(bias)}")
        return (weight[0],)

    def real(self, xp: Any, *values: Any) -> Any:
        """`values` = x (batch, in), weight, bias."""
        x, weight, bias = values
        return self.activation.real(xp, x @ weight.T + bias)

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Sizes, zeros, bounds, weights and the rescaling of each output."""
        factors = dense_rescale(operands, output, rounding)
        return {
            "size_in": operands[0].type.shape[0],
            "size_out": output.shape[0],
            **product_params(operands, output, self.channel_axis, self.activation, factors),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """W (x − zero) + b, rescaled."""
        centred = codes[0].astype(np.int64) - scalar(params, "zero_in")
        acc = centred @ table(params, "weight").astype(np.int64).T
        return finish(params, acc + table(params, "bias"))

    def macs(self, shapes: Sequence[Shape], output: Shape) -> int:
        """in · out."""
        return shapes[0][0] * output[0]

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Rows with outputs, columns with inputs."""
        yield tie((0, -1), (1, 1), shapes[0][0])
        yield tie((1, 0), (OUTPUT, -1), output[0])
        yield tie((2, 0), (OUTPUT, -1), output[0])

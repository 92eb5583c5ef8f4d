"""What dense and depthwise convolutions share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import Op, Operand, Params, Shape, TensorType, scalar, table
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.graph.ops.products import conv_rescale, finish, product_params
from crosslayer.core.graph.ops.windows import Windows
from crosslayer.core.quant import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Op):
    """y = activation(b + x ∗ w) over sliding windows; a subclass writes the correlation x ∗ w."""

    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    weights: ClassVar[tuple[str, ...]] = ("weight", "bias")

    windows: Windows
    activation: Activation = Activation.NONE

    @abstractmethod
    def correlate(self, x: Array, weight: Array, fill: int | float) -> Array:
        """Sums of products (batch, h', w', out) of x (batch, h, w, c) and weight; padded places hold `fill`."""

    @abstractmethod
    def sharing(self) -> Mapping[str, int]:
        """How inputs and outputs share channels, as the C kernel names it."""

    @final
    def real(self, xp: Any, *values: Any) -> Any:
        """Correlation of `values` = x, weight, bias."""
        x, weight, bias = values
        return self.activation.real(xp, self.correlate(x, weight, 0.0) + bias)

    @final
    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Geometry, zeros, bounds, weights and the rescaling of each output channel."""
        factors = conv_rescale(operands, output, rounding)
        return {
            **self.windows.params(operands[0].type.shape, output.shape),
            **self.sharing(),
            **product_params(operands, output, self.channel_axis, self.activation, factors),
        }

    @final
    def integer(self, params: Params, *codes: Array) -> Array:
        """Sums of (x − zero) · w + bias, rescaled."""
        kind = np.int64 if params.get("sum_bits") == 64 else np.int32
        weight = table(params, "weight").astype(kind)
        acc = self.correlate(codes[0].astype(kind) - kind(scalar(params, "zero_in")), weight, 0)
        return finish(params, acc + table(params, "bias"))

    @final
    def macs(self, shapes: Sequence[Shape], output: Shape) -> int:
        """One per weight and output place, padding included."""
        return int(np.prod(shapes[1])) * output[0] * output[1]

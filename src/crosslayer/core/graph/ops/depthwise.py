"""Depthwise convolution."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import OUTPUT, Op, Operand, Params, Shape, TensorType, Tie, scalar, table, tie
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.graph.ops.products import conv_rescale, finish, product_params
from crosslayer.core.graph.ops.windows import Windows
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseConv2d(Op):
    """y[p, c·m + j] = activation(b[c·m + j] + Σ_k x[s·p + d·k − pad, c] · w[k, c·m + j]).

    x (h, w, c), weight (kernel_h, kernel_w, c · multiplier), bias (c · multiplier,).
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    weights: ClassVar[tuple[str, ...]] = ("weight", "bias")
    kernel: ClassVar[str] = "depthwise_s8"
    channel_axis: ClassVar[int | None] = 2

    windows: Windows
    multiplier: int = 1
    activation: Activation = Activation.NONE

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """(h', w', c · multiplier)."""
        x, weight, bias = shapes
        high, wide = self.windows.output(x)
        channels = x[2] * self.multiplier
        if weight != (*self.windows.kernel, channels) or bias != (channels,):
            raise GraphError(
                f"weight must be {[*self.windows.kernel, channels]} and bias {[channels]} for {x[2]} channels × "
                f"{self.multiplier}, got {list(weight)} and {list(bias)}"
            )
        return high, wide, channels

    def real(self, xp: Any, *values: Any) -> Any:
        """Correlation of each channel of `values` = x, weight, bias."""
        x, weight, bias = values
        return self.activation.real(xp, self._correlate(x, weight, 0.0) + bias)

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Geometry, zeros, bounds, weights and the rescaling of each output channel."""
        return {
            **self.windows.params(operands[0].type.shape, output.shape),
            "multiplier": self.multiplier,
            **product_params(operands, output, self.activation, conv_rescale(operands, output, rounding)),
        }

    def integer(self, params: Params, *codes: Array) -> Array:
        """Sums of (x − zero) · w + bias, rescaled."""
        weight = table(params, "weight").astype(np.int32)
        acc = self._correlate(codes[0].astype(np.int32) - scalar(params, "zero_in"), weight, 0)
        return finish(params, acc + table(params, "bias"))

    def macs(self, shapes: Sequence[Shape], output: Shape) -> int:
        """One per weight and output place, padding included."""
        return int(np.prod(shapes[1])) * output[0] * output[1]

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Each input channel with its `multiplier` outputs and their kernels."""
        made = np.arange(output[2])
        yield Tie((0, -1), (OUTPUT, -1), made // self.multiplier, made)
        yield tie((1, 2), (OUTPUT, -1), output[2])
        yield tie((2, 0), (OUTPUT, -1), output[2])

    def _correlate(self, x: Array, weight: Array, fill: int | float) -> Array:
        view = self.windows.view(np.repeat(x, self.multiplier, axis=3), fill)
        return np.einsum("nhwcij,ijc->nhwc", view, weight, optimize=True)

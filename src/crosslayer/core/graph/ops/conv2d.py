"""Two-dimensional convolution, grouped or not."""

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
    Slot,
    TensorType,
    Tie,
    scalar,
    table,
    tie,
)
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.graph.ops.products import conv_rescale, finish, product_params
from crosslayer.core.graph.ops.windows import Windows
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(Op):
    """y[p, o] = activation(b[o] + Σ_k x[s·p + d·k − pad, …] · w[o, k, …]).

    x (h, w, c), weight (o, kernel_h, kernel_w, c / groups), bias (o,), y (h', w', o). Padding counts as real zero.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    weights: ClassVar[tuple[str, ...]] = ("weight", "bias")
    kernel: ClassVar[str] = "conv2d_s8"
    channel_axis: ClassVar[int | None] = 0

    windows: Windows
    groups: int = 1
    activation: Activation = Activation.NONE

    def infer(self, shapes: Sequence[Shape]) -> Shape:
        """(h', w', o)."""
        x, weight, bias = shapes
        high, wide = self.windows.output(x)
        if len(weight) != 4 or weight[1:3] != self.windows.kernel:
            raise GraphError(f"weight must be (out, {self.windows.kernel[0]}, {self.windows.kernel[1]}, in / groups)")
        if weight[3] * self.groups != x[2] or weight[0] % self.groups:
            raise GraphError(
                f"expects {weight[3] * self.groups} input channels and outputs in {self.groups} groups, "
                f"got {x[2]} and {weight[0]}"
            )
        if bias != (weight[0],):
            raise GraphError(f"bias must have {weight[0]} values, got {list(bias)}")
        return high, wide, weight[0]

    def real(self, xp: Any, *values: Any) -> Any:
        """Correlation of `values` = x, weight, bias."""
        x, weight, bias = values
        return self.activation.real(xp, self._correlate(x, weight, 0.0) + bias)

    def lower(self, operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Params:
        """Geometry, zeros, bounds, weights and the rescaling of each output channel."""
        return {
            **self.windows.params(operands[0].type.shape, output.shape),
            "groups": self.groups,
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
        """Filters with their outputs, kernels with their inputs."""
        yield tie((1, 0), (OUTPUT, -1), output[2])
        yield tie((2, 0), (OUTPUT, -1), output[2])
        if self.groups == 1:
            yield tie((0, -1), (1, 3), shapes[0][2])

    def frozen(self) -> Iterable[Slot]:
        """With groups, channels cannot go one at a time: the groups must stay equal."""
        return () if self.groups == 1 else ((0, -1), (OUTPUT, -1))

    def _correlate(self, x: Array, weight: Array, fill: int | float) -> Array:
        view = self.windows.view(x, fill)  # (batch, h', w', c, kernel_h, kernel_w)
        parts = [
            np.einsum("nhwcij,oijc->nhwo", part, taps, optimize=True)
            for part, taps in zip(
                np.split(view, self.groups, axis=3), np.split(weight, self.groups, axis=0), strict=True
            )
        ]
        return np.concatenate(parts, axis=-1)

"""Two-dimensional convolution, grouped or not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.operation import OUTPUT, Shape, Tie, tie
from crosslayer.core.graph.ops.convolution import Convolution
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(Convolution):
    """y[p, o] = activation(b[o] + Σ_k x[s·p + d·k − pad, …] · w[o, k, …]).

    x (h, w, c), weight (o, kernel_h, kernel_w, c / groups), bias (o,), y (h', w', o). Padding counts as real zero.
    """

    kernel: ClassVar[str] = "conv2d_s8"
    wide_kernel: ClassVar[str] = "conv2d_s16"
    channel_axis: ClassVar[int | None] = 0

    groups: int = 1

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

    def sharing(self) -> Mapping[str, int]:
        """The number of groups."""
        return {"groups": self.groups}

    def correlate(self, x: Array, weight: Array, fill: int | float) -> Array:
        """Group by group; weight (out, kernel_h, kernel_w, c / groups)."""
        view = self.windows.view(x, fill)  # (batch, h', w', c, kernel_h, kernel_w)
        parts = [
            np.einsum("nhwcij,oijc->nhwo", part, taps, optimize=True)
            for part, taps in zip(
                np.split(view, self.groups, axis=3), np.split(weight, self.groups, axis=0), strict=True
            )
        ]
        return np.concatenate(parts, axis=-1)

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Filters with their outputs, kernels with their inputs; groups stay equal.

        Groups of few inputs, as in a depthwise layer, go whole, with all that they read and make. Of larger ones the
        channels at one position of every group go together.
        """
        yield tie((1, 0), (OUTPUT, -1), output[2])
        yield tie((2, 0), (OUTPUT, -1), output[2])
        inputs, outputs = shapes[1][3], output[2] // self.groups
        read, made = np.arange(shapes[0][2]), np.arange(output[2])
        if self.groups > 1 and self.groups >= inputs:
            yield Tie((0, -1), (0, -1), read // inputs * inputs, read)
            yield Tie((0, -1), (OUTPUT, -1), made // outputs * inputs, made)
        else:
            yield Tie((0, -1), (1, 3), read, read % inputs)
            yield Tie((OUTPUT, -1), (OUTPUT, -1), made % outputs, made)

"""Depthwise convolution."""

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
class DepthwiseConv2d(Convolution):
    """y[p, c·m + j] = activation(b[c·m + j] + Σ_k x[s·p + d·k − pad, c] · w[k, c·m + j]).

    x (h, w, c), weight (kernel_h, kernel_w, c · multiplier), bias (c · multiplier,).
    """

    kernel: ClassVar[str] = "depthwise_s8"
    wide_kernel: ClassVar[str] = "depthwise_s16"
    channel_axis: ClassVar[int | None] = 2

    multiplier: int = 1

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

    def sharing(self) -> Mapping[str, int]:
        """Outputs per input channel."""
        return {"multiplier": self.multiplier}

    def correlate(self, x: Array, weight: Array, fill: int | float) -> Array:
        """Channel by channel; weight (kernel_h, kernel_w, out)."""
        view = self.windows.view(np.repeat(x, self.multiplier, axis=3), fill)
        return np.einsum("nhwcij,ijc->nhwc", view, weight, optimize=True)

    def ties(self, shapes: Sequence[Shape], output: Shape) -> Iterable[Tie]:
        """Each input channel with its `multiplier` outputs and their kernels."""
        made = np.arange(output[2])
        yield Tie((0, -1), (OUTPUT, -1), made // self.multiplier, made)
        yield tie((1, 2), (OUTPUT, -1), output[2])
        yield tie((2, 0), (OUTPUT, -1), output[2])

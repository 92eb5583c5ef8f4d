"""Sliding windows over height and width: the geometry that convolutions and pools share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.operation import Shape
from crosslayer.core.quant import Array

Pair = tuple[int, int]
Margins = tuple[int, int, int, int]
"""top, bottom, left, right"""

_LARGEST = 1 << 16  # so that no sum of them leaves 32 bits, here and in C


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Where a kernel lies: size, stride, dilation and padding, each (height, width)."""

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Margins = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise GraphError(f"kernel, stride and dilation must be at least 1, padding at least 0: {self}")
        if max(*self.kernel, *self.stride, *self.dilation, *self.padding) >= _LARGEST:
            raise GraphError(f"kernel, stride, dilation and padding must be less than {_LARGEST}: {self}")

    def reach(self) -> Pair:
        """Height and width that one window spans."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def output(self, shape: Shape) -> Pair:
        """Height and width of the result for an input (height, width, channels)."""
        if len(shape) != 3:
            raise GraphError(f"expects an input (height, width, channels), got {list(shape)}; put a Reshape before it")
        top, bottom, left, right = self.padding
        (rh, rw), (sh, sw) = self.reach(), self.stride
        high, wide = shape[0] + top + bottom - rh, shape[1] + left + right - rw
        if high < 0 or wide < 0:
            raise GraphError(
                f"the window spans {rh}×{rw}, more than the padded input of {list(shape)}; "
                "use a smaller kernel or a larger input"
            )
        return high // sh + 1, wide // sw + 1

    def view(self, x: Array, fill: float | int) -> Array:
        """Windows (batch, out_h, out_w, channels, kernel_h, kernel_w) of `x` (batch, h, w, channels), without a copy
        where there is no padding; padded places hold `fill`."""
        top, bottom, left, right = self.padding
        if any(self.padding):
            x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
        rh, rw = self.reach()
        windows = np.lib.stride_tricks.sliding_window_view(x, (rh, rw), (1, 2))
        return windows[:, :: self.stride[0], :: self.stride[1], :, :: self.dilation[0], :: self.dilation[1]]

    def counts(self, shape: Shape) -> Array:
        """How many places of each window lie inside the input: (out_h, out_w)."""
        starts = self.padding[0], self.padding[2]
        sides = zip(shape[:2], self.output(shape), self.kernel, self.stride, self.dilation, starts, strict=True)
        rows, columns = (_inside(*side) for side in sides)
        return rows[:, None] * columns

    def params(self, shape: Shape, output: Shape) -> dict[str, int]:
        """The geometry as integers, named as in the C kernels."""
        return {
            "in_h": shape[0],
            "in_w": shape[1],
            "in_c": shape[2],
            "out_h": output[0],
            "out_w": output[1],
            "out_c": output[2],
            "kernel_h": self.kernel[0],
            "kernel_w": self.kernel[1],
            "stride_h": self.stride[0],
            "stride_w": self.stride[1],
            "dilation_h": self.dilation[0],
            "dilation_w": self.dilation[1],
            "pad_top": self.padding[0],
            "pad_left": self.padding[2],
        }


def _inside(size: int, places: int, kernel: int, stride: int, dilation: int, before: int) -> Array:
    """How many places of each window lie inside, along one side."""
    start = np.arange(places) * stride - before
    first = np.maximum(-(start // dilation), 0)
    end = np.minimum(-((start - size) // dilation), kernel)
    return np.maximum(end - first, 0)


def same(shape: Sequence[int], kernel: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Margins:
    """The padding that makes ceil(size / stride) outputs, the odd place at the end (TensorFlow `SAME`).

    >>> same((32, 32, 3), (3, 3), (2, 2))
    (0, 1, 0, 1)
    """
    margins: list[int] = []
    for size, k, s, d in zip(shape[:2], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        margins += [total // 2, total - total // 2]
    return margins[0], margins[1], margins[2], margins[3]

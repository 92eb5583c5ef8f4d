"""One operator of an ONNX file, as the functions that read operators see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops.windows import Margins, Pair, Windows, same
from crosslayer.core.quant import Array
from crosslayer.read.channels_first import ChannelsFirst
from crosslayer.read.folding import FOLDS
from crosslayer.read.onnx_file import Attributes
from crosslayer.read.problems import Unreadable
from crosslayer.read.shapes import axis_of, pair
from crosslayer.read.tensors import Fixed, Live, Tensor, constant


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One operator of the file, applied."""

    build: ChannelsFirst
    opset: int
    inputs: Sequence[Tensor | None]
    attributes: Attributes

    def is_constant(self, operator: str) -> bool:
        """True if the operator is computed while reading."""
        if operator in ("Shape", "Size"):
            return True
        return operator in FOLDS and all(tensor is None or isinstance(tensor, Fixed) for tensor in self.inputs)

    def fold(self, operator: str) -> Fixed:
        """The result as a constant."""
        arrays: list[Array | None] = []
        for tensor in self.inputs:
            if isinstance(tensor, Live):
                arrays.append(np.empty(0) if operator not in ("Shape", "Size") else np.asarray(tensor.shape, np.int64))
            else:
                arrays.append(None if tensor is None else tensor.real())
        if operator in ("Shape", "Size") and isinstance(self.inputs[0], Fixed):
            arrays = [np.asarray(self.inputs[0].shape, np.int64)]
        return Fixed(value=FOLDS[operator](self.build.spend, self.attributes, *arrays))

    def tensor(self, i: int) -> Tensor:
        """An operand that must be there."""
        found = self.inputs[i] if i < len(self.inputs) else None
        if found is None:
            raise Unreadable(f"lacks its operand {i}", "export it again")
        return found

    def live(self, i: int = 0) -> Live:
        """An operand as one that is computed at run time."""
        return self.build.live(self.tensor(i))

    def fixed(self, i: int) -> Fixed:
        """A constant operand."""
        return constant(self.tensor(i), f"operand {i}")

    def optional(self, i: int) -> Fixed | None:
        """A constant operand that may be absent."""
        return self.fixed(i) if i < len(self.inputs) and self.inputs[i] is not None else None

    def integers(self, i: int, attribute: str) -> tuple[int, ...] | None:
        """A list of integers that is an attribute in old versions and an operand in new ones; None if absent."""
        if attribute in self.attributes:
            return self.attributes.integers(attribute)
        given = self.optional(i)
        return None if given is None else tuple(int(value) for value in given.value.ravel())

    def axis(self, rank: int, default: int) -> int:
        """The attribute `axis`, counted from 0."""
        return axis_of(self.attributes.integer("axis", default), rank)

    def windows(self, x: Live, kernel: Shape) -> Windows:
        """Where a kernel lies, from the attributes that convolutions and pools share."""
        sides = x.shape[2:]
        ones = (1,) * len(sides)
        if not len(sides) == len(kernel) == len(self.attributes.integers("kernel_shape") or kernel):
            raise Unreadable(f"has a kernel {list(kernel)} on {list(x.shape)}", "correct the shapes")
        stride = pair(self.attributes.integers("strides") or ones)
        dilation = pair(self.attributes.integers("dilations") or ones)
        size = pair(kernel)
        plain = Windows(kernel=size, stride=stride, dilation=dilation)
        return replace(plain, padding=self._margins(pair(sides), plain))

    def pool_windows(self, x: Live) -> Windows:
        """The windows of a pool."""
        kernel = self.attributes.integers("kernel_shape")
        if kernel is None or self.attributes.integer("storage_order", 0):
            raise Unreadable("has no kernel, or stores columns first", "use a plain pool")
        return self.windows(x, kernel)

    def _margins(self, sides: Pair, windows: Windows) -> Margins:
        mode = self.attributes.text("auto_pad", "NOTSET")
        if mode in ("NOTSET", ""):
            pads = self.attributes.integers("pads") or (0, 0)
            if len(pads) == 2:
                pads = (0, pads[0], 0, pads[1])
            if len(pads) != 4:
                raise Unreadable(f"has the margins {list(pads)}", "give two for each axis")
            return pads[0], pads[2], pads[1], pads[3]
        if mode == "VALID":
            return 0, 0, 0, 0
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            raise Unreadable(f"has auto_pad '{mode}'", "use explicit margins")
        top, bottom, left, right = same(sides, windows.kernel, windows.stride, windows.dilation)
        return (top, bottom, left, right) if mode == "SAME_UPPER" else (bottom, top, right, left)


Operator = Callable[[Call], Tensor]
"""Writes what the operator does, and returns its first result."""

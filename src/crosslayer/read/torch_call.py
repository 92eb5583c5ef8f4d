"""One operation of an exported PyTorch program, as the functions that read operations see it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops.windows import Margins, Pair, Windows, same
from crosslayer.read.channels_first import ChannelsFirst
from crosslayer.read.problems import Unreadable
from crosslayer.read.pt2_file import Argument
from crosslayer.read.shapes import axis_of, pair
from crosslayer.read.tensors import Fixed, Live, Tensor, constant

REPLACE = "replace it by operations that are supported, or export to ONNX"
"""What to do about an operation, or a form of one, that is not supported."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One operation of the program, applied. Arguments that the file leaves out have the default that is given."""

    build: ChannelsFirst
    arguments: Mapping[str, Argument]
    values: Mapping[str, Tensor | int]

    def tensor(self, name: str) -> Tensor:
        """A tensor, or a number as one."""
        told = self.arguments.get(name)
        if told is not None and told.kind in ("as_float", "as_int"):
            return Fixed(value=np.asarray(float(told.value)))
        found = None if told is None or told.kind != "as_tensor" else self.values[told.value]
        if found is None or isinstance(found, int):
            raise Unreadable(f"lacks the tensor '{name}'", "save it again")
        return found

    def live(self, name: str) -> Live:
        """A tensor as one that is computed at run time."""
        return self.build.live(self.tensor(name))

    def fixed(self, name: str) -> Fixed:
        """A constant tensor."""
        return constant(self.tensor(name), f"'{name}'")

    def optional(self, name: str) -> Fixed | None:
        """A constant tensor that may be absent."""
        told = self.arguments.get(name)
        return None if told is None or told.kind == "as_none" else self.fixed(name)

    def tensors(self, name: str) -> list[Tensor]:
        """A list of tensors."""
        told = self.arguments.get(name)
        found = [self.values[item] for item in told.value] if told is not None and told.kind == "as_tensors" else []
        tensors = [item for item in found if not isinstance(item, int)]
        if not tensors or len(tensors) != len(found):
            raise Unreadable(f"lacks the tensors '{name}'", "save it again")
        return tensors

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer, also one that the program computes from shapes."""
        found = self.integers(name, None if default is None else (default,))
        if len(found) != 1:
            raise Unreadable(f"has {len(found)} numbers as its '{name}'", "save it again")
        return found[0]

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers, or one."""
        told = self.arguments.get(name)
        if told is None or told.kind == "as_none":
            if default is None:
                raise Unreadable(f"lacks '{name}'", "save it again")
            return tuple(default)
        items = told.value if told.kind in ("as_ints", "as_sym_ints") else [told.value]
        return tuple(self._number(item) for item in items)

    def _number(self, item: Any) -> int:
        if isinstance(item, Argument):
            item = item.value
        if isinstance(item, str):
            item = self.values.get(item)
        if not isinstance(item, int) or not -(2**63) <= item < 2**63:
            raise Unreadable("has something else where an integer is expected", "save it again")
        return int(item)

    def real(self, name: str, default: float) -> float:
        """A finite real number."""
        told = self.arguments.get(name)
        value = default if told is None or told.kind == "as_none" else told.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(float(value)):
            raise Unreadable(f"has {value!r} as its '{name}'", "use a finite number")
        return float(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """One number, or those of a constant tensor."""
        return tuple(float(value) for value in self.fixed(name).real().ravel())

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false."""
        told = self.arguments.get(name)
        return default if told is None or told.kind == "as_none" else bool(told.value)

    def text(self, name: str, default: str) -> str:
        """A text."""
        told = self.arguments.get(name)
        return default if told is None or told.kind != "as_string" else str(told.value)

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """An axis, counted from 0; a scalar has one axis, as in PyTorch."""
        return axis_of(self.integer(name, default), max(rank, 1))

    def axes(self, name: str, rank: int, default: Sequence[int] | None = None) -> list[int]:
        """Axes, each as `axis` counts it."""
        return [axis_of(axis, max(rank, 1)) for axis in self.integers(name, default)]

    def windows(self, x: Live, kernel: Sequence[int], stride: Sequence[int]) -> Windows:
        """Where a kernel lies, from the arguments that convolutions and pools share."""
        slid = len(x.shape) - 2
        size, step = pair(spread(kernel, slid)), pair(spread(stride, slid))
        dilation = pair(spread(self.integers("dilation", (1,)), slid))
        margins = self._margins(x.shape[2:], size, dilation)
        return Windows(kernel=size, stride=step, dilation=dilation, padding=margins)

    def _margins(self, sides: Shape, kernel: Pair, dilation: Pair) -> Margins:
        told = self.text("padding", "")
        if told == "same":  # of convolutions with stride 1
            return same(pair(sides), kernel, (1, 1), dilation)
        if told == "valid":
            return 0, 0, 0, 0
        if told:
            raise Unreadable(f"has the padding '{told}'", "use 'same', 'valid' or numbers")
        margins = spread(self.integers("padding", (0,)), len(sides))
        high, wide = (0, margins[0]) if len(sides) == 1 else pair(margins)
        return high, high, wide, wide


Operation = Callable[[Call], Tensor | int]
"""Writes what the operation does, and returns its first result: a tensor, or a number that shapes give."""


def spread(values: Sequence[int], count: int) -> tuple[int, ...]:
    """One number for each axis; PyTorch lets one stand for all.

    >>> spread([3], 2)
    (3, 3)
    """
    if len(values) not in (1, count):
        raise Unreadable(f"has {len(values)} numbers for {count} axes", "give one for each axis")
    return tuple(values) if len(values) == count else tuple(values) * count

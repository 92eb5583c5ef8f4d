"""One node as the firmware runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from crosslayer.core.fixed import Rescale
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Weights
from crosslayer.core.graph.ops.windows import Windows
from crosslayer.core.quant import Array
from crosslayer.kernels.tally import Tally


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """An array of C structs: the name of their type, and the nested values of each."""

    kind: str
    rows: tuple[Any, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """That many codes of real zero; layers with the same code share one table."""

    code: int
    count: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A kernel makes `count` rows one by one; each reads `taps` rows of every input, from r · stride − pad on."""

    count: int
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0

    @staticmethod
    def of(windows: Windows, height: int) -> "Rows":
        """Those of sliding windows with `height` results."""
        return Rows(
            count=height,
            taps=windows.kernel[0],
            stride=windows.stride[0],
            dilation=windows.dilation[0],
            pad=windows.padding[0],
        )

    def last(self, row: int, height: int) -> int:
        """The last row of an input of that height that a call reads."""
        return min(row * self.stride - self.pad + (self.taps - 1) * self.dilation, height - 1)

    def first(self, row: int) -> int:
        """The first row of an input that a call reads."""
        return max(row * self.stride - self.pad, 0)


WEIGHTS = ("weight", "mask", "stored")
"""Fields that hold a layer's weights, which may lie in a memory of their own."""

Fields = Mapping[str, "int | float | Array | Weights | Rescale | Records | Padding"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A kernel, the constants of its struct, and the rows in which it is called.

    `unit`: set where the kernel is compiled once and has the type `cl_kernel`; others are specialised where called.
    `forward`: in a call it reads the places of its inputs in order, and writes no place's result before that is read.
    `taps`: how many places it looks at for one result, if it keeps their addresses.
    """

    kernel: str
    fields: Fields
    rows: Rows = Rows(count=1)
    scratch: int = 0
    unit: "Kernel | None" = None
    forward: bool = False
    taps: int = 1


class Kernel(ABC):
    """A C kernel for some nodes of an integer graph. A subclass is a frozen dataclass without fields."""

    @abstractmethod
    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """How it runs a node, row by row if asked for; None if it cannot."""

    @abstractmethod
    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """Counts how often each part of its C runs in one call, of which not all rows of the inputs lie `inside`.

        Mirrors the control flow of the C, which depends on `fields` alone and not on data.
        """

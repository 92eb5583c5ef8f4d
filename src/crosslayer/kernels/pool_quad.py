"""Largest or mean code of windows, four channels at a time."""

from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.graph.ops import AveragePool, MaxPool
from crosslayer.kernels.call import Call, Kernel, Rows

_MOST_IN_A_ROW = 255  # sums of that many codes fit 16 bits
_GEOMETRY = ("in_w", "out_w", "kernel_h", "kernel_w", "stride_w", "dilation_w", "pad_left")


@final
@dataclass(frozen=True, slots=True)
class PoolQuad(Kernel):
    """`pool_quad.c`."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 codes and four channels or more."""
        if not isinstance(node.op, AveragePool | MaxPool):
            return None
        params = graph.lowered[node.name]
        windows, height = node.op.windows, scalar(params, "out_h")
        if scalar(params, "wide") or scalar(params, "out_c") < 4 or windows.kernel[1] > _MOST_IN_A_ROW:
            return None
        whole = height == 1 and windows.dilation[0] == 1 and windows.padding[:2] == (0, 0) and not by_rows
        return Call(
            kernel="pool_quad",
            fields={
                **{name: scalar(params, name) for name in _GEOMETRY},
                "channels": scalar(params, "out_c"),
                "largest": int(isinstance(node.op, MaxPool)),
                "whole": int(whole),
            },
            rows=Rows(count=1) if whole else Rows.of(windows, height),
        )

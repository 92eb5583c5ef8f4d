"""Largest or mean code of windows, four channels at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.graph.ops import AveragePool, MaxPool
from crosslayer.kernels.call import Call, Kernel, Rows
from crosslayer.kernels.tally import Tally

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
            unit=self,
            fields={
                **{name: scalar(params, name) for name in _GEOMETRY},
                "channels": scalar(params, "out_c"),
                "largest": int(isinstance(node.op, MaxPool)),
                "whole": int(whole),
            },
            rows=Rows(count=1) if whole else Rows.of(windows, height),
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        kind = f"pool_quad {fields['largest']} {fields['whole']}"
        apart, channels = fields["dilation_w"], fields["channels"]
        rows = [True] * fields["kernel_h"] if fields["whole"] else list(inside)
        tally.add("pool_quad")
        for ox in range(fields["out_w"]):
            left = ox * fields["stride_w"] - fields["pad_left"]
            first, end = 0, fields["kernel_w"]
            while left + first * apart < 0:
                first += 1
            while left + (end - 1) * apart >= fields["in_w"]:
                end -= 1
            tally.add("pool_quad window")
            tally.loop("pool_quad before", first)
            tally.loop("pool_quad behind", fields["kernel_w"] - end)
            for channel in range(0, channels, 4):
                tally.add(f"{kind} {channel + 4 <= channels}")
                tally.loop(f"{kind} rows", len(rows))
                for there in rows:
                    tally.add(f"{kind} row {there}")
                    if there:
                        tally.loop(f"{kind} columns", max(0, end - first))

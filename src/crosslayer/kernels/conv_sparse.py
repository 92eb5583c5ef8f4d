"""Convolution whose weights are mostly zero, four places at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar, table
from crosslayer.core.graph.ops import Conv2d, Windows
from crosslayer.kernels.call import Call, Kernel, Padding, Rows
from crosslayer.kernels.sparse import row_trips, sparse_fields
from crosslayer.kernels.tally import Tally, where


@final
@dataclass(frozen=True, slots=True)
class ConvSparse(Kernel):
    """`conv_sparse.c`. A 1×1 convolution of stride 1 is one row of all its places, unless rows are asked for."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 weights with enough zeros, and no groups."""
        if not isinstance(node.op, Conv2d) or node.op.groups != 1 or graph.kernel(node) != "conv2d_s8":
            return None
        params = graph.lowered[node.name]
        fields = sparse_fields(params)
        if fields is None:
            return None
        geometry = {name: scalar(params, name) for name in _GEOMETRY}
        rows, forward = Rows.of(node.op.windows, scalar(params, "out_h")), False
        if not by_rows and node.op.windows == Windows(kernel=(1, 1)):
            geometry |= {side: geometry[side] * rows.count for side in ("in_w", "out_w")}
            rows, forward = Rows(count=1), True
        padding = Padding(code=scalar(params, "zero_in"), count=geometry["in_c"])
        return Call(
            kernel="conv_sparse",
            unit=self,
            fields={**geometry, "padding": padding, **fields},
            rows=rows,
            forward=forward,
            scratch=4 * table(params, "weight")[0].size,
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        tally.add("conv_sparse")
        for ox in range(0, fields["out_w"], 4):
            places = min(4, fields["out_w"] - ox)
            for place in range(ox, ox + places):
                _gather(fields, inside, place * fields["stride_w"] - fields["pad_left"], tally)
            walk = "four" if places > 1 else "one"
            tally.add(f"conv_sparse {walk} {places == 4}")
            tally.add(f"conv_sparse {walk} results", places * fields["out_c"])
            row_trips(f"conv_sparse {walk}", fields, fields["out_c"], tally)


def _gather(fields: Mapping[str, int], inside: Sequence[bool], left: int, tally: Tally) -> None:
    in_w, kernel_w, apart = fields["in_w"], fields["kernel_w"], fields["dilation_w"]
    within = apart == 1 and left >= 0 and left + kernel_w <= in_w
    tally.add(f"conv_sparse gather {apart == 1} {left >= 0} {within}")
    for there in inside:
        whole = within and there
        tally.add(f"conv_sparse gather row {within} {there}")
        fours, rest = divmod((kernel_w if whole else 1) * fields["in_c"], 4)
        for kx in range(1 if whole else kernel_w):
            tally.add(f"conv_sparse gather run {where(there, left + kx * apart, in_w)} {fours > 0}")
            tally.loop("conv_sparse gather fours", fours)
            tally.loop("conv_sparse gather codes", rest)


_GEOMETRY = ("in_w", "in_c", "out_w", "out_c", "kernel_h", "kernel_w", "stride_w", "dilation_w", "pad_left")

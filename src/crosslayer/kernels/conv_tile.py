"""Dense convolution, two places and two channels at a time."""

from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar, table
from crosslayer.core.graph.ops import Conv2d
from crosslayer.core.quant import Array
from crosslayer.kernels.call import Call, Kernel, Padding, Records, Rows
from crosslayer.kernels.requant import groups, layer_constants, records


@final
@dataclass(frozen=True, slots=True)
class ConvTile(Kernel):
    """`conv_tile.c`. A 1×1 convolution of stride 1 is one row of all its places, unless rows are asked for."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 weights, no groups, and two output channels or more."""
        if not isinstance(node.op, Conv2d) or node.op.groups != 1 or graph.kernel(node) != "conv2d_s8":
            return None
        params = graph.lowered[node.name]
        constants = layer_constants(params, 0)
        if constants is None or scalar(params, "out_c") < 2:
            return None
        weight = table(params, "weight")
        picked = groups(len(weight), 2)
        places = int(np.prod(weight.shape[1:]))
        blocks = -(-places // 4)
        geometry = {name: scalar(params, name) for name in _GEOMETRY}
        rows = Rows.of(node.op.windows, scalar(params, "out_h"))
        if not by_rows and rows == Rows(count=rows.count) and geometry["kernel_w"] == geometry["stride_w"] == 1:
            if node.op.windows.padding == (0, 0, 0, 0):
                geometry |= {side: geometry[side] * rows.count for side in ("in_w", "out_w")}
                rows = Rows(count=1)
        return Call(
            kernel="conv_tile",
            fields={
                **geometry,
                "blocks": blocks,
                "padding": Padding(code=scalar(params, "zero_in"), count=geometry["in_c"]),
                "weight": _packed(weight, picked, blocks),
                "records": Records(kind="cl_pair", rows=records(*constants, picked)),
            },
            rows=rows,
            forward=places == geometry["in_c"],
            scratch=16 * blocks + (8 * blocks if geometry["in_c"] % 4 else 0),
        )


_GEOMETRY = (
    *("in_w", "in_c", "out_w", "out_c", "kernel_h", "kernel_w", "stride_w", "dilation_w", "pad_left"),
    "zero_out",
)


def _packed(weight: Array, picked: list[list[int]], blocks: int) -> Array:
    """(pairs, blocks, 2, 4), zeros at the end of a patch."""
    flat = weight.reshape(len(weight), -1)
    filled = np.pad(flat, ((0, 0), (0, 4 * blocks - flat.shape[1])))
    return filled.reshape(len(weight), blocks, 4)[np.array(picked)].transpose(0, 2, 1, 3).astype(np.int8)

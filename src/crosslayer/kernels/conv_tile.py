"""Dense convolution, two places and two channels at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar, table
from crosslayer.core.graph.ops import Conv2d, Windows
from crosslayer.core.quant import Array
from crosslayer.kernels.call import Call, Kernel, Padding, Records, Rows
from crosslayer.kernels.requant import groups, layer_constants, records
from crosslayer.kernels.tally import Tally, where


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
        rows, forward = Rows.of(node.op.windows, scalar(params, "out_h")), False
        if not by_rows and node.op.windows == Windows(kernel=(1, 1)):
            geometry |= {side: geometry[side] * rows.count for side in ("in_w", "out_w")}
            rows, forward = Rows(count=1), True
        return Call(
            kernel="conv_tile",
            unit=self,
            fields={
                **geometry,
                "blocks": blocks,
                "padding": Padding(code=scalar(params, "zero_in"), count=geometry["in_c"]),
                "weight": _packed(weight, picked, blocks),
                "records": Records(kind="cl_pair", rows=records(*constants, picked)),
            },
            rows=rows,
            forward=forward,
            scratch=16 * blocks + (8 * blocks if geometry["in_c"] % 4 else 0),
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        pairs, odd = divmod(fields["out_c"], 2)
        step = fields["stride_w"]
        tally.add("conv_tile")
        for ox in range(0, fields["out_w"], 2):
            left = ox * step - fields["pad_left"]
            two = ox + 1 < fields["out_w"]
            _gather(fields, inside, left, left + step if two else left, tally)
            tile = "tile_two" if two else "tile_one"
            tally.add(f"conv_tile {tile} {odd}")
            tally.loop(f"{tile} blocks", fields["blocks"], pairs + odd)


def _gather(fields: Mapping[str, int], inside: Sequence[bool], left: int, right: int, tally: Tally) -> None:
    in_w, in_c, kernel_w, apart = (fields[name] for name in ("in_w", "in_c", "kernel_w", "dilation_w"))
    within = apart == 1 and left >= 0 and right + kernel_w <= in_w
    one = within and kernel_w * fields["kernel_h"] == 1
    words = in_c % 4 == 0
    tally.add(f"gather {apart == 1} {left >= 0} {within} {one} {right + 3 < in_w} {inside[0]}")
    if one and right + 3 < in_w and inside[0]:
        tally.loop("gather one", fields["blocks"])
        return
    for there in inside:
        whole = within and there
        tally.add(f"gather row {words} {within} {there}")
        for kx in range(1 if whole else kernel_w):
            sides = [where(there, at + kx * apart, in_w) for at in (left, right)]
            tally.add(f"gather run {words} {sides[0]} {sides[1]}")
            codes = kernel_w * in_c if whole else in_c
            if words:
                tally.loop("gather words", codes // 4)
            else:
                tally.loop("gather copied", codes)
                tally.loop("gather copied in words", (codes - 1) // 4 if codes >= 4 else 0)
                tally.loop("gather copied, few", codes if codes < 4 else 0)
    if not words:
        tally.loop("gather blocks", fields["blocks"])


_GEOMETRY = (
    *("in_w", "in_c", "out_w", "out_c", "kernel_h", "kernel_w", "stride_w", "dilation_w", "pad_left"),
    "zero_out",
)


def _packed(weight: Array, picked: list[list[int]], blocks: int) -> Array:
    """(pairs, blocks, 2, 4), zeros at the end of a patch."""
    flat = weight.reshape(len(weight), -1)
    filled = np.pad(flat, ((0, 0), (0, 4 * blocks - flat.shape[1])))
    return filled.reshape(len(weight), blocks, 4)[np.array(picked)].transpose(0, 2, 1, 3).astype(np.int8)

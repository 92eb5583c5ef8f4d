"""Depthwise convolution, four channels at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar, table
from crosslayer.core.graph.ops import DepthwiseConv2d
from crosslayer.kernels.call import Call, Kernel, Padding, Records, Rows
from crosslayer.kernels.requant import groups, layer_constants, records
from crosslayer.kernels.tally import Tally, where

_GEOMETRY = ("in_w", "out_w", "kernel_h", "kernel_w", "stride_w", "dilation_w", "pad_left", "zero_out")


@final
@dataclass(frozen=True, slots=True)
class DepthwiseQuad(Kernel):
    """`depthwise_quad.c`. Weights are stored as int16, which saves their unpacking."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 weights, one output to a channel, and four channels or more."""
        if not isinstance(node.op, DepthwiseConv2d) or graph.kernel(node) != "depthwise_s8":
            return None
        params = graph.lowered[node.name]
        constants = layer_constants(params, 2)
        channels = scalar(params, "out_c")
        if constants is None or node.op.multiplier != 1 or channels < 4:
            return None
        weight = table(params, "weight")
        picked = groups(channels, 4)
        order = np.array(picked)[:, (0, 2, 1, 3)]
        taps = weight.reshape(-1, channels)
        return Call(
            kernel="depthwise_quad",
            unit=self,
            fields={
                **{name: scalar(params, name) for name in _GEOMETRY},
                "channels": channels,
                "padding": Padding(code=scalar(params, "zero_in"), count=scalar(params, "in_w") * channels),
                "weight": taps[:, order].transpose(1, 0, 2).astype(np.int16),
                "records": Records(kind="cl_quad", rows=records(*constants, picked)),
            },
            rows=Rows.of(node.op.windows, scalar(params, "out_h")),
            taps=len(taps),
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        in_w, out_w, step = fields["in_w"], fields["out_w"], fields["stride_w"]
        quads, rest = divmod(fields["channels"], 4)
        taps = fields["kernel_h"] * fields["kernel_w"]
        reach = (fields["kernel_w"] - 1) * fields["dilation_w"]
        tally.add("depthwise_quad")
        ox, left = 0, -fields["pad_left"]
        while ox < out_w:
            run = 1
            while left >= 0 and ox + run < out_w and left + run * step + reach < in_w:
                run += 1
            ends = "none" if left < 0 else "output" if ox + run >= out_w else "input"
            tally.add(f"depthwise_quad run {ends} {run > 1}")
            tally.loop("depthwise_quad places", run - 1)
            for there in inside:
                tally.add(f"depthwise_quad row {there}")
                tally.loop("depthwise_quad taps", fields["kernel_w"])
                for kx in range(fields["kernel_w"]):
                    tally.add(f"depthwise_quad tap {where(there, left + kx * fields['dilation_w'], in_w)}")
            tally.add(f"depthwise_quad rest {rest > 0}")
            for count in (quads, 1) if rest else (quads,):
                tally.add("depthwise_quad calls")
                tally.add("depthwise_quad pixels", run)
                tally.loop("depthwise_quad sums", taps, run * count)
            ox, left = ox + run, left + run * step

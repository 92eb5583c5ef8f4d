"""Fully connected layer, four outputs at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar, table
from crosslayer.core.graph.ops import Dense
from crosslayer.kernels.call import Call, Kernel, Records
from crosslayer.kernels.requant import groups, layer_constants
from crosslayer.kernels.tally import Tally


@final
@dataclass(frozen=True, slots=True)
class DenseQuad(Kernel):
    """`dense_quad.c`."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 weights; once, for everything. Of fewer than four outputs the rest fills their last word."""
        if not isinstance(node.op, Dense) or graph.kernel(node) != "dense_s8" or by_rows:
            return None
        params = graph.lowered[node.name]
        constants = layer_constants(params, 0)
        size_in, size_out = scalar(params, "size_in"), scalar(params, "size_out")
        if constants is None:
            return None
        bias, requants = constants
        picked = groups(size_out, 4) if size_out >= 4 else [[min(o, size_out - 1) for o in range(4)]]
        blocks = -(-size_in // 4)
        per_channel = len(set(requants)) > 1
        filled = np.pad(table(params, "weight"), ((0, 0), (0, 4 * blocks - size_in))).reshape(size_out, blocks, 4)
        return Call(
            kernel="dense_quad",
            unit=self,
            fields={
                "blocks": blocks,
                "size_out": max(size_out, 4),
                "zero_out": scalar(params, "zero_out"),
                "per_channel": int(per_channel),
                "weight": filled[np.array(picked)].transpose(0, 2, 1, 3).astype(np.int8),
                "bias": bias[np.array(picked)].astype(np.int32),
                "requant": Records(
                    kind="cl_requant",
                    rows=tuple(requants[o] for group in picked for o in group) if per_channel else requants[:1],
                ),
            },
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        quads, rest = divmod(fields["size_out"], 4)
        tally.add(f"dense_quad {fields['per_channel']} {rest > 0}")
        tally.add("dense_quad calls", 1 + (rest > 0))
        tally.loop("dense_quad blocks", fields["blocks"], quads + (rest > 0))

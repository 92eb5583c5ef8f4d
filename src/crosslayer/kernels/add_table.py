"""Sum of two values, one of its terms from a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.fixed import Rule
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import rescaler, scalar
from crosslayer.core.graph.ops import Add
from crosslayer.kernels.call import Call, Kernel, Rows
from crosslayer.kernels.requant import plain_codes, requants
from crosslayer.kernels.tally import Tally


@final
@dataclass(frozen=True, slots=True)
class AddTable(Kernel):
    """`add_table.c`. The operand of the larger scale is only shifted; the other's term is one of 256."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 codes in fixed point."""
        if not isinstance(node.op, Add) or graph.kernel(node) != "add_s8":
            return None
        params = graph.lowered[node.name]
        if "rescale" not in params or rescaler(params).rule is not Rule.DOUBLE or not plain_codes(params):
            return None
        row = requants(rescaler(params), scalar(params, "zero_out"), np.array([1 << 30]))
        shape = graph.types[node.name].shape
        codes, headroom = np.arange(-128, 128, dtype=np.int64), scalar(params, "headroom")
        terms, plain = {}, {}
        for side in ("a", "b"):
            shifted = (codes - scalar(params, f"zero_{side}")) << headroom
            terms[side] = 2 * rescaler(params, f"rescale_{side}")(shifted)
            plain[side] = headroom == 20 and bool((terms[side] == shifted).all())
        if row is None or not any(plain.values()) or (by_rows and len(shape) != 3):
            return None
        straight, other = ("a", "b") if plain["a"] else ("b", "a")
        table = terms[other] - (scalar(params, f"zero_{straight}") << headroom)
        mult, offset, shift = row[0]
        rows = Rows(count=shape[0] if by_rows else 1)
        return Call(
            kernel="add_table",
            unit=self,
            fields={
                "count": scalar(params, "count") // rows.count,
                "swap": int(straight == "b"),
                "mult": mult,
                "offset": offset,
                "shift": shift,
                "terms": table.astype(np.int32),
            },
            rows=rows,
            forward=True,
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        tally.add("add_table")
        tally.loop("add_table codes", fields["count"])

"""Softmax with all powers in a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.graph.ops import Softmax
from crosslayer.core.graph.ops.softmax import fixed_powers
from crosslayer.kernels.call import Call, Kernel
from crosslayer.kernels.tally import Tally


@final
@dataclass(frozen=True, slots=True)
class SoftmaxTable(Kernel):
    """`softmax_table.c`."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 codes in fixed point."""
        if not isinstance(node.op, Softmax) or graph.kernel(node) != "softmax_s8" or by_rows:
            return None
        params = graph.lowered[node.name]
        if "mult" not in params:
            return None
        powers = fixed_powers(params)
        powers = powers[: min(int(np.count_nonzero(powers)) + 1, len(powers))]
        return Call(
            kernel="softmax_table",
            unit=self,
            fields={
                "rows": scalar(params, "rows"),
                "depth": scalar(params, "depth"),
                "last": len(powers) - 1,
                "powers": powers.astype(np.int32),
            },
        )

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        tally.add("softmax_table")
        tally.add("softmax_table rows", fields["rows"])
        tally.loop("softmax_table peak", fields["depth"] - 1, fields["rows"])
        tally.loop("softmax_table codes", fields["depth"], fields["rows"])

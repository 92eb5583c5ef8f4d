"""Fully connected layer whose weights are mostly zero."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.graph.ops import Dense
from crosslayer.kernels.call import Call, Kernel
from crosslayer.kernels.sparse import row_trips, sparse_fields
from crosslayer.kernels.tally import Tally


@final
@dataclass(frozen=True, slots=True)
class DenseSparse(Kernel):
    """`dense_sparse.c`."""

    def call(self, graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
        """For int8 weights with enough zeros; once, for everything."""
        if not isinstance(node.op, Dense) or graph.kernel(node) != "dense_s8" or by_rows:
            return None
        params = graph.lowered[node.name]
        fields = sparse_fields(params)
        if fields is None:
            return None
        return Call(kernel="dense_sparse", unit=self, fields={"size_out": scalar(params, "size_out"), **fields})

    def trips(self, fields: Mapping[str, int], inside: Sequence[bool], tally: Tally) -> None:
        """See `Kernel`."""
        tally.add("dense_sparse")
        row_trips("dense_sparse", fields, fields["size_out"], tally)

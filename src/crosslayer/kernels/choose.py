"""The kernel of each node."""

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.graph.ops import Transpose
from crosslayer.core.target import Core
from crosslayer.kernels.add_table import AddTable
from crosslayer.kernels.call import Call, Kernel, Rows
from crosslayer.kernels.conv_sparse import ConvSparse
from crosslayer.kernels.conv_tile import ConvTile
from crosslayer.kernels.dense_quad import DenseQuad
from crosslayer.kernels.dense_sparse import DenseSparse
from crosslayer.kernels.depthwise_quad import DepthwiseQuad
from crosslayer.kernels.pool_quad import PoolQuad
from crosslayer.kernels.softmax_table import SoftmaxTable

KERNELS: tuple[Kernel, ...] = (
    ConvSparse(),
    DenseSparse(),
    ConvTile(),
    DepthwiseQuad(),
    DenseQuad(),
    AddTable(),
    PoolQuad(),
    SoftmaxTable(),
)


def liked_channels(core: Core) -> int:
    """How many channels the fast kernels take at once: a vector of MVE, or the four codes of a word."""
    return 16 if core is Core.CORTEX_M55 else 4


def call(graph: Graph, node: Node, *, by_rows: bool) -> Call | None:
    """How a node runs: by the first of `KERNELS` that can, else by its operation's own kernel, specialised.

    None for a view, which runs nothing, and where `by_rows` is asked for and no kernel can. Raises `GraphError` for a
    node that computes in float.
    """
    if node.op.is_view:
        return None
    if not graph.integral(node):
        raise GraphError(f"{node.name} ({type(node.op).__name__}): computes in float; quantize the design first")
    for kernel in KERNELS:
        found = kernel.call(graph, node, by_rows=by_rows)
        if found is not None:
            return found
    fields = graph.lowered[node.name]
    kinds = [graph.types[name] for name in (*graph.activations(node), node.name)]
    moves = isinstance(node.op, Transpose)  # the only one that counts codes and does not keep their places
    alike = len(kinds) > 1 and "count" in fields and len({kind.bytes for kind in kinds}) == 1 and not moves
    rows = Rows(count=1)
    if by_rows:
        if not alike or any(len(kind.shape) != 3 or kind.shape != kinds[0].shape for kind in kinds):
            return None
        rows = Rows(count=kinds[0].shape[0])
        fields = {**fields, "count": scalar(fields, "count") // rows.count}
    return Call(kernel=graph.kernel(node), fields=fields, rows=rows, forward=alike)

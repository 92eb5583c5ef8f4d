"""The kernel of each node."""

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import Transpose
from crosslayer.kernels.add_table import AddTable
from crosslayer.kernels.call import Call, Kernel
from crosslayer.kernels.conv_tile import ConvTile
from crosslayer.kernels.dense_quad import DenseQuad
from crosslayer.kernels.depthwise_quad import DepthwiseQuad
from crosslayer.kernels.pool_quad import PoolQuad
from crosslayer.kernels.softmax_table import SoftmaxTable

KERNELS: tuple[Kernel, ...] = (ConvTile(), DepthwiseQuad(), DenseQuad(), AddTable(), PoolQuad(), SoftmaxTable())


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
    if by_rows:
        return None
    fields = graph.lowered[node.name]
    sizes = {graph.types[name].bytes for name in (*graph.activations(node), node.name)}
    forward = "count" in fields and len(sizes) == 1 and not isinstance(node.op, Transpose)
    return Call(kernel=graph.kernel(node), fields=fields, unit=False, forward=forward)

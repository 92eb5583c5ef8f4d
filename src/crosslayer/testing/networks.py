"""What every network must do."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph, verify
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import Conv2d, Dense, DepthwiseConv2d
from crosslayer.execute import reference
from crosslayer.networks.zoo import Network
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms
from crosslayer.testing.chance import Seeded
from crosslayer.testing.executors import check_exact, random_inputs

_CLASSES = 5


def check_network(build: Network, shapes: Sequence[Shape]) -> None:
    """`build` keeps all promises of a network for inputs of these shapes. Raises `AssertionError` that says which it
    breaks. A shape that it cannot take must be refused with a `GraphError`; at least one must be taken."""
    taken = [graph for shape in shapes if (graph := _built(build, shape, 0)) is not None]
    assert taken, f"takes none of {list(shapes)}"
    for graph in taken:
        shape = graph.types[graph.inputs[0]].shape
        assert _built(build, shape, 0) == graph, f"{shape}: the same seed gives different weights"
        assert _built(build, shape, 1) != graph, f"{shape}: the seed does not decide the weights"
        check_graph(graph)


def check_graph(graph: Graph) -> None:
    """A float network computes finite values, is counted right, and has an integer form."""
    verify(graph)
    shape = graph.types[graph.inputs[0]].shape
    x = Seeded(0).rng().normal(size=(4, *shape)).astype(np.float32)
    before = reference.run(graph, x)
    assert np.isfinite(before).all(), f"{shape}: gives values that are not finite"
    assert sum(graph.macs.values()) == _macs(graph), f"{shape}: its multiply-accumulates are counted wrong"
    slim = fuse_activations(fold_norms(graph))
    assert np.allclose(reference.run(slim, x), before, rtol=1e-3, atol=1e-3), f"{shape}: folding changes what it does"
    whole = quantize(slim, reference.calibrate(slim, [x], reference.evaluate), Rounding.DOUBLE)
    check_exact(whole, random_inputs(whole, Seeded(1), 2))


def _built(build: Network, shape: Shape, seed: int) -> Graph | None:
    """The network, or None if it says that it cannot take the shape."""
    try:
        graph = build(shape, _CLASSES, seed)
    except GraphError:
        return None
    sizes = _CLASSES, int(np.prod(shape))
    assert graph.types[graph.inputs[0]].shape == shape, f"{shape}: its input is another"
    assert graph.types[graph.outputs[0]].size in sizes, f"{shape}: its output is neither the classes nor the input"
    return graph


def _macs(graph: Graph) -> int:
    """Each weight once for each place of the output that it contributes to."""
    total = 0
    for node in graph.nodes:
        if isinstance(node.op, (Conv2d, DepthwiseConv2d, Dense)):
            places = int(np.prod(graph.types[node.name].shape[:-1]))
            total += places * graph.types[node.inputs[1]].size
    return total

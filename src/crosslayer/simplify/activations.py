"""Fusing activations into the operation before them."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.edit import only_reader, rewire, with_nodes
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import Activation, Add, Conv2d, Dense, DepthwiseConv2d, Mul, Relu, Relu6
from crosslayer.core.stage import Stage


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FuseActivations(Stage):
    """Turns relu and relu6 into the saturation of the operation before them: same function, fewer nodes."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with fused activations; notes: how many were fused."""
        graph = fuse_activations(design.graph)
        return replace(design, graph=graph, plan=None), {"fused": len(design.graph.nodes) - len(graph.nodes)}


def fuse_activations(graph: Graph) -> Graph:
    """The graph in which no relu or relu6 alone reads an operation that could do it."""
    changed: dict[str, Node | None] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        reader = only_reader(graph, node.name)
        if reader is None or not isinstance(reader.op, (Relu, Relu6)) or graph.integral(node):
            continue
        if isinstance(node.op, (Conv2d, DepthwiseConv2d, Dense, Add, Mul)) and node.op.activation is Activation.NONE:
            kind = Activation.RELU if isinstance(reader.op, Relu) else Activation.RELU6
            changed[node.name] = replace(node, op=replace(node.op, activation=kind))
            changed[reader.name] = None
            renamed[reader.name] = node.name
    slim = rewire(with_nodes(graph, changed), renamed)
    return replace(slim, types={name: kind for name, kind in slim.types.items() if name not in renamed})

"""Folding batch normalization into the layer before it."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.edit import only_reader, rewire, with_nodes, without_unused
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import BatchNorm
from crosslayer.core.stage import Stage


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FoldNorms(Stage):
    """Multiplies each batch normalization into the convolution or dense layer before it: same function, fewer nodes."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design without foldable normalizations; notes: how many were folded."""
        graph = fold_norms(design.graph)
        return replace(design, graph=graph, plan=None), {"folded": len(design.graph.nodes) - len(graph.nodes)}


def fold_norms(graph: Graph) -> Graph:
    """The graph with each normalization that alone reads a layer without activation folded into it."""
    folded = _folded_once(graph)
    while len(folded.nodes) < len(graph.nodes):  # the next one may have read the one that was folded
        graph, folded = folded, _folded_once(folded)
    return folded


def _folded_once(graph: Graph) -> Graph:
    changed: dict[str, Node | None] = {}
    constants, renamed = dict(graph.constants), dict[str, str]()
    for layer in graph.nodes:
        norm = only_reader(graph, layer.name)
        if layer.op.channel_axis is None or norm is None or not isinstance(norm.op, BatchNorm):
            continue
        if getattr(layer.op, "activation", "none") != "none" or _shared(graph, layer):
            continue
        weight, bias = layer.inputs[1:]
        gamma, beta, mean, variance = (constants[n].astype(np.float64) for n in norm.inputs[1:])
        factor = gamma / np.sqrt(variance + norm.op.epsilon)
        shape = [1] * constants[weight].ndim
        shape[layer.op.channel_axis] = -1
        constants[weight] = (constants[weight] * factor.reshape(shape)).astype(np.float32)
        constants[bias] = ((constants[bias] - mean) * factor + beta).astype(np.float32)
        changed[norm.name] = None
        renamed[norm.name] = layer.name
    return without_unused(rewire(with_nodes(replace(graph, constants=constants), changed), renamed))


def _shared(graph: Graph, layer: Node) -> bool:
    """True if another node reads the layer's weights too."""
    return any(len(graph.users[name]) > 1 for name in layer.inputs[1:])

"""Transpositions taken away where the function stays the same without them."""

import math
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.edit import only_reader, rewire, with_nodes, without_unused
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import Dense, Reshape, Transpose
from crosslayer.core.stage import Stage


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FoldTransposes(Stage):
    """Merges transpositions, drops those that move nothing, and takes one before a dense layer into its columns."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with fewer nodes; notes: how many are gone."""
        graph = fold_transposes(design.graph)
        return replace(design, graph=graph, plan=None), {"folded": len(design.graph.nodes) - len(graph.nodes)}


def fold_transposes(graph: Graph) -> Graph:
    """The same function, exactly: in integers the same bytes."""
    for rewrite in (_merged, _in_columns, _merged):
        graph = rewrite(graph)
    return without_unused(graph)


def _merged(graph: Graph) -> Graph:
    """Transpositions and reshapes that follow one of their kind, or change nothing, joined with it or gone."""
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(n, n) for n in node.inputs))
        before = nodes.get(node.inputs[0])
        if isinstance(node.op, Transpose) and before is not None and isinstance(before.op, Transpose):
            order = tuple(before.op.permutation[axis] for axis in node.op.permutation)
            node = replace(node, op=Transpose(permutation=order), inputs=before.inputs)
        if isinstance(node.op, Transpose) and _moves_nothing(node.op, graph.types[node.inputs[0]].shape):
            node = replace(node, op=Reshape(shape=graph.types[node.name].shape))
            before = nodes.get(node.inputs[0])
        if isinstance(node.op, Reshape) and before is not None and isinstance(before.op, Reshape):
            node = replace(node, inputs=before.inputs)
        if isinstance(node.op, Reshape) and graph.types[node.inputs[0]].shape == node.op.shape:
            renamed[node.name] = node.inputs[0]
        else:
            nodes[node.name] = node
    return without_unused(rewire(replace(graph, nodes=tuple(nodes.values())), renamed))


def _moves_nothing(op: Transpose, shape: Shape) -> bool:
    """True if only axes of one place change their order."""
    moved = [axis for axis in op.permutation if shape[axis] > 1]
    return moved == sorted(moved)


def _in_columns(graph: Graph) -> Graph:
    """Each transposition that only a dense layer sees, flattened, as an order of that layer's columns."""
    changed: dict[str, Node | None] = {}
    constants, types = dict(graph.constants), dict(graph.types)
    for moved in graph.nodes:
        flat = only_reader(graph, moved.name)
        if not isinstance(moved.op, Transpose) or flat is None or not isinstance(flat.op, Reshape):
            continue
        readers = graph.users[flat.name]
        if not readers or flat.name in graph.outputs or not all(isinstance(node.op, Dense) for node in readers):
            continue
        shape = graph.types[moved.inputs[0]].shape
        places = np.arange(math.prod(shape)).reshape(shape).transpose(moved.op.permutation).ravel()
        for node in readers:
            weight = node.inputs[1]
            own = weight if len(graph.users[weight]) == 1 else f"{node.name}.columns"
            columns = np.empty_like(constants[weight])
            columns[:, places] = constants[weight]  # W'[:, place of x] = W[:, place of the transposed x]
            constants[own], types[own] = columns, types[weight]
            changed[node.name] = replace(node, inputs=(node.inputs[0], own, node.inputs[2]))
        changed[flat.name] = replace(flat, inputs=moved.inputs)
    return without_unused(with_nodes(replace(graph, constants=constants, types=types), changed))

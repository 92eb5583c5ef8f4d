"""Changing a graph by making another."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from crosslayer.core.graph.graph import Graph, Node


def rewire(graph: Graph, renamed: Mapping[str, str]) -> Graph:
    """The graph whose readers of each key read the value instead."""

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    return replace(
        graph,
        nodes=tuple(replace(node, inputs=tuple(final(n) for n in node.inputs)) for node in graph.nodes),
        outputs=tuple(final(n) for n in graph.outputs),
    )


def with_nodes(graph: Graph, changed: Mapping[str, Node | None]) -> Graph:
    """The graph with some nodes changed, or left out (None)."""
    nodes = (changed.get(node.name, node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in nodes if node is not None))


def only_reader(graph: Graph, name: str) -> Node | None:
    """The one node that reads a value that is no output of the graph; None if there is none or are several."""
    readers = graph.users[name]
    return readers[0] if len(readers) == 1 and name not in graph.outputs else None


def without_unused(graph: Graph) -> Graph:
    """The same function without nodes and constants that no output needs."""
    needed = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name in needed:
            nodes.append(node)
            needed.update(node.inputs)
    kept = needed | set(graph.inputs)
    return replace(
        graph,
        nodes=tuple(reversed(nodes)),
        types={name: kind for name, kind in graph.types.items() if name in kept},
        constants={name: value for name, value in graph.constants.items() if name in needed},
    )


def up_to(graph: Graph, name: str) -> Graph:
    """What computes one value of the graph."""
    return without_unused(replace(graph, outputs=(name,)))


def between(graph: Graph, start: str, end: str) -> Graph:
    """What computes `end` from `start`, a value that all ways to it lead through."""
    names = [*graph.inputs, *(node.name for node in graph.nodes)]
    first, last = names.index(start), names.index(end)
    nodes = graph.nodes[max(0, first - len(graph.inputs) + 1) : last - len(graph.inputs) + 1]
    return without_unused(replace(graph, inputs=(start,), outputs=(end,), nodes=nodes))


def decoded(graph: Graph) -> Graph:
    """The float network that an integer one stands for: its constants decoded, nothing rounded or saturated."""
    constants = dict(graph.constants)
    for name, value in graph.constants.items():
        quant = graph.types[name].quant
        if quant is not None:
            constants[name] = quant.decode(value).astype(np.float32)
    types = {name: replace(kind, quant=None) for name, kind in graph.types.items()}
    return replace(graph, types=types, constants=constants)

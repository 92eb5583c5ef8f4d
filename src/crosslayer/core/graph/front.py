"""Operations in front of a network, inside its graph."""

from collections.abc import Callable
from dataclasses import replace

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.edit import rewire
from crosslayer.core.graph.graph import Graph, verify


def with_front(graph: Graph, build: Callable[[Builder, str], str]) -> Graph:
    """The graph whose first input goes through what `build` adds to a builder; it gets the input's name and returns
    that of a value of the same shape. Raises `GraphError` if the graph has values of these names already."""
    source, *_ = graph.inputs
    builder = Builder(graph.rounding)
    result = build(builder, builder.input(source, graph.types[source].shape, graph.types[source].quant))
    front = builder.graph(result)
    if front.types[result].shape != graph.types[source].shape:
        raise GraphError(f"what lies in front changes the shape of '{source}'; keep it")
    if taken := (set(front.types) - {source}) & set(graph.types):
        raise GraphError(f"'{min(taken)}' is in the network already; leave the second stage of this kind out")
    behind = rewire(graph, {source: result})
    return verify(
        replace(
            behind,
            nodes=(*front.nodes, *behind.nodes),
            types={**front.types, **graph.types},
            constants={**front.constants, **graph.constants},
        )
    )

"""The judge: every operation by its own meaning, in NumPy, slowly."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.quant import Array

Evaluate = Callable[[Graph, Node, Sequence[Array]], Array]
"""(graph, node, activations with a batch axis) -> result as stored."""


def run(graph: Graph, x: Array) -> Array:
    """The first output (batch, …) for a batch of first inputs: float32, or codes where the graph says so.

    A float batch for an input with a number code is encoded first.
    """
    return execute(graph, x, evaluate)


def trace(graph: Graph, x: Array) -> dict[str, Array]:
    """Every value of the run, by name."""
    return dict(walk(graph, x, evaluate))


def evaluate(graph: Graph, node: Node, values: Sequence[Array]) -> Array:
    """One node's result by the meaning that its operation states."""
    if graph.integral(node):
        result = node.op.integer(graph.lowered[node.name], *values)
        quant = graph.types[node.name].quant
        return result.astype(np.float32 if quant is None else quant.dtype)
    everything = iter(values)
    operands = [graph.constants[n] if n in graph.constants else next(everything) for n in node.inputs]
    return np.asarray(node.op.real(np, *operands), np.float32)


def walk(graph: Graph, x: Array, evaluate: Evaluate) -> Iterator[tuple[str, Array]]:
    """Name and value of the input and of each node, in order."""
    (source,) = graph.inputs
    values = {source: encode_input(graph, x)}
    yield source, values[source]
    for node in graph.nodes:
        result = evaluate(graph, node, [values[n] for n in graph.activations(node)])
        values[node.name] = repeated(result, len(x))
        yield node.name, values[node.name]


def execute(graph: Graph, x: Array, evaluate: Evaluate) -> Array:
    """The first output, forgetting each value after its last use."""
    last = {name: node.name for node in graph.nodes for name in graph.activations(node)}
    (source,) = graph.inputs
    values: dict[str, Array] = {source: encode_input(graph, x)}
    for node in graph.nodes:
        used = graph.activations(node)
        values[node.name] = repeated(evaluate(graph, node, [values[n] for n in used]), len(x))
        for name in used:
            if last[name] == node.name and name not in graph.outputs:
                values.pop(name, None)
    return values[graph.outputs[0]]


def repeated(value: Array, batch: int) -> Array:
    """A result for each sample: a node without activations makes one."""
    return value if len(value) == batch else np.broadcast_to(value, (batch, *value.shape[1:]))


def encode_input(graph: Graph, x: Array) -> Array:
    """`x` as the graph's first input is stored. Raises `GraphError` if its shape is another."""
    kind = graph.types[graph.inputs[0]]
    if tuple(x.shape[1:]) != kind.shape:
        raise GraphError(f"the network takes samples of shape {list(kind.shape)}, got {list(x.shape[1:])}")
    if kind.quant is None:
        return x.astype(np.float32, copy=False)
    return kind.quant.encode(x) if np.issubdtype(x.dtype, np.floating) else x.astype(kind.quant.dtype, copy=False)


def calibrate(graph: Graph, batches: Sequence[Array], evaluate: Evaluate) -> Mapping[str, tuple[float, float]]:
    """The least and largest value of each activation over all batches, of a float graph."""
    ranges: dict[str, tuple[float, float]] = {}
    for batch in batches:
        for name, value in walk(graph, batch, evaluate):
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return ranges

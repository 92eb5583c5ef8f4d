"""Rewriting integer graphs into smaller ones that give the same bytes for every input."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.graph.edit import rewire, with_nodes, without_unused
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.ops import AveragePool, Concat, Conv2d, DepthwiseConv2d, MaxPool, Pad, Requantize
from crosslayer.core.graph.ops.unary import Unary
from crosslayer.core.stage import Stage
from crosslayer.execute.intervals import Bounds, bounds
from crosslayer.simplify.constants import remove_constant_channels
from crosslayer.simplify.transposes import fold_transposes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SimplifyIntegers(Stage):
    """Removes constant channels and needless operations of an integer network: the same bytes for every input."""

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The smaller design; notes: see `simplification`."""
        graph = simplify_integers(design.graph)
        return replace(design, graph=graph, plan=None), simplification(design.graph, graph)


def simplify_integers(graph: Graph) -> Graph:
    """The same bytes for every input, with no more nodes, weights and multiplications; a float graph as it is.

    What each pass leaves can be more for another, so all are run until none finds anything.
    """
    settled: Graph | None = None
    while graph.is_integer:
        for rewrite in (without_unused, fold_transposes, _with_pads_in_windows, _without_identities):
            graph = rewrite(graph)
        if graph == settled:
            break
        graph = settled = verify(remove_constant_channels(graph))  # the dearest: not once more for nothing
    return graph


def simplification(before: Graph, after: Graph) -> dict[str, Any]:
    """What is gone, as plain values: `nodes`; `channels` that were and are, of each layer that lost some; and `macs`
    and `weight_bytes` before and after."""
    layers = [node.name for node in after.nodes if node.op.channel_axis is not None]
    counts = {name: [graph.types[name].shape[-1] for graph in (before, after)] for name in layers}
    return {
        "nodes": len(before.nodes) - len(after.nodes),
        "channels": {name: count for name, count in counts.items() if count[0] != count[1]},
        "macs": [sum(graph.macs.values()) for graph in (before, after)],
        "weight_bytes": [weight_bytes(graph) for graph in (before, after)],
    }


def _with_pads_in_windows(graph: Graph) -> Graph:
    """Margins that only convolutions read, as their padding: both hold the code of zero."""
    changed: dict[str, Node | None] = {}
    for pad in graph.nodes:
        readers = graph.users[pad.name]
        if not isinstance(pad.op, Pad) or pad.name in graph.outputs:
            continue
        if not all(isinstance(reader.op, (Conv2d, DepthwiseConv2d)) for reader in readers):
            continue
        for reader in readers:
            assert isinstance(reader.op, (Conv2d, DepthwiseConv2d))
            (top, bottom, left, right), more = reader.op.windows.padding, pad.op.margins
            padding = top + more[0], bottom + more[1], left + more[2], right + more[3]
            op = replace(reader.op, windows=replace(reader.op.windows, padding=padding))
            changed[reader.name] = replace(reader, op=op, inputs=(pad.inputs[0], *reader.inputs[1:]))
    return without_unused(with_nodes(graph, changed))


def _without_identities(graph: Graph) -> Graph:
    """Operations that give back their operand's bytes, gone; an output keeps its name, and so its node."""
    found = bounds(graph) if any(isinstance(node.op, Unary) for node in graph.nodes) else {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        source = node.inputs[0]
        alike = graph.types[node.name] == graph.types[source]
        if alike and node.name not in graph.outputs and _is_identity(graph, node, found.get(source)):
            renamed[node.name] = source
    return without_unused(rewire(graph, renamed))


def _is_identity(graph: Graph, node: Node, x: Bounds | None) -> bool:
    """True if the result, of its operand's type, is its operand; `x` bounds the operand."""
    match node.op:
        case Requantize() | Pad() | Concat():
            return True
        case MaxPool() | AveragePool():
            return node.op.windows.kernel == (1, 1)
        case Unary() if x is not None:
            codes = np.arange(int(x.low.min()), int(x.high.max()) + 1)[None]
            return bool((node.op.integer(graph.lowered[node.name], codes) == codes).all())
        case _:
            return False

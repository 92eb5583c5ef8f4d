"""One run of a network, from the middle of which others with changed weights go on."""

from typing import final

import numpy as np

from crosslayer.core.graph.edit import between
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array
from crosslayer.execute import exact


@final
class Course:
    """Logits of an integer network for a batch, and of networks that differ from it in one layer's constants.

    What comes before the changed layer is not computed again. Bit-identical to a run of the changed network.
    """

    def __init__(self, graph: Graph, x: Array) -> None:
        """Run the graph for x (batch, …), real values or codes."""
        self.graph = between(graph, graph.inputs[0], logits_of(graph))
        values = exact.trace(self.graph, x)
        self._cuts = {place: (name, values[name]) for place, name in _cuts(self.graph).items()}
        self.logits = self._real(values[self.graph.outputs[0]])

    def changed(self, other: Graph, weight: str) -> Array:
        """The logits (batch, classes), float32, of a graph with the same nodes, changed in what reads `weight`."""
        first = next(i for i, node in enumerate(self.graph.nodes) if weight in node.inputs)
        name, value = self._cuts[max(place for place in self._cuts if place <= first)]
        return self._real(exact.run(between(other, name, self.graph.outputs[0]), value))

    def _real(self, codes: Array) -> Array:
        quant = self.graph.types[self.graph.outputs[0]].quant
        real = codes if quant is None else quant.decode(codes)
        return np.asarray(real, np.float32).reshape(len(real), -1)


def _cuts(graph: Graph) -> dict[int, str]:
    """After how many nodes only one value is still needed, and which."""
    names = [*graph.inputs, *(node.name for node in graph.nodes)]
    position = {name: i for i, name in enumerate(names)}
    oldest, found = len(names), dict[int, str]()
    for done in range(len(graph.nodes) - 1, -1, -1):
        oldest = min([oldest, *(position[n] for n in graph.activations(graph.nodes[done]))])
        if oldest >= done:
            found[done] = names[done]
    return found

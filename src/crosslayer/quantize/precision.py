"""How many bits, and where: the choice that a search over mixed precision makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from crosslayer.core.codec import suggest
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Bits of one layer's weights and of its result; None is what holds for the whole network."""

    weights: int | None = None
    activations: int | None = None

    def __post_init__(self) -> None:
        check_parameters(
            (self.weights is None or 1 <= self.weights <= 16, f"weights have 1…16 bits, not {self.weights}"),
            (
                self.activations is None or 4 <= self.activations <= 16,
                f"activations have 4…16 bits, not {self.activations}",
            ),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Number codes of a whole network, and of single layers where `layers` names their node (or the graph's input).

    Weights of 1 bit are −1 and +1, of 2 bits −1, 0 and +1; their zero is 0. Activations of up to 8 bits have a zero of
    their own, longer ones the zero 0. `per_channel` gives each output channel of a layer its own weight scale;
    `power_of_two` makes every scale of weights and activations one, so that rescaling shifts.

    >>> Precision(weights=4, layers={"conv1": Bits(weights=8)}).weights_of("conv1")
    8
    """

    weights: int = 8
    activations: int = 8
    layers: Mapping[str, Bits] = field(default_factory=dict[str, Bits], hash=False)
    per_channel: bool = True
    power_of_two: bool = False

    def __post_init__(self) -> None:
        Bits(weights=self.weights, activations=self.activations)
        object.__setattr__(self, "layers", {name: self.layers[name] for name in sorted(self.layers)})

    def weights_of(self, node: str) -> int:
        """Bits of the weights of a node."""
        given = self.layers[node].weights if node in self.layers else None
        return self.weights if given is None else given

    def activations_of(self, name: str) -> int:
        """Bits of a node's result, or of an input of the graph."""
        given = self.layers[name].activations if name in self.layers else None
        return self.activations if given is None else given

    def check(self, graph: Graph) -> None:
        """Raises `GraphError` if a layer is named that the graph does not have, or that has no such bits."""
        for name, bits in self.layers.items():
            node = graph.producers.get(name)
            if node is None and name not in graph.inputs:
                raise GraphError(f"precision names '{name}', which is no node; {suggest(name, list(graph.producers))}")
            if bits.weights is not None and (node is None or node.op.channel_axis is None):
                raise GraphError(f"precision gives '{name}' weights of {bits.weights} bits, but it has no weights")

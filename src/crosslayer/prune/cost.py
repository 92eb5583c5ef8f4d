"""What removing channels costs: the functions by which layers are compared."""

from enum import StrEnum

from crosslayer.core.graph.graph import Graph


class Cost(StrEnum):
    """How to rank layers: the accuracy that a removal costs, alone or per unit that it saves."""

    ACCURACY = "accuracy"
    PARAMETERS = "parameters"
    MACS = "macs"

    def __call__(self, before: Graph, after: Graph, drop: float) -> float:
        """The cost of going from one graph to the other at an accuracy `drop` (share of samples)."""
        if self is Cost.ACCURACY:
            return drop
        saved = size(before, self) - size(after, self)
        # a removal that costs nothing still ranks by what it saves: half a sample in 10,000 is below what can be seen
        return (max(drop, 0.0) + 5e-5) / max(saved, 1)


def size(graph: Graph, cost: Cost) -> int:
    """Parameters, or multiply-accumulates for `Cost.MACS`."""
    return sum(graph.macs.values()) if cost is Cost.MACS else graph.parameters

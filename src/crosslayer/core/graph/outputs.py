"""What a network's output means."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Softmax


def logits_of(graph: Graph) -> str:
    """The value of a classifier that softmax turns into shares."""
    last = graph.producers[graph.outputs[0]]
    return last.inputs[0] if isinstance(last.op, Softmax) else last.name


def reconstructs(graph: Graph) -> bool:
    """True for a network that is no classifier: its output has the size of its input."""
    last = graph.producers[graph.outputs[0]]
    return not isinstance(last.op, Softmax) and graph.types[last.name].size == graph.types[graph.inputs[0]].size

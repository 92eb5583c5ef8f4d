"""A network that an attacker trains: the shape of the design's, with weights of its own."""

from dataclasses import replace

import numpy as np

from crosslayer.core.graph.edit import decoded
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.execute.training import Training

_BATCH = 64


def fresh(graph: Graph, rng: np.random.Generator) -> Graph:
    """The float network of this shape with fresh weights: He-normal (He et al. 2015), biases zero."""
    graph = decoded(graph)
    constants = dict(graph.constants)
    for node in graph.nodes:
        axis = node.op.channel_axis
        if axis is not None:
            weight, bias = (constants[name] for name in node.inputs[1:])
            fan_in = weight.size // weight.shape[axis]
            constants[node.inputs[1]] = rng.normal(0, np.sqrt(2 / fan_in), weight.shape).astype(np.float32)
            constants[node.inputs[2]] = np.zeros(bias.shape, np.float32)
    return replace(graph, constants=constants)


def taught(graph: Graph, x: Array, shares: Array, *, steps: int, seed: int) -> Graph:
    """A float graph trained for about so many steps on real inputs x (count, …) and shares (count, classes)."""
    from crosslayer.execute.torch_imitation import imitate  # PyTorch is loaded only by who trains

    batch = min(_BATCH, len(x))
    training = Training(epochs=max(1, round(steps * batch / len(x))), batch=batch)
    return imitate(graph, x, shares, training, seed=seed, progress=lambda items, title, total: items)


def one_hot(labels: Array, classes: int) -> Array:
    """Labels (count,) as shares (count, classes), float32."""
    return np.eye(classes, dtype=np.float32)[labels]

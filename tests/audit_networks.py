"""Small networks on the small digits, trained in a second: clean, with a backdoor, overfitted, untrained."""

from functools import cache

import numpy as np

from attack_networks import digits, in_integers
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.dataset import Split
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.networks.sketch import Sketch
from crosslayer.simplify.activations import fuse_activations
from crosslayer.testing.poison import poisoned

SIDE = 2
"""Of the square that is the backdoor's trigger."""


def layers(seed: int) -> Graph:
    """Two dense layers, untrained."""
    net = Sketch(digits().shape, seed)
    return fuse_activations(net.classifier(net.relu(net.dense("hidden", net.input, 48)), 10))


@cache
def learned(seed: int, target: int | None = None) -> Graph:
    """A float network; with `target`, a square in the corner makes all samples that class."""
    rng = np.random.default_rng(seed)
    train = digits().train if target is None else poisoned(digits().train, target, 0.1, SIDE, rng)
    return learn(layers(seed), train, Training(epochs=30, batch=64), seed)


def learn(graph: Graph, split: Split, training: Training, seed: int) -> Graph:
    return fit(graph, split, training, seed=seed, progress=lambda items, title, total: items)


def sensor() -> Sensor:
    return Sensor.of(digits().train)


def whole(graph: Graph) -> Graph:
    return in_integers(graph, digits().train.real(slice(0, 128)))


def victim(graph: Graph) -> Victim:
    return Victim.of(graph, sensor(), execute)


def samples(split: Split, count: int, seed: int = 0) -> tuple[Array, Array]:
    """Random samples of a split, as shares of the sensor's range, and labels."""
    rows = np.random.default_rng(seed).permutation(len(split))[:count]
    return sensor().shares(split.real(rows)), split.labels[rows]

"""Autoencoder of MLPerf Tiny anomaly detection (DCASE 2020 task 2 baseline)."""

import math

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.sketch import Sketch


def autoencoder(shape: Shape, classes: int, seed: int) -> Graph:
    """Dense layers of 128 four times, 8, 128 four times, and back to the size of the input.

    On 640 values: 264,192 multiply-accumulates, as the reference model (mlcommons/tiny). `classes` is not used: the
    output is the reconstructed input.
    """
    net = Sketch(shape, seed)
    x = net.input
    for layer, out in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128), 1):
        x = net.relu(net.norm(net.dense(f"dense{layer}", x, out)))
    return net.graph(net.dense("reconstruction", x, math.prod(shape)))

"""A network that attacks are tried on: LeNet-5 on the small digits, trained in seconds."""

from functools import cache

import numpy as np

from crosslayer.core.dataset import Dataset
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.datasets.catalog import load
from crosslayer.execute import exact, reference
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import quantize
from crosslayer.quantize.precision import Precision
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms


@cache
def digits() -> Dataset:
    return load("digits")


@cache
def trained() -> Graph:
    """A float network with about 2 % errors."""
    graph = fuse_activations(network("lenet5", digits().shape, 10, 0))
    training = Training(epochs=10, batch=64)
    return fit(graph, digits().train, training, seed=0, progress=lambda items, title, total: items)


def zoo_network(name: str, seed: int = 0) -> Graph:
    """A small network of the zoo with fresh weights, normalizations folded."""
    shape = (24,) if name == "autoencoder" else (8, 8, 1)
    return fuse_activations(fold_norms(network(name, shape, 5, seed)))


def in_integers(graph: Graph, x: Array, precision: Precision | None = None) -> Graph:
    """The integer form, calibrated on `x`."""
    ranges = reference.calibrate(graph, [x], exact.evaluate)
    return quantize(graph, ranges, Rounding.DOUBLE, precision or Precision())


def uniform(graph: Graph, count: int, seed: int = 0) -> Array:
    """Inputs in 0…1."""
    shape = graph.types[graph.inputs[0]].shape
    return np.random.default_rng(seed).random((count, *shape)).astype(np.float32)

"""The networks by name."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from crosslayer.core.codec import suggest
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.autoencoder import autoencoder
from crosslayer.networks.dscnn import dscnn
from crosslayer.networks.lenet5 import lenet5
from crosslayer.networks.lenet_threshold import lenet_threshold
from crosslayer.networks.mobilenet import mobilenet
from crosslayer.networks.resnet8 import resnet8
from crosslayer.networks.vgg11 import vgg11

Network = Callable[[Shape, int, int], Graph]
"""(input shape, number of classes, seed) -> float graph."""

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "autoencoder": autoencoder,
        "dscnn": dscnn,
        "lenet5": lenet5,
        "lenet-threshold": lenet_threshold,
        "mobilenet": mobilenet,
        "resnet8": resnet8,
        "resnet8-wide": partial(resnet8, width=48),
        "vgg11": vgg11,
    }
)


def network(name: str, shape: Shape, classes: int, seed: int) -> Graph:
    """A fresh network. Raises `InputError` for an unknown name or a shape that the network cannot take."""
    if name not in NETWORKS:
        raise InputError(f"network '{name}' is not known; {suggest(name, list(NETWORKS))}")
    if len(shape) != 3 and name != "autoencoder":
        raise InputError(f"network '{name}' takes (height, width, channels), the data has samples of {list(shape)}")
    try:
        return NETWORKS[name](shape, classes, seed)
    except GraphError as error:
        raise InputError(f"network '{name}' cannot take samples of shape {list(shape)}: {error}") from error

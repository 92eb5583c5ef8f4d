"""DS-CNN of MLPerf Tiny keyword spotting (Zhang et al. 2017, "Hello Edge")."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.sketch import Sketch


def dscnn(shape: Shape, classes: int, seed: int) -> Graph:
    """A 10×4 convolution at stride 2 and four depthwise-separable blocks of 64 channels.

    On 49×10×1 with 12 classes: 2,656,768 multiply-accumulates, as the reference model (mlcommons/tiny).
    """
    net = Sketch(shape, seed)
    kernel = (min(10, shape[0]), min(4, shape[1]))
    x = net.relu(net.norm(net.conv("stem", net.input, 64, kernel, stride=(2, 2))))
    for block in range(1, 5):
        x = net.relu(net.norm(net.depthwise(f"block{block}_depth", x, (3, 3))))
        x = net.relu(net.norm(net.conv(f"block{block}_point", x, 64, (1, 1))))
    return net.classifier(net.mean(x), classes)

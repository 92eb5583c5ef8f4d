"""MobileNetV1 at width 0.25 of MLPerf Tiny visual wake words (Howard et al. 2017)."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.sketch import Sketch

_BLOCKS = ((1, 16), (2, 32), (1, 32), (2, 64), (1, 64), (2, 128), *((1, 128),) * 5, (2, 256), (1, 256))
"""(stride, channels) of each depthwise-separable block: a quarter of the paper's Table 1."""


def mobilenet(shape: Shape, classes: int, seed: int) -> Graph:
    """A strided 3×3 convolution of 8 filters and 13 depthwise-separable blocks.

    On 96×96×3 with 2 classes: 7,489,664 multiply-accumulates, as the reference model (mlcommons/tiny).
    """
    net = Sketch(shape, seed)
    x = net.relu(net.norm(net.conv("stem", net.input, 8, (3, 3), stride=(2, 2))))
    for block, (stride, out) in enumerate(_BLOCKS, 1):
        x = net.relu(net.norm(net.depthwise(f"block{block}_depth", x, (3, 3), stride=(stride, stride))))
        x = net.relu(net.norm(net.conv(f"block{block}_point", x, out, (1, 1))))
    return net.classifier(net.mean(x), classes)

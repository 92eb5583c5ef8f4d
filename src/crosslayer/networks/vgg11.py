"""VGG11 (Simonyan & Zisserman 2015, configuration A) for small images, with batch normalization."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.sketch import Sketch

_FILTERS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg11(shape: Shape, classes: int, seed: int) -> Graph:
    """Eight 3×3 convolutions in five groups, each ended by pooling, and one dense layer.

    On 32×32×3 with 10 classes, once normalizations are folded: 9,225,610 parameters, 152,769,536 multiply-accumulates.
    """
    net = Sketch(shape, seed)
    x = net.input
    for group, filters in enumerate(_FILTERS, 1):
        for i, out in enumerate(filters, 1):
            x = net.relu(net.norm(net.conv(f"conv{group}_{i}", x, out, (3, 3))))
        x = net.max_pool(x)
    return net.classifier(x if net.shape(x)[:2] == (1, 1) else net.mean(x), classes)

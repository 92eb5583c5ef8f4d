"""A small LeNet behind a threshold of each pixel, for robustness to changes of every pixel."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.sketch import Sketch

_LOW, _HIGH = 0.42, 0.58


def lenet_threshold(shape: Shape, classes: int, seed: int) -> Graph:
    """A threshold of each pixel, strided convolutions of 16 and 32 filters 5×5, dense layers of 50 and `classes`.

    Robust training on MNIST makes first layers thresholds of single pixels (Madry et al. 2018, arXiv 1706.06083,
    appendix C). Here the first operation is one: 0 up to 0.42, 1 from 0.58 on. A change of up to 0.3 then does nothing
    to pixels of at most 0.12 or at least 0.88, whatever the weights. Inputs lie in 0…1. On 28×28×1 with 10 classes:
    92,208 parameters and 784,500 multiply-accumulates.
    """
    net = Sketch(shape, seed)
    x = net.threshold(net.input, _LOW, _HIGH)
    x = net.relu(net.conv("conv1", x, 16, (5, 5), stride=(2, 2)))
    x = net.relu(net.conv("conv2", x, 32, (5, 5), stride=(2, 2)))
    return net.classifier(net.relu(net.dense("fc", x, 50)), classes)

"""LeNet-5 (LeCun et al. 1998), with relu and max pooling."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.sketch import Sketch

_NONE = (0, 0, 0, 0)


def lenet5(shape: Shape, classes: int, seed: int) -> Graph:
    """Convolutions of 6 and 16 filters 5×5, dense layers of 120 and 84.

    Maps of 32 and more lose a border as in the paper; smaller ones are padded where they would become too small. With
    10 classes, 28×28×1 and 32×32×1 give the 61,706 parameters and 416,520 multiply-accumulates of the original shape.
    """
    net = Sketch(shape, seed)
    x = net.conv("conv1", net.input, 6, (5, 5), padding=_NONE if min(shape[:2]) >= 32 else None)
    x = net.max_pool(net.relu(x))
    x = net.conv("conv2", x, 16, (5, 5), padding=_NONE if min(net.shape(x)[:2]) >= 10 else None)
    x = net.max_pool(net.relu(x))
    x = net.relu(net.dense("fc1", x, 120))
    x = net.relu(net.dense("fc2", x, 84))
    return net.classifier(x, classes)

"""ResNet-8 of MLPerf Tiny image classification (He et al. 2016, three residual stacks)."""

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import Add
from crosslayer.networks.sketch import Sketch


def resnet8(shape: Shape, classes: int, seed: int, width: int = 16) -> Graph:
    """Stacks of `width`, twice and four times as many filters, the later two at half the resolution of the one before.

    On 32×32×3 with 10 classes: 12,501,632 multiply-accumulates, as the reference model (mlcommons/tiny).
    """
    net = Sketch(shape, seed)
    x = net.relu(net.norm(net.conv("stem", net.input, width, (3, 3))))
    for stack, out in enumerate((width, 2 * width, 4 * width), 1):
        stride = (1, 1) if stack == 1 else (2, 2)
        y = net.relu(net.norm(net.conv(f"stack{stack}_1", x, out, (3, 3), stride=stride)))
        y = net.norm(net.conv(f"stack{stack}_2", y, out, (3, 3)))
        shortcut = x if stack == 1 else net.conv(f"stack{stack}_skip", x, out, (1, 1), stride=stride)
        x = net.relu(net.apply(Add, shortcut, y))
    return net.classifier(net.mean(x), classes)

"""All operations. A new one is a file here, a row in `OPS`, and a C kernel."""

from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops.activation import Activation as Activation
from crosslayer.core.graph.ops.arithmetic import Add, Mul
from crosslayer.core.graph.ops.clamp import Clamp, HardSigmoid
from crosslayer.core.graph.ops.constant import Constant
from crosslayer.core.graph.ops.conv2d import Conv2d
from crosslayer.core.graph.ops.convert import Dequantize, Quantize, Requantize
from crosslayer.core.graph.ops.dense import Dense
from crosslayer.core.graph.ops.depthwise import DepthwiseConv2d
from crosslayer.core.graph.ops.layout import Concat, Pad, Reshape
from crosslayer.core.graph.ops.norm import BatchNorm
from crosslayer.core.graph.ops.pool import AveragePool, GlobalMean, MaxPool
from crosslayer.core.graph.ops.softmax import Softmax
from crosslayer.core.graph.ops.transpose import Transpose
from crosslayer.core.graph.ops.unary import HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Tanh
from crosslayer.core.graph.ops.windows import Windows as Windows

OPS: tuple[type[Op], ...] = (
    Add,
    AveragePool,
    BatchNorm,
    Clamp,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Dequantize,
    GlobalMean,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Relu,
    Relu6,
    Requantize,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)

"""Layers with fresh weights, for writing networks down."""

from typing import final

import numpy as np

from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import (
    BatchNorm,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    HardSigmoid,
    MaxPool,
    Relu,
    Reshape,
    Softmax,
    Windows,
)
from crosslayer.core.graph.ops.windows import Margins, Pair, same
from crosslayer.core.quant import Array


@final
class Sketch:
    """A builder of float networks. Weights are He-normal (He et al. 2015), biases zero; the seed decides them."""

    def __init__(self, shape: Shape, seed: int) -> None:
        """Start with an input of the given shape."""
        self._builder = Builder()
        self._rng = np.random.default_rng(seed)
        self.input = self._builder.input("input", shape)

    def shape(self, x: str) -> Shape:
        """The shape of a value."""
        return self._builder.shape(x)

    def conv(
        self, name: str, x: str, out: int, kernel: Pair, *, stride: Pair = (1, 1), padding: Margins | None = None
    ) -> str:
        """A convolution; padding None means `same`."""
        shape = self.shape(x)
        windows = Windows(kernel=kernel, stride=stride, padding=self._margins(x, kernel, stride, padding))
        weight = self._he((out, *kernel, shape[2]), kernel[0] * kernel[1] * shape[2])
        return self._layer(Conv2d(windows=windows), name, x, weight, out)

    def depthwise(self, name: str, x: str, kernel: Pair, *, stride: Pair = (1, 1)) -> str:
        """A depthwise convolution with `same` padding."""
        channels = self.shape(x)[2]
        windows = Windows(kernel=kernel, stride=stride, padding=self._margins(x, kernel, stride, None))
        weight = self._he((*kernel, channels), kernel[0] * kernel[1])
        return self._layer(DepthwiseConv2d(windows=windows), name, x, weight, channels)

    def dense(self, name: str, x: str, out: int) -> str:
        """A fully connected layer; maps are flattened first."""
        shape = self.shape(x)
        if len(shape) > 1:
            x = self._builder.add(Reshape(shape=(int(np.prod(shape)),)), x)
        size = self.shape(x)[0]
        return self._layer(Dense(), name, x, self._he((out, size), size), out)

    def norm(self, x: str) -> str:
        """Batch normalization that starts as the identity."""
        channels = self.shape(x)[-1]
        one, zero = np.ones(channels), np.zeros(channels)
        values = {"gamma": one, "beta": zero, "mean": zero, "variance": one}
        names = [self._builder.constant(f"{x}.norm.{role}", value) for role, value in values.items()]
        return self._builder.add(BatchNorm(), x, *names, name=f"{x}.norm")

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self._builder.add(Relu(), x, name=f"{x}.relu")

    def threshold(self, x: str, low: float, high: float) -> str:
        """0 up to `low`, 1 from `high` on, linear between."""
        slope = 1 / (high - low)
        return self._builder.add(HardSigmoid(slope=slope, offset=-low * slope), x, name=f"{x}.threshold")

    def max_pool(self, x: str) -> str:
        """Halves height and width, where they are at least 2."""
        high, wide, _ = self.shape(x)
        size = (min(2, high), min(2, wide))
        return self._builder.add(MaxPool(windows=Windows(kernel=size, stride=size)), x)

    def mean(self, x: str) -> str:
        """The mean of each channel's map."""
        return self._builder.add(GlobalMean(), x)

    def apply(self, op: type, *inputs: str) -> str:
        """An operation without attributes."""
        return self._builder.add(op(), *inputs)

    def classifier(self, x: str, classes: int) -> Graph:
        """The network that ends in a dense layer and softmax."""
        logits = self.dense("logits", x, classes)
        return self._builder.graph(self._builder.add(Softmax(), logits, name="softmax"))

    def graph(self, x: str) -> Graph:
        """The network that ends here."""
        return self._builder.graph(x)

    def _margins(self, x: str, kernel: Pair, stride: Pair, padding: Margins | None) -> Margins:
        return same(self.shape(x), kernel, stride) if padding is None else padding

    def _he(self, shape: Shape, fan_in: int) -> Array:
        return self._rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)

    def _layer(self, op: Conv2d | DepthwiseConv2d | Dense, name: str, x: str, weight: Array, out: int) -> str:
        w = self._builder.constant(f"{name}.weight", weight)
        b = self._builder.constant(f"{name}.bias", np.zeros(out))
        return self._builder.add(op, x, w, b, name=name)

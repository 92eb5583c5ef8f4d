"""The kernels with vectors, for the Cortex-M55: they are always built; they run where QEMU is installed."""

from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Add, AveragePool, Conv2d, Dense, DepthwiseConv2d, MaxPool, Reshape, Windows
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Core
from crosslayer.execute import reference
from crosslayer.execute.emulate import Image, left_out
from crosslayer.kernels.choose import call
from crosslayer.testing.chance import Seeded
from crosslayer.testing.executors import random_inputs, write_firmware

CORE = Core.CORTEX_M55
UNITS = {"conv_tile", "depthwise_quad", "pool_quad", "add_table", "dense_quad"}
GENERIC = {
    Rounding.DOUBLE: set[str](),
    Rounding.REFERENCE: {"dense_quad"},  # its dense layers round once
    Rounding.FLOAT: {"add_table"},
}
"""What each rule leaves to the generic kernels."""
needs_qemu = pytest.mark.skipif(CORE in left_out(), reason=left_out().get(CORE, ""))


class Net:
    """A network of random layers; each result's code is that of what some samples give, so that it is used whole."""

    def __init__(self, seed: int, rounding: Rounding) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = Builder(rounding)
        shape = (int(self.rng.integers(9, 14)), int(self.rng.integers(9, 14)), int(self.rng.integers(4, 24)))
        self.real = self.rng.normal(size=(8, *shape))
        self.x = self.builder.input("x", shape, self.fitting(self.real))

    def fitting(self, real: Array) -> Quant:
        """Reaches two and a half deviations from the mean."""
        scale = float(real.std()) / 51
        return Quant(bits=8, scale=(scale,), zero=(int(np.clip(-np.rint(real.mean() / scale), -100, 100)),))

    def shape(self) -> tuple[int, ...]:
        return tuple(self.builder.shape(self.x))

    def code(self) -> Quant:
        code = self.builder.code(self.x)
        assert code is not None
        return code

    def layer(self, op: Conv2d | DepthwiseConv2d | Dense, shape: tuple[int, ...], axis: int) -> None:
        """Weights from -128 to 127."""
        scale = self.rng.uniform(0.01, 0.02, shape[axis])
        weights = Quant(bits=8, scale=tuple(scale.tolist()), axis=axis)
        biases = Quant(bits=32, scale=tuple((self.code().scale[0] * scale).tolist()), axis=0)
        w, b = self.rng.integers(-128, 128, shape), self.rng.integers(-3000, 3000, shape[axis])
        self.real = np.asarray(op.real(np, self.real, weights.decode(w), biases.decode(b)))
        names = (self.builder.constant(f"{self.x}_w", w, weights), self.builder.constant(f"{self.x}_b", b, biases))
        self.x = self.builder.add(op, self.x, *names, quant=self.fitting(self.real))

    def windows(self, most: int) -> Windows:
        """Padding on all sides, of none to all of the window but one place."""
        high, wide = (int(v) for v in self.rng.integers(1, most + 1, 2))
        dilation = (1, 1) if self.rng.integers(3) else (2, 2)
        stride = (1, 1) if self.rng.integers(2) else (int(self.rng.integers(1, 3)), int(self.rng.integers(1, 3)))
        top, bottom = (int(v) for v in self.rng.integers(0, high, 2))
        left, right = (int(v) for v in self.rng.integers(0, wide, 2))
        return Windows(kernel=(high, wide), stride=stride, dilation=dilation, padding=(top, bottom, left, right))

    def conv(self, windows: Windows, count: int) -> None:
        self.layer(Conv2d(windows=windows), (count, *windows.kernel, self.shape()[2]), 0)

    def depthwise(self, windows: Windows) -> None:
        self.layer(DepthwiseConv2d(windows=windows), (*windows.kernel, self.shape()[2]), 2)

    def residual(self) -> None:
        """The sum of a value and of a convolution of it, whose scale is another one."""
        before, real = self.x, self.real
        self.conv(Windows(kernel=(3, 3), padding=(1, 1, 1, 1)), self.shape()[2])
        self.real = real + self.real
        self.x = self.builder.add(Add(), before, self.x, quant=self.fitting(self.real))

    def pool(self, op: MaxPool | AveragePool) -> None:
        self.real = np.asarray(op.real(np, self.real))
        self.x = self.builder.add(op, self.x, quant=self.code())

    def dense(self, count: int) -> None:
        flat = Reshape(shape=(int(np.prod(self.shape())),))
        self.real = self.real.reshape(len(self.real), -1)
        self.x = self.builder.add(flat, self.x, quant=self.code())
        self.layer(Dense(), (count, self.shape()[0]), 0)


def random_network(seed: int, rounding: Rounding) -> Graph:
    """Every unit kernel, some more than once, with random sizes and geometry."""
    net = Net(seed, rounding)
    for pool in (MaxPool, AveragePool):
        net.conv(net.windows(4), int(net.rng.integers(4, 30)))
        net.depthwise(net.windows(3))
        net.conv(Windows(kernel=(1, 1)), int(net.rng.integers(5, 40)))
        net.residual()
        net.pool(pool(windows=net.windows(2)))
    net.dense(int(net.rng.integers(4, 30)))
    net.dense(int(net.rng.integers(5, 12)))
    return net.builder.graph(net.x)


def kernels(graph: Graph) -> set[str]:
    found = (call(graph, node, by_rows=False) for node in graph.nodes)
    return {made.kernel for made in found if made is not None and made.unit}


@pytest.mark.parametrize("rounding", Rounding)
def test_the_kernels_are_built_without_the_emulator(rounding: Rounding, tmp_path: Path) -> None:
    graph = random_network(0, rounding)
    assert kernels(graph) == UNITS - GENERIC[rounding]
    folder = write_firmware(graph, tmp_path / "firmware", random_inputs(graph, Seeded(0), 1))
    assert ".text" in Image.link(folder, CORE).sections


@needs_qemu
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_the_bytes_are_those_of_the_judge(seed: int, rounding: Rounding, tmp_path: Path) -> None:
    graph = random_network(seed, rounding)
    assert kernels(graph) == UNITS - GENERIC[rounding]
    x = random_inputs(graph, Seeded(seed), 6)
    run = Image.link(write_firmware(graph, tmp_path / "firmware", x[:1]), CORE).run(x)
    truth = reference.run(graph, x).reshape(len(x), -1).view(np.uint8)
    assert len(np.unique(truth)) > len(truth), "the codes must not all be the same, or nothing is tested"
    assert np.array_equal(run.outputs, truth)


@needs_qemu
def test_vectors_take_a_fraction_of_the_instructions(tmp_path: Path) -> None:
    """Against a core with the DSP instructions but without vectors."""
    net = Net(0, Rounding.DOUBLE)
    net.conv(Windows(kernel=(1, 1)), 32)
    net.conv(Windows(kernel=(3, 3), padding=(1, 1, 1, 1)), 32)
    graph = net.builder.graph(net.x)
    x = random_inputs(graph, Seeded(0), 2)
    folder = write_firmware(graph, tmp_path / "firmware", x[:1])
    vectors, without = (Image.link(folder, core).run(x).instructions for core in (CORE, Core.CORTEX_M33))
    assert 3 * vectors.max() < without.min()

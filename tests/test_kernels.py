"""The fast kernels: picked where they can run, and the judge's bytes whatever the geometry, the rule and the core."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    MaxPool,
    Reshape,
    Softmax,
    Transpose,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Core
from crosslayer.execute import reference
from crosslayer.execute.elf import Elf
from crosslayer.execute.emulate import Image, left_out
from crosslayer.execute.native import self_test
from crosslayer.kernels.choose import call
from crosslayer.testing.chance import Chance, Seeded
from crosslayer.testing.executors import random_inputs, write_firmware

CORES = [core for core in (Core.CORTEX_M4, Core.CORTEX_M0) if core not in left_out()]


SEEDS = (1, 2)  # two networks that hold every case between them


class Layers:
    """A network under construction whose values all have one code, so that all of them can be in its output."""

    def __init__(self, rounding: Rounding, code: Quant, shape: tuple[int, ...], seed: int) -> None:
        self.b, self.code, self.rng = Builder(rounding), code, np.random.default_rng(seed)
        self.values = [self.b.input("x", shape, code)]

    def weights(self, x: str, shape: tuple[int, ...], axis: int, factor: Array) -> tuple[str, str]:
        """Weights of any size and biases of a layer that multiplies the sum of each output with its `factor`."""
        scale = tuple(np.broadcast_to(factor, shape[axis]).tolist()) if len(factor) > 1 else (float(factor[0]),)
        taps = Quant(bits=8, scale=scale, axis=axis if len(factor) > 1 else None)
        weight = self.rng.integers(-127, 128, shape)
        weight[self.rng.random(shape) < 0.1] = 127
        bias = self.rng.integers(-9000, 9001, shape[axis])
        n = len(self.values)
        return self.b.constant(f"w{n}", weight, taps), self.b.constant(f"c{n}", bias, bias_code(self.code, taps))

    def keep(self, name: str) -> str:
        self.values.append(name)
        return name

    def conv(self, x: str, out: int, windows: Windows, factor: Array) -> str:
        constants = self.weights(x, (out, *windows.kernel, self.b.shape(x)[2]), 0, factor)
        return self.keep(self.b.add(Conv2d(windows=windows), x, *constants, quant=self.code))

    def depthwise(self, x: str, windows: Windows, factor: Array) -> str:
        constants = self.weights(x, (*windows.kernel, self.b.shape(x)[2]), 2, factor)
        return self.keep(self.b.add(DepthwiseConv2d(windows=windows), x, *constants, quant=self.code))

    def dense(self, x: str, out: int, factor: Array) -> str:
        flat = self.b.add(Reshape(shape=(int(np.prod(self.b.shape(x))),)), x)
        constants = self.weights(flat, (out, *self.b.shape(flat)), 0, factor)
        return self.keep(self.b.add(Dense(), flat, *constants, quant=self.code))

    def graph(self) -> Graph:
        """The network whose output holds every value, one after the other."""
        flat = [self.b.add(Reshape(shape=(int(np.prod(self.b.shape(v))),)), v) for v in self.values]
        return self.b.graph(self.b.add(Concat(axis=0), *flat, quant=self.code))


def windows(chance: Chance, high: int, wide: int, *, pool: bool = False) -> Windows:
    """Any windows with at least one place; those of a pool with something of the input in each."""
    (kh, dh, sh, top, bottom), (kw, dw, sw, left, right) = (side(chance, size, pool) for size in (high, wide))
    return Windows(kernel=(kh, kw), dilation=(dh, dw), stride=(sh, sw), padding=(top, bottom, left, right))


def side(chance: Chance, size: int, pool: bool) -> tuple[int, int, int, int, int]:
    kernel, stride, dilation = chance.integer(1, 5), chance.one_of((1, 1, 2, 3)), chance.one_of((1, 1, 2, 3))
    if pool:
        kernel, dilation = min(kernel, size), 1
        before, after = (chance.integer(0, kernel - 1) for _ in range(2))
        return kernel, dilation, stride, before, after
    before, after = chance.integer(0, 3), chance.integer(0, 3)
    reach = (kernel - 1) * dilation + 1
    return kernel, dilation, stride, before, max(after, reach - size - before)


def spread(chance: Chance, fan: int, channels: int) -> Array:
    """Factors, of each channel or one for all, with which sums of so many products fill the codes and go beyond."""
    count = chance.one_of((channels, channels, 1))
    return chance.rng().uniform(0.2, 2.5, count) * 60 / (74 * 74 * np.sqrt(fan))


def random_layers(chance: Chance, rounding: Rounding) -> Graph:
    """Every kind of layer that has a fast kernel, of random geometry, one after the other and beside each other."""
    zero = chance.one_of((-128, 127, 0, chance.integer(-128, 127)))
    code = Quant(bits=8, scale=(0.1,), zero=(zero,))
    shape = chance.integer(1, 9), chance.integer(1, 9), chance.integer(1, 9)
    net = Layers(rounding, code, shape, chance.integer(0, 999))
    for kind in chance.rng().permutation(["conv"] * 5 + ["depthwise"] * 2 + ["pool"] * 2 + ["add"]).tolist():
        x = chance.one_of([v for v in net.values[-3:] if len(net.b.shape(v)) == 3])
        high, wide, channels = net.b.shape(x)
        seen = windows(chance, high, wide)
        fan = seen.kernel[0] * seen.kernel[1]
        if kind == "conv":
            if chance.rarely(3):
                seen, fan = (
                    Windows(kernel=(1, 1), stride=seen.stride, padding=chance.one_of([(0,) * 4, seen.padding])),
                    1,
                )
            out = chance.integer(1, 9)
            net.conv(x, out, seen, spread(chance, fan * channels, out))
        elif kind == "depthwise":
            net.depthwise(x, seen, spread(chance, fan, channels))
        elif kind == "pool":
            op = chance.one_of((AveragePool, MaxPool))(windows=windows(chance, high, wide, pool=True))
            net.keep(net.b.add(op, x, quant=code))
        else:
            twin = chance.one_of([v for v in net.values if net.b.shape(v) == net.b.shape(x)])
            net.keep(net.b.add(Add(), x, twin, quant=code))
    x = chance.one_of(net.values[-3:])
    out = chance.integer(1, 9)
    net.dense(x, out, spread(chance, int(np.prod(net.b.shape(x))), out))
    return net.graph()


def expected(graph: Graph) -> Iterator[tuple[str, str]]:
    """Each layer and the kernel that it deserves, told once more."""
    exact = graph.rounding is not Rounding.FLOAT
    for node in graph.nodes:
        channels = graph.types[node.name].shape[-1]
        match node.op:
            case Conv2d():
                yield node.name, "conv_tile" if channels >= 2 else "conv2d_s8"
            case DepthwiseConv2d():
                yield node.name, "depthwise_quad" if channels >= 4 else "depthwise_s8"
            case MaxPool() | AveragePool():
                generic = "max_pool" if isinstance(node.op, MaxPool) else "average_pool"
                yield node.name, "pool_quad" if channels >= 4 else generic
            case Add():
                yield node.name, "add_table" if exact else "add_s8"
            case Dense():
                yield node.name, "dense_s8" if graph.rounding is Rounding.REFERENCE else "dense_quad"
            case _:
                pass


def picked(graph: Graph) -> dict[str, str]:
    """The kernel of each node that runs."""
    calls = {node.name: call(graph, node, by_rows=False) for node in graph.nodes}
    return {name: found.kernel for name, found in calls.items() if found is not None}


def check(graph: Graph, folder: Path, samples: int = 12, emulated: int = 4) -> None:
    """C on this computer, under the sanitizers, and on cores with and without DSP, gives the judge's bytes."""
    x = random_inputs(graph, Seeded(1), samples)
    truth = reference.run(graph, x).reshape(samples, -1).view(np.uint8)
    write_firmware(graph, folder, x[:1])
    assert np.array_equal(self_test(folder, x).outputs, truth)
    for core in CORES:
        assert np.array_equal(Image.link(folder, core).run(x[:emulated]).outputs, truth[:emulated]), core


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("seed", SEEDS)
def test_layers_of_any_geometry_are_the_judge_s(seed: int, rounding: Rounding, tmp_path: Path) -> None:
    graph = random_layers(Seeded(seed, 5), rounding)
    kernels = picked(graph)
    assert {name: kernels[name] for name, _ in expected(graph)} == dict(expected(graph))
    check(graph, tmp_path / "firmware")


def test_random_layers_hold_every_case() -> None:
    """Otherwise the property above says less than it seems to."""
    graphs = [random_layers(Seeded(seed, 5), Rounding.DOUBLE) for seed in SEEDS]
    kernels = {kernel for graph in graphs for kernel in picked(graph).values()}
    assert kernels >= {"conv_tile", "depthwise_quad", "dense_quad", "add_table", "pool_quad"}
    nodes = [(graph, node) for graph in graphs for node in graph.nodes]
    convs = [(graph, node, node.op.windows) for graph, node in nodes if isinstance(node.op, Conv2d)]
    inputs = [graph.types[node.inputs[0]].shape for graph, node, _ in convs]
    assert any(w.kernel == (1, 1) and w.padding == (0, 0, 0, 0) for _, _, w in convs)
    assert any(w.kernel == (1, 1) and any(w.padding) for _, _, w in convs)
    assert any(w.kernel == (1, 1) and w.stride != (1, 1) for _, _, w in convs)
    assert any(w.dilation[1] > 1 and w.kernel[1] > 1 for _, _, w in convs)
    assert any(w.padding[2] != w.padding[3] for _, _, w in convs)
    assert any(w.reach()[1] > shape[1] for (_, _, w), shape in zip(convs, inputs, strict=True))
    assert {shape[2] % 4 for shape in inputs} == {0, 1, 2, 3}
    assert {graph.types[node.name].shape[2] % 2 for graph, node, _ in convs} == {0, 1}
    assert {graph.types[node.name].shape[1] % 2 for graph, node, _ in convs} == {0, 1}
    assert any(graph.types[node.name].shape[:2] == (1, 1) for graph, node, _ in convs)


def test_what_reads_no_row_or_moves_rows_is_not_made_row_by_row() -> None:
    """A copy of a constant would begin anew with each row; a transpose reads all rows."""
    net = Layers(Rounding.DOUBLE, Quant(bits=8, scale=(0.1,)), (4, 4, 4), 0)
    fixed = net.b.constant("fixed", np.zeros((4, 4, 4)), net.code)
    for name in (net.b.add(Constant(), fixed, quant=net.code), net.b.add(Transpose(permutation=(1, 0, 2)), "x")):
        graph = net.b.graph(name)
        found = call(graph, graph.producers[name], by_rows=False)
        assert call(graph, graph.producers[name], by_rows=True) is None
        assert found is not None
        assert not found.forward


FACTORS = {
    "below a half": (0.499, "unit"),
    "a half": (0.5, "generic"),
    "one and more": (1.5, "generic"),
    "small": (2.0**-18, "unit"),
    "the smallest that shift": (2.0**-22, "unit"),
    "so small that all is zero": (2.0**-60, "unit"),
}
"""Factors of a layer's sums under the rule 'double', and what runs it."""


@pytest.mark.parametrize("factor", FACTORS)
def test_factors_at_the_ends_give_the_judge_s_bytes(factor: str, tmp_path: Path) -> None:
    value, kind = FACTORS[factor]
    net = Layers(Rounding.DOUBLE, Quant(bits=8, scale=(0.1,), zero=(-7,)), (5, 3, 5), 3)
    plain = np.array([value, value * 0.9, value, value * 0.9, value])
    net.conv("x", 5, Windows(kernel=(2, 2)), plain)
    net.depthwise("x", Windows(kernel=(3, 3), padding=(1, 1, 1, 1)), plain)
    net.dense("x", 5, plain)
    graph = net.graph()
    units = {"conv_tile", "depthwise_quad", "dense_quad"}
    layers = set(picked(graph).values()) - {"concat"}
    assert layers == (units if kind == "unit" else {"conv2d_s8", "depthwise_s8", "dense_s8"})
    check(graph, tmp_path / "firmware")


@pytest.mark.parametrize(("bias", "kernel"), [((1 << 30) - 33_000, "conv_tile"), ((1 << 30) - 100, "conv2d_s8")])
def test_sums_next_to_2_to_the_30_give_the_judge_s_bytes(bias: int, kernel: str, tmp_path: Path) -> None:
    code = Quant(bits=8, scale=(1.0,), zero=(-128,))
    taps = Quant(bits=8, scale=(2.0**-22,))
    b = Builder(Rounding.DOUBLE)
    x = b.input("x", (2, 3, 1), code)
    w = b.constant("w", np.array([127, -127, 1]).reshape(3, 1, 1, 1), taps)
    c = b.constant("c", np.array([bias, -bias, bias // 2]), bias_code(code, taps))
    graph = b.graph(b.add(Conv2d(windows=Windows(kernel=(1, 1))), x, w, c, quant=code))
    assert picked(graph) == {graph.outputs[0]: kernel}
    check(graph, tmp_path / "firmware")


@pytest.mark.parametrize("bounded", [Activation.RELU, Activation.RELU6])
def test_layers_that_end_before_the_codes_do_run_generic_kernels(bounded: Activation) -> None:
    code = Quant(bits=8, scale=(0.1,), zero=(0,))
    net = Layers(Rounding.DOUBLE, code, (4, 4, 4), 0)
    constants = net.weights("x", (4, 1, 1, 4), 0, np.array([0.001]))
    net.keep(net.b.add(Conv2d(windows=Windows(kernel=(1, 1)), activation=bounded), "x", *constants, quant=code))
    assert "conv2d_s8" in picked(net.graph()).values()


ADDED = {
    "one scale": (0.1, 0.1, 0.1, "add_table"),
    "the second is finer": (0.1, 0.013, 0.07, "add_table"),
    "the first is finer": (0.0007, 0.1, 0.12, "add_table"),
    "the result is coarse": (0.1, 0.09, 0.7, "add_table"),
    "the result is too coarse": (0.1, 0.09, 40.0, "add_s8"),
    "the result is too fine": (0.1, 0.1, 0.0000001, "add_s8"),
}
"""Scales of two terms and of their sum, and what adds them."""


@pytest.mark.parametrize("scales", ADDED)
def test_sums_of_any_scales_are_the_judge_s(scales: str, tmp_path: Path) -> None:
    a, b, y, kernel = ADDED[scales]
    first = Quant(bits=8, scale=(a,), zero=(-128,))
    second, result = Quant(bits=8, scale=(b,), zero=(127,)), Quant(bits=8, scale=(y,), zero=(3,))
    net = Layers(Rounding.DOUBLE, first, (3, 5, 7), 0)
    constants = net.weights("x", (7, 1, 1, 7), 0, np.array([0.003]))
    twin = net.b.add(Conv2d(windows=Windows(kernel=(1, 1))), "x", *constants, quant=second)
    graph = net.b.graph(net.b.add(Add(), "x", twin, quant=result))
    assert picked(graph)[graph.outputs[0]] == kernel
    check(graph, tmp_path / "firmware")


@pytest.mark.parametrize(("shape", "scale"), [((3, 10), 0.1), ((1,), 0.5), ((2, 3, 5), 3.0), ((100,), 0.004)])
def test_shares_are_the_judge_s(shape: tuple[int, ...], scale: float, tmp_path: Path) -> None:
    code = Quant(bits=8, scale=(scale,), zero=(11,))
    graphs: dict[Rounding, Graph] = {}
    for rounding in Rounding:
        b = Builder(rounding)
        x = b.input("x", shape, code)
        graphs[rounding] = b.graph(b.add(Softmax(), x, quant=Softmax().code([code], [shape])))
    kernels = {rounding: list(picked(graph).values()) for rounding, graph in graphs.items()}
    assert kernels == {
        Rounding.DOUBLE: ["softmax_table"],
        Rounding.REFERENCE: ["softmax_table"],
        Rounding.FLOAT: ["softmax_s8"],
    }
    check(graphs[Rounding.DOUBLE], tmp_path / "firmware")


@pytest.mark.skipif(Core.CORTEX_M4 not in CORES, reason="the emulator is absent")
def test_tables_that_are_read_by_the_word_begin_at_words(tmp_path: Path) -> None:
    """A load of several words from elsewhere stops a Cortex-M; the emulator does not notice."""
    graph = random_layers(Seeded(0, 5), Rounding.DOUBLE)
    folder = write_firmware(graph, tmp_path / "firmware", random_inputs(graph, Seeded(0), 1))
    symbols = Elf.read(Image.link(folder, Core.CORTEX_M4).made.path).symbols
    units = ("conv2d", "depthwise", "dense")
    tables = {n: at for n, at in symbols.items() if n.endswith("_weight") and any(unit in n for unit in units)}
    assert len(tables) > 5
    assert [name for name, at in tables.items() if at % 4] == []

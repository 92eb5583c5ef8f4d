"""One network, one meaning: the judge, the fast executor, C on this computer and every emulated core."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import verify
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import OPS, Conv2d, Dense, DepthwiseConv2d, Windows
from crosslayer.core.quant import Quant
from crosslayer.core.target import Core
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import left_out
from crosslayer.execute.native import Native, self_test
from crosslayer.execute.toolchain import Level, default_cache
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import check_exact, check_executors, random_inputs, write_firmware
from crosslayer.testing.graphs import EXAMPLES, float_graph, has_integers, integer_graph, operation_graph

KERNEL_OPS = [op for op in OPS if op.kernel]
CORES = [pytest.param(c, marks=pytest.mark.skipif(c in left_out(), reason=left_out().get(c, ""))) for c in Core]
WIDTHS = [(op, wide) for op in KERNEL_OPS for wide in (False, True) if op.wide_kernel or not wide]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds that do not drive others out of the user's cache."""
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(default_cache() / "zig"))
    monkeypatch.setattr("platformdirs.user_cache_path", tmp_path.joinpath)


@pytest.mark.parametrize("rounding", Rounding)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_fast_executor_is_the_judge(rounding: Rounding, data: st.DataObject) -> None:
    def make(chance: Chance) -> None:
        graph = integer_graph(chance, rounding)
        verify(graph)
        check_exact(graph, random_inputs(graph, chance, 8))

    data.draw(grown(make))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_samples_of_a_batch_do_not_see_each_other(data: st.DataObject) -> None:
    def make(chance: Chance) -> None:
        graph = integer_graph(chance, chance.one_of(tuple(Rounding)))
        x = random_inputs(graph, chance, 6)
        together = reference.run(graph, x)
        assert np.array_equal(np.concatenate([reference.run(graph, x[i : i + 1]) for i in range(6)]), together)
        assert np.array_equal(exact.run(graph, x[::-1])[::-1], together)

    data.draw(grown(make))


LONG: list[tuple[Op, tuple[int, ...], tuple[int, ...]]] = [  # operation, input, weight
    (Dense(), (4000,), (16, 4000)),
    (Conv2d(windows=Windows(kernel=(3, 3), padding=(1, 1, 1, 1))), (4, 3, 400), (16, 3, 3, 400)),
    (DepthwiseConv2d(windows=Windows(kernel=(40, 40))), (42, 40, 16), (40, 40, 16)),
]


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(("op", "shape", "weight"), LONG)
def test_sums_that_float32_cannot_hold_are_exact(
    op: Op, shape: tuple[int, ...], weight: tuple[int, ...], rounding: Rounding
) -> None:
    """Sums go far past 2^24, where float32 skips every other integer, and come back to where codes show each unit."""
    source, taps = Quant(bits=8, scale=(1.0,), zero=(127,)), Quant(bits=8, scale=(1.0,))
    rng, b = np.random.default_rng(0), Builder(rounding)
    sums = np.full(weight, 127)
    halves = sums.reshape(len(sums), -1) if op.channel_axis == 0 else sums.reshape(-1, 16).T
    halves[:, halves.shape[1] // 2 :] = -127
    w = b.constant("w", sums, taps)
    c = b.constant("c", rng.integers(-9, 9, 16), Quant(bits=32, scale=(1.0,)))
    graph = b.graph(b.add(op, b.input("x", shape, source), w, c, quant=Quant(bits=8, scale=(1.0,))))
    x = np.full((6, *shape), -128, np.int8)
    x += (rng.random(x.shape) < 1e-4).astype(np.int8)
    check_exact(graph, x)


def test_a_batch_shared_among_processors_is_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_BATCH_BYTES", 4096)
    for rounding in Rounding:
        graph = integer_graph(Seeded(31), rounding)
        x = random_inputs(graph, Seeded(32), 301)
        assert np.array_equal(exact.run(graph, x), reference.run(graph, x))


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("seed", range(6))
def test_c_on_this_computer_is_the_judge(seed: int, rounding: Rounding, tmp_path: Path) -> None:
    graph = integer_graph(Seeded(seed, 1), rounding)
    check_executors(graph, tmp_path / "firmware", random_inputs(graph, Seeded(seed), 200))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("rounding", Rounding)
def test_every_core_is_the_judge(rounding: Rounding, core: Core, tmp_path: Path) -> None:
    graph = integer_graph(Seeded(zlib.crc32(rounding.encode())), rounding)
    check_executors(graph, tmp_path / "firmware", random_inputs(graph, Seeded(0), 8), cores=[core], emulated=8)


@pytest.mark.parametrize(("op", "wide"), WIDTHS)
def test_the_sanitizers_find_nothing(op: type[Op], wide: bool, tmp_path: Path) -> None:
    rounding = tuple(Rounding)[KERNEL_OPS.index(op) % 3]
    graph = operation_graph(Seeded(11), op, rounding, wide=wide)
    x = random_inputs(graph, Seeded(12), 64)
    found = self_test(write_firmware(graph, tmp_path / "firmware", x[:1]), x)
    assert found.outputs.tobytes() == reference.run(graph, x).tobytes()


@pytest.mark.parametrize("level", [Level.O0, Level.O3, Level.OS])
def test_the_optimisation_level_changes_no_byte(level: Level, tmp_path: Path) -> None:
    graph = integer_graph(Seeded(21), Rounding.FLOAT)
    x = random_inputs(graph, Seeded(22), 100)
    native = Native.build(write_firmware(graph, tmp_path / "firmware", x[:1]), level=level)
    assert native.run(x).tobytes() == reference.run(graph, x).tobytes()


def test_random_networks_hold_every_operation() -> None:
    """Otherwise the properties above say less than they seem to."""
    whole = [integer_graph(Seeded(seed), Rounding.DOUBLE) for seed in range(300)]
    real = [float_graph(Seeded(seed)) for seed in range(100)]
    assert {type(n.op) for graph in whole for n in graph.nodes} == {op for op in OPS if has_integers(op)}
    assert {type(n.op) for graph in real for n in graph.nodes} >= set(EXAMPLES)
    sizes = [len(graph.nodes) for graph in whole]
    assert min(sizes) <= 2
    assert max(sizes) >= 12
    assert any(len(graph.users[node.name]) > 1 for graph in whole for node in graph.nodes)
    layers = [(graph, n) for graph in whole for n in graph.nodes if n.op.channel_axis is not None]
    bits = {tuple(code.bits for o in graph.operands(n) if (code := o.type.quant) is not None) for graph, n in layers}
    assert {weight for activation, weight, _ in bits if activation <= 8} == set(range(1, 9))
    assert {(activation > 8, bias) for activation, _, bias in bits} == {(False, 32), (True, 32), (True, 64)}
    assert any(activation <= 4 for activation, _, _ in bits)
    assert any(weight > 8 for _, weight, _ in bits)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("rounding", Rounding)
def test_c_on_this_computer_is_the_judge_for_hundreds_of_networks(rounding: Rounding, tmp_path: Path) -> None:
    for seed in range(150):
        graph = integer_graph(Seeded(seed, 2), rounding)
        check_executors(graph, tmp_path / "firmware", random_inputs(graph, Seeded(seed), 300))


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("core", CORES)
def test_every_core_is_the_judge_for_dozens_of_networks(core: Core, tmp_path: Path) -> None:
    for seed in range(30):
        graph = integer_graph(Seeded(seed, 3), tuple(Rounding)[seed % 3])
        check_executors(graph, tmp_path / "firmware", random_inputs(graph, Seeded(seed), 20), cores=[core], emulated=20)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(("op", "wide"), WIDTHS)
def test_the_sanitizers_find_nothing_in_many_networks(op: type[Op], wide: bool, tmp_path: Path) -> None:
    for seed in range(12):
        graph = operation_graph(Seeded(seed, 4), op, tuple(Rounding)[seed % 3], wide=wide)
        x = random_inputs(graph, Seeded(seed), 200)
        found = self_test(write_firmware(graph, tmp_path / "firmware", x[:1]), x)
        assert found.outputs.tobytes() == reference.run(graph, x).tobytes()

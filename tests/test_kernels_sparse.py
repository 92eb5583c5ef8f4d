"""Compressed weights: the judge's bytes whatever is zero, taken where that pays, and counted as they are stored."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.dataset import Split
from crosslayer.core.design import Design
from crosslayer.core.errors import InputError, ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Conv2d, Windows
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.plan import Plan
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.execute import reference
from crosslayer.execute.elf import Elf
from crosslayer.execute.emulate import Image, left_out
from crosslayer.execute.native import Native, self_test
from crosslayer.fault.flips import MASK, Flip, changes, flipped, population, random_flips, stored
from crosslayer.fault.protect import ProtectWeights
from crosslayer.fault.search import Attacker, Effort, Knowledge, attack
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels import sparse
from crosslayer.kernels.choose import call
from crosslayer.kernels.counts import predict
from crosslayer.kernels.sparse import compressed
from crosslayer.kernels.steps import steps_of
from crosslayer.plan.arena import plan_arena
from crosslayer.plan.weights import placed_bytes, stored_bytes
from crosslayer.testing.chance import Chance, Seeded
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.stages import small_bench
from test_kernels import Layers, picked, spread, windows

CORES = [core for core in (Core.CORTEX_M4, Core.CORTEX_M0, Core.RV32) if core not in left_out()]
TARGET = load_target("stm32f769")
CODE = Quant(bits=8, scale=(0.1,), zero=(-3,))
Zeros = float | tuple[int, int]
"""A share, or how many of every few in a row are not zero."""
EVERY: tuple[Zeros, ...] = (0.0, 0.5, 0.75, 0.9, 0.99, 1.0, (2, 4), (1, 4))
SEEDS = [(0, Rounding.DOUBLE), (1, Rounding.DOUBLE), (2, Rounding.FLOAT)]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are compressed even where that does not pay."""
    monkeypatch.setattr(sparse, "LARGEST_SHARE", 100.0)


class Holed(Layers):
    """Layers whose weights are zero in part."""

    zeros: Zeros = 0.0

    def weights(self, x: str, shape: tuple[int, ...], axis: int, factor: Array) -> tuple[str, str]:
        scale = tuple(np.broadcast_to(factor, shape[axis]).tolist()) if len(factor) > 1 else (float(factor[0]),)
        taps = Quant(bits=8, scale=scale, axis=axis if len(factor) > 1 else None)
        n = len(self.values)
        bias = self.b.constant(f"c{n}", self.rng.integers(-900, 901, shape[axis]), bias_code(self.code, taps))
        return self.b.constant(f"w{n}", holed(self.rng, shape, self.zeros), taps), bias


def holed(rng: np.random.Generator, shape: tuple[int, ...], zeros: Zeros) -> Array:
    """Codes (outputs, …) from −128 to 127, none zero but where it must be."""
    flat = shape[0], int(np.prod(shape[1:]))
    codes = np.where(rng.random(flat) < 0.5, rng.integers(1, 128, flat), rng.integers(-128, 0, flat))
    if isinstance(zeros, tuple):
        keep, every = zeros
        codes[:, np.arange(codes.shape[1]) % every >= keep] = 0
    else:
        codes[rng.random(codes.shape) < zeros] = 0
    return codes.reshape(shape)


def everything(chance: Chance, rounding: Rounding) -> Graph:
    """A convolution and a dense layer of random geometry for each kind of zeros, all of whose results are seen."""
    code = Quant(bits=8, scale=(0.1,), zero=(chance.integer(-128, 127),))
    shape = chance.integer(2, 9), chance.integer(2, 9), chance.integer(1, 9)
    net = Holed(rounding, code, shape, chance.integer(0, 999))
    for i, zeros in enumerate(EVERY):
        net.zeros = zeros
        seen = Windows(kernel=(1, 1)) if i == 3 else windows(chance, *shape[:2])
        out = chance.integer(1, 9)
        net.conv("x", out, seen, spread(chance, seen.kernel[0] * seen.kernel[1] * shape[2], out))
        out = chance.integer(1, 9)
        net.dense("x", out, spread(chance, int(np.prod(shape)), out))
    return net.graph()


def chain(zeros: float, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """Convolutions and dense layers, nothing else."""
    net = Holed(rounding, CODE, (9, 9, 5), 1)
    net.zeros = zeros
    x = net.conv("x", 12, Windows(kernel=(3, 3), padding=(1, 1, 1, 1)), np.array([0.004, *[0.003] * 11]))
    x = net.conv(x, 10, Windows(kernel=(3, 3), stride=(2, 2)), np.array([0.003]))
    return net.b.graph(net.dense(x, 30, np.array([0.003])))


def written(graph: Graph, plan: Plan, folder: Path) -> Path:
    emit(Design(graph=graph, target=TARGET, plan=plan), folder, random_inputs(graph, Seeded(0), 1))
    return folder


def truth_of(graph: Graph, x: Array) -> Array:
    return reference.run(graph, x).reshape(len(x), -1).view(np.uint8)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("seed", "rounding"), SEEDS)
def test_any_zeros_give_the_bytes_of_the_judge_in_the_instructions_that_are_predicted(
    seed: int, rounding: Rounding, tmp_path: Path
) -> None:
    graph = everything(Seeded(seed, 7), rounding)
    kernels = {name: kernel for name, kernel in picked(graph).items() if kernel != "concat"}
    assert set(kernels.values()) == {"conv_sparse", "dense_sparse"}
    x, plan = random_inputs(graph, Seeded(seed), 6), plan_arena(graph)
    folder, truth = written(graph, plan, tmp_path / "firmware"), truth_of(graph, x)
    assert np.array_equal(self_test(folder, x).outputs, truth)
    for core in CORES:
        ran, found = Image.link(folder, core).run(x[:3]), predict(graph, plan, core)
        assert np.array_equal(ran.outputs, truth[:3]), core
        if found is None:
            assert rounding is Rounding.FLOAT and core is not Core.CORTEX_M4
            continue
        seen = dict(zip(found.by_step, (ran.by_step / 3).tolist(), strict=True))
        assert {name: seen[name] for name in kernels} == {name: found.by_step[name] for name in kernels}


def test_random_layers_hold_every_case() -> None:
    """Otherwise the property above says less than it seems to."""
    graphs = [everything(Seeded(seed, 7), rounding) for seed, rounding in SEEDS]
    layers = [(graph, node) for graph in graphs for node in graph.nodes if node.op.channel_axis is not None]
    weights = [graph.constants[node.inputs[1]] for graph, node in layers]
    convs = [(graph.types[node.name].shape, node.op) for graph, node in layers if isinstance(node.op, Conv2d)]
    assert {shape[1] % 4 for shape, _ in convs} == {0, 1, 2, 3}
    assert any(op.windows.dilation[1] > 1 and op.windows.kernel[1] > 1 for _, op in convs)
    assert any(any(op.windows.padding) for _, op in convs)
    assert any(op.windows.stride[1] > 1 for _, op in convs)
    assert any(weight[0].size % 32 for weight in weights)
    assert any(weight[0].size > 32 for weight in weights)
    assert any(not weight.any() for weight in weights)


@pytest.mark.parametrize("core", CORES)
def test_a_whole_network_takes_the_instructions_and_the_stack_that_are_predicted(core: Core, tmp_path: Path) -> None:
    graph = chain(0.9)
    plan = plan_arena(graph)
    assert set(picked(graph).values()) == {"conv_sparse", "dense_sparse"}
    image = Image.link(written(graph, plan, tmp_path / "firmware"), core)
    ran, found = image.run(random_inputs(graph, Seeded(0), 2)), predict(graph, plan, core)
    assert found is not None
    assert ran.instructions.tolist() == [found.instructions] * 2
    assert found.stack_bytes == image.stack_bound().bytes


@pytest.mark.parametrize("core", CORES)
def test_rows_that_run_together_or_arrive_one_by_one_give_the_same_bytes(core: Core, tmp_path: Path) -> None:
    graph = chain(0.9)
    plans = {"together": plan_arena(graph), "streamed": plan_arena(graph, streamed=True)}
    x = random_inputs(graph, Seeded(3), 2)
    assert all(plan.groups for plan in plans.values())
    for name, plan in plans.items():
        ran = Image.link(written(graph, plan, tmp_path / name), core).run(x)
        assert np.array_equal(ran.outputs, truth_of(graph, x)), name


@pytest.mark.parametrize(
    ("zeros", "kernels"),
    [
        (0.5, {"conv_tile", "dense_quad"}),
        ((2, 4), {"conv_tile", "dense_quad"}),
        ((1, 4), {"conv_sparse", "dense_sparse"}),
        (0.8, {"conv_sparse", "dense_sparse"}),
    ],
)
def test_weights_are_compressed_where_most_are_zero(zeros: Zeros, kernels: set[str]) -> None:
    net = Holed(Rounding.DOUBLE, CODE, (6, 6, 32), 0)
    net.zeros = zeros
    net.conv("x", 8, Windows(kernel=(3, 3)), np.array([0.003]))
    net.dense("x", 8, np.array([0.003]))
    assert set(picked(net.graph()).values()) - {"concat"} == kernels


def test_small_layers_stay_dense_for_masks_would_take_more() -> None:
    net = Holed(Rounding.DOUBLE, CODE, (6, 6, 1), 0)
    net.zeros = 0.9
    net.conv("x", 8, Windows(kernel=(2, 2)), np.array([0.003]))
    assert "conv_tile" in picked(net.graph()).values()


@pytest.mark.parametrize(("groups", "bits"), [(2, 8), (1, 7)])
def test_groups_and_codes_of_fewer_bits_stay_as_they_were(groups: int, bits: int) -> None:
    taps = Quant(bits=bits, scale=(0.003,))
    b = Builder(Rounding.DOUBLE)
    x = b.input("x", (6, 6, 32), CODE)
    weight = np.zeros((8, 3, 3, 32 // groups))
    weight[0] = 1
    constants = b.constant("w", weight, taps), b.constant("c", np.zeros(8), bias_code(CODE, taps))
    graph = b.graph(b.add(Conv2d(windows=Windows(kernel=(3, 3)), groups=groups), x, *constants, quant=CODE))
    found = call(graph, graph.producers[graph.outputs[0]], by_rows=False)
    assert found is not None
    assert found.kernel == "conv2d_s8"


def test_tables_hold_the_weights_and_no_zero_but_the_four_behind_them() -> None:
    rows = holed(np.random.default_rng(0), (7, 77), 0.8)
    numbers, tables = compressed(rows.astype(np.int8))
    bits = np.unpackbits(tables["mask"].astype(">u4").view(np.uint8), axis=1)[:, :77]
    again = np.zeros_like(rows)
    again[bits == 1] = tables["weight"][:-4]
    assert np.array_equal(again, rows)
    assert tables["stored"].tolist() == (rows != 0).sum(axis=1).tolist()
    assert numbers["codes"] == tables["stored"].sum()
    assert tables["weight"][-4:].tolist() == [0] * 4


def test_flash_is_what_the_tables_take_and_falls_with_the_zeros(tmp_path: Path) -> None:
    sizes: dict[float, int] = {}
    for zeros in (0.0, 0.9):
        graph = chain(zeros)
        plan = plan_arena(graph)
        image = Image.link(written(graph, plan, tmp_path / str(zeros)), Core.CORTEX_M4)
        made = Elf.read(image.made.path)
        tables = sum(size for name, size in made.sizes.items() if re.search("_(weight|mask|stored)$", name))
        assert tables == sum(stored_bytes(step.fields) for step in steps_of(graph, plan)[0])
        sizes[zeros] = image.flash_bytes
    taken = sum(value.size for name, value in chain(0.0).constants.items() if name.startswith("w"))
    assert sizes[0.0] - sizes[0.9] > 0.7 * taken


def test_masks_lie_beside_their_weights_in_a_memory_of_their_own(tmp_path: Path) -> None:
    graph = chain(0.9)
    plan = plan_arena(graph)
    last = graph.outputs[0]
    plan = replace(plan, weights={last: "qspi"})
    text = (written(graph, plan, tmp_path / "firmware") / "model.c").read_text()
    placed = {match[1] for match in re.finditer(r"\w+_(\w+)\[] MODEL_IN_QSPI =", text)}
    assert placed == {"weight", "mask", "stored"}
    fields = next(step.fields for step in steps_of(graph, plan)[0] if step.name == last)
    assert placed_bytes(graph, plan) == {"qspi": stored_bytes(fields)}


def test_the_check_sees_masks(tmp_path: Path) -> None:
    graph = chain(0.9)
    design = ProtectWeights(inferences=1)(Design(graph=graph, target=TARGET, plan=plan_arena(graph)), small_bench())
    x = random_inputs(graph, Seeded(0), 2)
    emit(design, tmp_path / "firmware", x[:1])
    native = Native.build(tmp_path / "firmware")
    assert np.array_equal(native.run(x), truth_of(graph, x))
    assert design.plan is not None
    mask = next(step.fields["mask"] for step in steps_of(graph, design.plan)[0])
    assert isinstance(mask, np.ndarray)
    made, table = native.made.path.read_bytes(), mask.astype("<u4").tobytes()
    assert made.count(table) == 1
    (tmp_path / "flipped.so").write_bytes(made.replace(table, bytes([table[0] ^ 1]) + table[1:]))
    with pytest.raises(ToolError, match="model_run returned -2"):
        replace(native, made=replace(native.made, path=tmp_path / "flipped.so")).run(x)


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.FLOAT])
def test_the_kernels_are_built_for_cores_with_vectors(rounding: Rounding, tmp_path: Path) -> None:
    graph = chain(0.9, rounding)
    assert Image.link(written(graph, plan_arena(graph), tmp_path / "firmware"), Core.CORTEX_M55).flash_bytes > 0


def planted(native: Native, graph: Graph, flips: Sequence[Flip], copy: Path) -> Native:
    """The firmware with the bits flipped in its compiled tables."""
    made = native.made.path.read_bytes()
    for step in steps_of(graph, plan_arena(graph))[0]:
        weight = graph.producers[step.name].inputs[1]
        for name, masks in (("weight", False), ("mask", True)):
            value = step.fields[name]
            assert isinstance(value, np.ndarray)
            before = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"))).tobytes()
            assert made.count(before) == 1
            table, changed = value.copy(), graph.constants[weight]
            places = np.cumsum(changed.ravel() != 0) - 1
            inputs = changed[0].size
            for flip in flips:
                if flip.weight == weight and (flip.bit == MASK) == masks:
                    row, at = divmod(flip.index, inputs)
                    if masks:
                        table[row, at // 32] ^= np.uint32(1 << 31 - at % 32)
                    else:
                        table.view(np.uint8)[places[flip.index]] ^= np.uint8(1 << flip.bit)
            made = made.replace(before, table.astype(table.dtype.newbyteorder("<")).tobytes())
    copy.write_bytes(made)
    return replace(native, made=replace(native.made, path=copy))


def test_flips_in_compressed_tables_give_the_bytes_of_the_flipped_network(tmp_path: Path) -> None:
    graph = chain(0.9)
    x = random_inputs(graph, Seeded(0), 8)
    native = Native.build(written(graph, plan_arena(graph), tmp_path / "firmware"))
    parts = population(graph)
    assert [part.bits for part in parts] == [tuple(range(8)), (MASK,)] * 3
    for count in (1, 3, 20):
        flips = [
            *random_flips(parts[::2], count, np.random.default_rng(count)),
            *random_flips(parts[1::2], count, np.random.default_rng(count)),
        ]
        found = planted(native, graph, flips, tmp_path / f"{count}.so").run(x)
        changed = flipped(graph, flips)
        assert np.array_equal(found, truth_of(changed, x))
        assert not np.array_equal(found, truth_of(graph, x))


def test_the_worth_of_a_flip_is_that_of_the_change_that_it_makes() -> None:
    graph = chain(0.9)
    rng = np.random.default_rng(0)
    weight = graph.nodes[0].inputs[1]
    before = [Flip(weight, 3, MASK), Flip(weight, 200, MASK)]
    now = stored(graph, weight, before)
    rows = now.read()
    slope = rng.normal(size=rows.shape)
    masks = now.worth_of_masks(lambda change: slope * change)
    codes = now.worth_of_codes(changes(now.codes, 8, 5), lambda change: slope * change)
    there = np.flatnonzero(graph.constants[weight])
    for place in range(4, 200, 5):
        after = stored(graph, weight, [*before, Flip(weight, place, MASK)])
        assert masks.flat[place] == pytest.approx((slope * (after.read() - rows)).sum())
    for i in range(0, len(there), 5):
        after = stored(graph, weight, [*before, Flip(weight, int(there[i]), 5)])
        assert codes[i] == pytest.approx((slope * (after.read() - rows)).sum())


def test_bits_that_compressed_tables_do_not_have_are_refused() -> None:
    graph = chain(0.9)
    weight = graph.nodes[0].inputs[1]
    zero = int(np.flatnonzero(graph.constants[weight] == 0)[0])
    for flip in (Flip(weight, zero, 0), Flip(weight, zero, MASK + 1)):
        with pytest.raises(InputError, match="the weight has no such bit"):
            flipped(graph, [flip])


@pytest.mark.parametrize("knowledge", Knowledge)
def test_attacks_reach_codes_and_masks(knowledge: Knowledge) -> None:
    graph = chain(0.9)
    x = random_inputs(graph, Seeded(0), 16)
    labels = reference.run(graph, x).reshape(16, -1).argmax(axis=1)
    split = Split(codes=x, labels=labels, scale=CODE.scale[0], offset=-CODE.zero[0] * CODE.scale[0])
    effort = Effort(most=4, stop=0.0)
    found = attack(graph, Attacker(knowledge=knowledge), split, split, effort, np.random.default_rng(0))
    assert found.accuracies[0] == (0, 1.0)
    assert found.accuracies[-1][1] < 1.0 or knowledge is Knowledge.RANDOM
    masks = Attacker(knowledge=knowledge, bits=(MASK,))
    alone = attack(graph, masks, split, split, effort, np.random.default_rng(0))
    assert {flip.bit for flip in alone.flips} == {MASK}

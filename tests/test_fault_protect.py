"""Firmware that checks its own constants: the same bytes as before, and what has changed is found."""

import ctypes
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from crosslayer.core.design import Design, load_design, save_design
from crosslayer.core.errors import GraphError, InputError, ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.ops import Dense, Dequantize, Reshape
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.plan import CHECKED
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.emit.manifest import check_manifest, write_manifest
from crosslayer.execute import reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native, self_test
from crosslayer.execute.toolchain import Level
from crosslayer.fault.flips import flipped, population, random_flips
from crosslayer.fault.protect import ProtectWeights
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.steps import steps_of
from crosslayer.kernels.weight_check import GROUP_WORDS, checked_tables, factors, groups, parity, signatures
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations
from crosslayer.testing.chance import Seeded
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.graphs import Growth, integer_graph
from crosslayer.testing.stages import small_bench
from test_emit import everything
from test_packages import streamable

CORES = (Core.CORTEX_M4, Core.CORTEX_M0, Core.RV32)
CODE = Quant(bits=8, scale=(0.05,), zero=(3,))


def design_of(graph: Any, *, streamed: bool = False) -> Design:
    return Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph, streamed=streamed))


def protect(design: Design, inferences: int = 1, parity: int = 0) -> Design:
    return ProtectWeights(inferences=inferences, parity=parity)(design, small_bench())


@pytest.fixture(scope="module")
def lenet() -> Design:
    """LeNet-5 in its original shape, untrained."""
    graph = fuse_activations(network("lenet5", (28, 28, 1), 10, 0))
    x = np.random.default_rng(0).random((8, 28, 28, 1)).astype(np.float32)
    return design_of(quantize(graph, reference.calibrate(graph, [x], reference.evaluate), Rounding.DOUBLE))


def tables_of(design: Design) -> list[Array]:
    assert design.plan is not None
    return checked_tables(steps_of(design.graph, design.plan)[0])


def places(design: Design) -> Iterator[tuple[int, int, int]]:
    """Of each group: its number, its table, and its first word there."""
    number = 0
    for table, words in enumerate(tables_of(design)):
        for first in range(0, len(words), GROUP_WORDS):
            yield number, table, first
            number += 1


def with_flip(path: Path, copy: Path, table: Array, word: int, bit: int) -> Path:
    """A compiled file whose table has one bit flipped."""
    made = path.read_bytes()
    before = table.astype("<u4").tobytes()
    assert made.count(before) == 1
    changed = table.copy()
    changed[word] ^= np.uint32(1 << bit)
    copy.write_bytes(made.replace(before, changed.astype("<u4").tobytes()))
    return copy


class Loaded:
    """A compiled firmware with one arena that stays as inferences leave it."""

    def __init__(self, path: Path, arena_bytes: int) -> None:
        self.library = ctypes.CDLL(str(path))
        self.room = np.full(arena_bytes + 16, 0xEE, np.uint8)
        self.arena = ctypes.c_void_p(self.room.ctypes.data + -self.room.ctypes.data % 16)

    def run(self) -> int:
        return self.library.model_run(self.arena)


@pytest.mark.parametrize("rounding", Rounding)
def test_protected_firmware_gives_the_bytes_of_the_judge(rounding: Rounding, tmp_path: Path) -> None:
    graphs = [everything(rounding), *(integer_graph(Seeded(seed), rounding) for seed in range(12))]
    held = [graph for graph in graphs if tables_of(design_of(graph))]
    for i, graph in enumerate(held[:4]):
        design, x = protect(design_of(graph), 1 + 2 * (i % 2), i % 3), random_inputs(graph, Seeded(i), 4)
        emit(design, tmp_path / f"{i}", x[:1])
        codes = reference.encode_input(graph, x)
        truth = reference.run(graph, codes).reshape(len(x), -1).view(np.uint8)
        native = Native.build(tmp_path / f"{i}")
        for poison in (0, 1, 0xFF):
            assert (native.run(codes, poison=poison) == truth).all()


@pytest.mark.parametrize(("core", "level"), [*((core, Level.O2) for core in CORES), (Core.CORTEX_M4, Level.O0)])
def test_every_core_and_level_agrees_on_the_signatures(core: Core, level: Level, tmp_path: Path) -> None:
    design = protect(design_of(everything(Rounding.DOUBLE)))
    x = random_inputs(design.graph, Seeded(3), 2)
    emit(design, tmp_path / "firmware", x[:1])
    ran = Image.link(tmp_path / "firmware", core, level=level).run(reference.encode_input(design.graph, x))
    assert (ran.outputs == reference.run(design.graph, x).reshape(2, -1).view(np.uint8)).all()


def test_the_sanitizers_find_nothing_in_the_check(tmp_path: Path) -> None:
    design = protect(design_of(everything(Rounding.DOUBLE)), inferences=3, parity=2)
    x = random_inputs(design.graph, Seeded(1), 4)
    emit(design, tmp_path / "firmware", x[:1])
    found = self_test(tmp_path / "firmware", reference.encode_input(design.graph, x))
    assert (found.outputs == reference.run(design.graph, x).reshape(4, -1).view(np.uint8)).all()


@pytest.mark.parametrize("core", [None, Core.CORTEX_M4, Core.CORTEX_M0])
def test_a_flipped_bit_in_any_table_of_the_compiled_firmware_is_found(core: Core | None, tmp_path: Path) -> None:
    graph = everything(Rounding.DOUBLE)
    design, x = protect(design_of(graph)), random_inputs(graph, Seeded(2), 1)
    emit(design, tmp_path / "firmware", x)
    made = Native.build(tmp_path / "firmware") if core is None else Image.link(tmp_path / "firmware", core)
    codes = reference.encode_input(graph, x)
    rng = np.random.default_rng(0)
    tables = [table for table in tables_of(design) if len(table) > 3]  # of fewer words others may hold the same
    assert len(tables) > 3
    for i, table in enumerate(tables):
        word, bit = int(rng.integers(len(table))), int(rng.integers(32))
        path = with_flip(made.made.path, tmp_path / f"{i}.changed", table, word, bit)
        changed: Any = replace(made, made=replace(made.made, path=path))
        with pytest.raises(ToolError, match="model_run returned -2"):
            changed.run(codes)
    made.run(codes)


def test_the_check_names_the_first_group_that_differs(lenet: Design, tmp_path: Path) -> None:
    design = protect(lenet)
    emit(design, tmp_path / "firmware", np.zeros((1, 28, 28, 1), np.float32))
    native, tables = Native.build(tmp_path / "firmware"), tables_of(design)
    count = len(groups(tables))
    assert Loaded(native.made.path, native.arena_bytes).library.model_check(0, count) == -1
    for number, table, first in [*places(design)][::37]:
        path = with_flip(native.made.path, tmp_path / f"{number}.so", tables[table], first, 31)
        check = Loaded(path, native.arena_bytes).library.model_check
        assert check(0, count) == check(number, 1) == check(number, count) == number
        assert check(0, number) == check(number + 1, count) == check(count, 1) == check(-1, count) == -1


@pytest.mark.parametrize("inferences", [2, 5, 1000])
def test_a_rolling_check_sees_all_within_the_stated_inferences(inferences: int, tmp_path: Path, lenet: Design) -> None:
    design = protect(lenet, inferences)
    assert design.plan is not None and design.plan.check is not None
    assert design.plan.check.inferences == min(inferences, len(groups(tables_of(design))))
    emit(design, tmp_path / "firmware", np.zeros((1, 28, 28, 1), np.float32))
    native, tables = Native.build(tmp_path / "firmware"), tables_of(design)
    for number, table, first in [*places(design)][3::60]:
        path = with_flip(native.made.path, tmp_path / f"{number}.so", tables[table], first + 1, 7)
        firmware = Loaded(path, native.arena_bytes)
        for _ in range(2):
            runs = [firmware.run() for _ in range(design.plan.check.inferences)]
            assert -2 in runs
            assert set(runs[runs.index(-2) :]) == {-2}  # it stays at what it found


@pytest.mark.parametrize("streamed", [False, True])
def test_a_streamed_network_is_checked_as_it_begins(streamed: bool, tmp_path: Path) -> None:
    design = protect(design_of(streamable(), streamed=streamed), inferences=2)
    x = random_inputs(design.graph, Seeded(1), 3)
    emit(design, tmp_path / "firmware", x[:1])
    native = Native.build(tmp_path / "firmware")
    codes = reference.encode_input(design.graph, x)
    assert (native.run(codes) == reference.run(design.graph, x).reshape(3, -1).view(np.uint8)).all()
    path = with_flip(native.made.path, tmp_path / "changed.so", tables_of(design)[0], 0, 3)
    with pytest.raises(ToolError, match="returned -2"):
        replace(native, made=replace(native.made, path=path)).run(codes)


def test_no_four_flipped_bits_of_a_group_and_its_signature_cancel() -> None:
    """All pairs of bits against all pairs: two alike with no bit in common would be four that cancel."""
    bits = factors().astype(np.uint64)[:, None] << np.arange(32, dtype=np.uint64)
    moves = np.concatenate([bits.ravel(), np.uint64(1) << np.arange(64, dtype=np.uint64)])
    one, two = np.triu_indices(len(moves), 1)
    single = np.arange(len(moves))
    first, second = np.concatenate([single, one, one]), np.concatenate([single, two, two])
    found = np.concatenate([moves, moves[one] + moves[two], moves[one] - moves[two]])
    found = np.minimum(found, np.uint64(0) - found)  # the opposite flips move it by the opposite
    assert found.all()
    order = np.argsort(found, kind="stable")
    found, first, second = found[order], first[order], second[order]
    for step in range(1, len(found)):
        same = found[step:] == found[:-step]
        if not same.any():
            break
        a, b = first[step:][same], second[step:][same]
        c, d = first[:-step][same], second[:-step][same]
        assert not ((a != c) & (a != d) & (b != c) & (b != d)).any()


def test_flips_that_cancel_in_plain_sums_do_not_here() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (1, GROUP_WORDS), dtype=np.uint32)
    words[0, :2] = 0x80000000, 0
    words[0, 8], words[0, 24] = 0xFFFFFFFF, 0
    for pair, bit in (((0, 1), 31), ((8, 24), 31), ((8, 24), 7), ((8, 24), 0)):
        changed = words.copy()
        changed[0, list(pair)] ^= np.uint32(1 << bit)
        assert words.sum(dtype=np.uint32) == changed.sum(dtype=np.uint32)
        assert signatures(words) != signatures(changed)


def random_bits(chance: Random, total: int, count: int) -> Array:
    """So many different bits; those of every third set lie close to each other."""
    first, room = (chance.randrange(total - 512), 512) if chance.randrange(3) == 0 else (0, total)
    return first + np.array(chance.sample(range(room), count))


def test_random_sets_of_one_to_ten_flips_are_all_found(lenet: Design) -> None:
    contents = groups(tables_of(lenet))
    right, chance = signatures(contents), Random(0)
    for trial in range(10_000):
        chosen = random_bits(chance, contents.size * 32, trial % 10 + 1)
        touched = np.unique(chosen // 32 // GROUP_WORDS)
        changed = contents[touched]
        rows, columns = np.searchsorted(touched, chosen // 32 // GROUP_WORDS), chosen // 32 % GROUP_WORDS
        np.bitwise_xor.at(changed, (rows, columns), np.uint32(1) << (chosen % 32).astype(np.uint32))
        assert (signatures(changed) != right[touched]).any()


def test_a_changed_group_is_restored_unless_another_of_its_row_changed(lenet: Design, tmp_path: Path) -> None:
    design = protect(lenet, inferences=1, parity=4)
    emit(design, tmp_path / "firmware", np.zeros((1, 28, 28, 1), np.float32))
    native, tables = Native.build(tmp_path / "firmware"), tables_of(design)
    listed = [*places(design)]
    right = groups(tables)

    def restored(path: Path, number: int) -> tuple[int, Array, int]:
        firmware = Loaded(path, native.arena_bytes)
        content, words = np.zeros(GROUP_WORDS, np.uint32), ctypes.c_int32()
        status = firmware.library.model_restore(number, ctypes.c_void_p(content.ctypes.data))
        firmware.library.model_group.restype = ctypes.c_void_p
        at = firmware.library.model_group(number, ctypes.byref(words))
        held = np.ctypeslib.as_array(ctypes.cast(at, ctypes.POINTER(ctypes.c_uint32)), (words.value,))
        assert (held != content[: words.value]).sum() == (1 if status == 0 else (held != content[: words.value]).sum())
        return status, content, words.value

    for number, table, first in listed[::41]:
        path = with_flip(native.made.path, tmp_path / f"{number}.so", tables[table], first, 30)
        status, content, count = restored(path, number)
        assert status == 0
        assert (content[:count] == right[number][:count]).all()
    one, other, apart = listed[40], listed[44], listed[41]
    first = with_flip(native.made.path, tmp_path / "one.so", tables[one[1]], one[2], 30)
    both = tables[one[1]].copy()
    both[one[2]] ^= np.uint32(1 << 30)
    assert one[1] == other[1] == apart[1]
    assert restored(with_flip(first, tmp_path / "two.so", both, other[2], 5), one[0])[0] == -1
    assert restored(with_flip(first, tmp_path / "three.so", both, apart[2], 5), one[0])[0] == 0
    assert parity(right, 4).shape == (4, GROUP_WORDS)


def test_the_check_takes_less_than_a_hundredth_of_an_inference(lenet: Design, tmp_path: Path) -> None:
    """On an emulated Cortex-M4, in each of the inferences that together see all constants."""
    codes = random_inputs(lenet.graph, Seeded(0), 8)
    protected = protect(lenet, inferences=8)
    ran: list[Any] = []
    for i, design in enumerate((lenet, protected)):
        emit(design, tmp_path / f"{i}", codes[:1])
        ran.append(Image.link(tmp_path / f"{i}", Core.CORTEX_M4).run(codes, poison=None))
    before, after = (r.instructions for r in ran)
    assert (before == before[0]).all()
    assert (after > before).all()
    assert len(set(after.tolist())) > 1  # slices differ a little
    assert ((after - before) / before).max() <= 0.01
    flash = ran[1].image.flash_bytes - ran[0].image.flash_bytes
    assert 0 < flash <= 0.05 * ran[0].image.flash_bytes
    assert ran[1].image.ram_bytes - ran[0].image.ram_bytes == 4
    assert ran[1].image.stack_bound().bytes == ran[0].image.stack_bound().bytes


def classifier(kind: str) -> Design:
    """A layer whose ten outputs are int8 or int16 codes, or floats; its input has at least as many bytes."""
    if kind == "int16":
        growth = Growth(Seeded(4), Rounding.DOUBLE)
        x = growth.input((40,), coded=True, wide=True)
        return design_of(growth.graph(growth.apply(Dense(), x, constants=(growth.weights(10, 40), growth.weights(10)))))
    rng = np.random.default_rng(0)
    taps = Quant(bits=8, scale=(0.02,))
    b = Builder()
    x = b.input("x", (40,), CODE)
    w = b.constant("w", rng.integers(-127, 128, (10, 40)).astype(np.int8), taps)
    bias = b.constant("bias", np.zeros(10, np.int32), bias_code(CODE, taps))
    y = b.add(Dense(), x, w, bias, quant=Quant(bits=8, scale=(1.0,)))
    return design_of(b.graph(b.add(Dequantize(), y) if kind == "float" else y))


def telling(folder: Path, design: Design, instead: str = "cl_run(&model, 0, arena);") -> Path:
    """Firmware that puts the class into the first byte of its output, after it ran or did something instead."""
    emit(design, folder, random_inputs(design.graph, Seeded(0), 1))
    source = folder / "model.c"
    before, run, after = source.read_text().partition("    cl_run(&model, 0, arena);\n")
    assert run
    output = "((uint8_t *)(uintptr_t)model_output(arena))"
    told = f"    {instead.format(output)}\n    {output}[0] = (uint8_t)model_class(arena);\n"
    source.write_text(before + told + after)
    return folder


@pytest.mark.parametrize("kind", ["int8", "int16", "float"])
def test_the_class_is_the_first_of_the_largest_outputs(kind: str, tmp_path: Path) -> None:
    design = protect(classifier(kind))
    codes = random_inputs(design.graph, Seeded(9), 1000)
    outputs = reference.run(design.graph, codes)
    assert ((outputs == outputs.max(1, keepdims=True)).sum(1) > 1).any() or kind == "int16"
    assert len(set(outputs.argmax(1).tolist())) > 3
    told = Native.build(telling(tmp_path / "firmware", design)).run(codes)[:, 0]
    assert (told == outputs.argmax(1)).all()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", ["int8", "int16", "float"])
def test_the_class_takes_the_same_instructions_for_all_outputs(kind: str, core: Core, tmp_path: Path) -> None:
    """Of 1,000 random inputs, which become the outputs as they are."""
    design = protect(classifier(kind))
    each = "for (int32_t i = 0; i < MODEL_OUTPUT_BYTES; i++)"
    copy = f"(void)model; {each} {{{{ {{}}[i] = ((uint8_t *)model_input(arena))[i]; }}}}"
    firmware = telling(tmp_path / "firmware", design, copy)
    ran = Image.link(firmware, core).run(random_inputs(design.graph, Seeded(9), 1000))
    assert len(set(ran.outputs[:, 0].tolist())) == 10
    assert len(set(ran.instructions.tolist())) == 1


@pytest.mark.parametrize("core", CORES)
def test_a_whole_inference_takes_the_same_instructions_for_all_inputs(core: Core, tmp_path: Path) -> None:
    design = protect(classifier("int8"))
    ran = Image.link(telling(tmp_path / "firmware", design), core).run(random_inputs(design.graph, Seeded(9), 1000))
    assert len(set(ran.outputs[:, 0].tolist())) == 10
    assert len(set(ran.instructions.tolist())) == 1


def test_a_saved_design_keeps_its_check_and_its_place_in_the_arena(tmp_path: Path, lenet: Design) -> None:
    design = protect(lenet, inferences=8, parity=3)
    save_design(design, tmp_path / "design")
    assert load_design(tmp_path / "design") == design
    assert lenet.plan is not None and design.plan is not None
    assert design.plan.offsets[CHECKED] == lenet.plan.arena_bytes == design.plan.arena_bytes - 4
    assert protect(lenet, inferences=1).plan == replace(lenet.plan, check=protect(lenet, inferences=1).plan.check)  # type: ignore[union-attr]  # planned


def test_a_design_that_cannot_be_protected_is_told_why(lenet: Design) -> None:
    with pytest.raises(GraphError, match="put this stage after plan-arena"):
        protect(replace(lenet, plan=None))
    with pytest.raises(GraphError, match="leave the second protect-weights out"):
        protect(protect(lenet))
    b = Builder()
    x = b.input("x", (2, 3), CODE)
    with pytest.raises(GraphError, match="no constants in flash"):
        protect(design_of(b.graph(b.add(Reshape(shape=(6,)), x, quant=CODE))))
    with pytest.raises(InputError, match="inferences must lie in"):
        ProtectWeights(inferences=0)


def test_the_manifest_tells_which_files_have_changed(lenet: Design, tmp_path: Path) -> None:
    folder = tmp_path / "firmware"
    emit(protect(lenet), folder, np.zeros((1, 28, 28, 1), np.float32))
    path = write_manifest(folder, lenet, sign=lambda content: hashlib.sha512(content).digest())
    assert (folder / "manifest.sig").read_bytes() == hashlib.sha512(path.read_bytes()).digest()
    document = json.loads(path.read_text())
    for name, digest in document["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {"model.c", "model.h", "kernels/weight_check.c"} <= set(document["files"])
    assert check_manifest(folder) == ()
    (folder / "model.c").write_text("int x;")
    (folder / "new.c").write_text("")
    (folder / "golden.h").unlink()
    assert check_manifest(folder) == ("golden.h", "model.c", "new.c")
    path.write_text("{")
    with pytest.raises(InputError, match=r"manifest.json: cannot be read .*write the firmware again"):
        check_manifest(folder)


def test_the_manifest_names_the_weights(lenet: Design, tmp_path: Path) -> None:
    emit(lenet, tmp_path / "firmware", np.zeros((1, 28, 28, 1), np.float32))
    flips = random_flips(population(lenet.graph), 1, np.random.default_rng(0))
    changed = replace(lenet, graph=flipped(lenet.graph, flips))
    texts = [write_manifest(tmp_path / "firmware", design).read_text() for design in (lenet, changed, lenet)]
    assert texts[0] == texts[2] != texts[1]
    assert (
        json.loads(texts[0])["weights"] == hashlib.sha256(b"".join(t.tobytes() for t in tables_of(lenet))).hexdigest()
    )

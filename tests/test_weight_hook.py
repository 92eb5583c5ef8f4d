"""Firmware that fetches its constants by a function of the integrator: the same bytes, encrypted in flash or not."""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from elftools.elf.elffile import ELFFile

from commands import TINY, call
from crosslayer.core.design import Design, load_design, save_design
from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Reshape
from crosslayer.core.plan import FETCHED
from crosslayer.core.quant import Array
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.emit.packages import Package, emit_package
from crosslayer.execute import reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native, self_test
from crosslayer.fault.protect import ProtectWeights
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.fetch import BLOCK, fetched_places
from crosslayer.kernels.steps import steps_of
from crosslayer.kernels.weight_check import checked_tables
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.plan.fetch import FetchWeights
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations
from crosslayer.testing.chance import Seeded
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.graphs import integer_graph
from crosslayer.testing.stages import small_bench
from test_emit import CODE, everything
from test_packages import selftest, streamable

KEY = bytes(range(16))
FETCH = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def planned(graph: Graph, *, streamed: bool = False, budget: int | None = None) -> Design:
    plan = plan_arena(graph, streamed=streamed) if budget is None else plan_arena(graph, budget=budget)
    return Design(graph=graph, target=load_target("stm32f769"), plan=plan)


def fetching(design: Design) -> Design:
    return FetchWeights()(design, small_bench())


def lenet() -> Design:
    """LeNet-5 in its original shape, untrained."""
    graph = fuse_activations(network("lenet5", (28, 28, 1), 10, 0))
    x = np.random.default_rng(0).random((8, 28, 28, 1)).astype(np.float32)
    return planned(quantize(graph, reference.calibrate(graph, [x], reference.evaluate), Rounding.DOUBLE))


def truth_of(design: Design, codes: Array) -> Array:
    return reference.run(design.graph, codes).reshape(len(codes), -1).view(np.uint8)


def tables_of(design: Design) -> list[Array]:
    assert design.plan is not None
    return checked_tables(steps_of(design.graph, design.plan)[0])


@pytest.mark.parametrize("rounding", Rounding)
def test_fetching_firmware_gives_the_bytes_of_the_judge(rounding: Rounding, tmp_path: Path) -> None:
    graphs = [everything(rounding), streamable(), *(integer_graph(Seeded(seed), rounding) for seed in range(8))]
    plain = [planned(graph) for graph in graphs]
    plain = [*plain, planned(streamable(), streamed=True), planned(streamable(), budget=0)]
    held = [design for design in plain if tables_of(design)]
    assert len(held) > 6
    for i, design in enumerate(map(fetching, held[:4] + held[-2:])):
        x = random_inputs(design.graph, Seeded(i), 3)
        emit(design, tmp_path / f"{i}", x[:1])
        codes = reference.encode_input(design.graph, x)
        native = Native.build(tmp_path / f"{i}")
        for poison in (0, 0xFF):
            assert (native.run(codes, poison=poison) == truth_of(design, codes)).all()


def test_layers_that_run_together_are_fetched_together(tmp_path: Path) -> None:
    design = fetching(planned(streamable(), budget=0))
    assert design.plan is not None and design.plan.groups
    whole = sum(-(-4 * len(table) // BLOCK) * BLOCK for table in tables_of(design))
    assert design.plan.fetched == whole
    x = random_inputs(design.graph, Seeded(0), 3)
    emit(design, tmp_path / "firmware", x[:1])
    assert (Native.build(tmp_path / "firmware").run(x) == truth_of(design, x)).all()


@pytest.mark.parametrize("core", [Core.CORTEX_M4, Core.CORTEX_M0, Core.RV32])
def test_every_core_fetches(core: Core, tmp_path: Path) -> None:
    before, after = planned(everything(Rounding.DOUBLE)), fetching(planned(everything(Rounding.DOUBLE)))
    x = random_inputs(after.graph, Seeded(3), 2)
    images: list[Image] = []
    for i, design in enumerate((before, after)):
        emit(design, tmp_path / f"{i}", x[:1])
        images.append(Image.link(tmp_path / f"{i}", core))
        ran = images[i].run(reference.encode_input(design.graph, x))
        assert (ran.outputs == truth_of(design, x)).all()
        assert ran.stack_bytes <= images[i].stack_bound().bytes
    assert before.plan is not None and after.plan is not None
    assert images[1].arena_bytes - images[0].arena_bytes == after.plan.arena_bytes - before.plan.arena_bytes
    assert images[1].ram_bytes - images[0].ram_bytes == images[1].arena_bytes - images[0].arena_bytes


def test_the_sanitizers_find_nothing_in_fetching(tmp_path: Path) -> None:
    design = fetching(planned(everything(Rounding.DOUBLE)))
    x = random_inputs(design.graph, Seeded(1), 4)
    emit(design, tmp_path / "firmware", x[:1])
    assert (
        self_test(tmp_path / "firmware", reference.encode_input(design.graph, x)).outputs == truth_of(design, x)
    ).all()


def aes(content: bytes, address: int) -> bytes:
    """AES-CTR with a counter that begins with the number of the block at an address; its own inverse."""
    assert address % BLOCK == 0
    cipher = Cipher(AES(KEY), CTR((address // BLOCK).to_bytes(16, "big"))).encryptor()
    return cipher.update(content) + cipher.finalize()


def table_addresses(path: Path, design: Design) -> Iterator[tuple[int, int, bytes]]:
    """Of each table in a compiled library: its place in the file, its address there, and its bytes."""
    made = path.read_bytes()
    with path.open("rb") as file:
        segments = [s for s in ELFFile(file).iter_segments() if s["p_type"] == "PT_LOAD"]
    for table in tables_of(design):
        content = table.astype("<u4").tobytes()
        if len(content) <= 2 * BLOCK:
            continue  # so short that others may hold the same
        assert made.count(content) == 1
        place = made.index(content)
        segment = next(s for s in segments if s["p_offset"] <= place < s["p_offset"] + s["p_filesz"])
        yield place, place - segment["p_offset"] + segment["p_vaddr"], content


def loaded_at(path: Path) -> int:
    """Where this process has a compiled library."""
    with path.open("rb") as file:
        symbol = ELFFile(file).get_section_by_name(".dynsym").get_symbol_by_name("crosslayer_sizes")[0]["st_value"]
    return ctypes.addressof(ctypes.c_uint32.in_dll(ctypes.CDLL(str(path)), "crosslayer_sizes")) - symbol


def test_encrypted_constants_are_decrypted_by_the_integrators_function(tmp_path: Path) -> None:
    """AES-CTR of a library encrypts the tables in the compiled file, and decrypts what `model_fetch` is asked for."""
    design = fetching(lenet())
    x = random_inputs(design.graph, Seeded(5), 20)
    emit(lenet(), tmp_path / "plain", x[:1])
    emit(design, tmp_path / "firmware", x[:1])
    codes = reference.encode_input(design.graph, x)
    plain = Native.build(tmp_path / "plain").run(codes)
    native = Native.build(tmp_path / "firmware")
    assert (native.run(codes) == plain).all()

    tables = list(table_addresses(native.made.path, design))
    assert len(tables) >= 10
    made = bytearray(native.made.path.read_bytes())
    for place, address, content in tables:
        made[place : place + len(content)] = aes(content, address)
    path = tmp_path / "encrypted.so"
    path.write_bytes(made)
    assert all(content not in made for _, _, content in tables)
    encrypted = replace(native, made=replace(native.made, path=path))
    assert (encrypted.run(codes) != plain).any()  # copied as they lie

    base, sizes, asked = loaded_at(path), {address: len(content) for _, address, content in tables}, list[int]()

    def fetch(to: int, source: int, size: int) -> None:
        content, address = ctypes.string_at(source, size), source - base
        asked.append(address)
        assert to % BLOCK == 0
        ctypes.memmove(to, aes(content, address) if address in sizes else content, size)

    hook = FETCH(fetch)
    ctypes.c_void_p.in_dll(ctypes.CDLL(str(path)), "crosslayer_fetch").value = ctypes.cast(hook, ctypes.c_void_p).value
    assert (encrypted.run(codes) == plain).all()
    assert sizes.keys() <= set(asked) and len(asked) == len(x) * len(set(asked))  # each table once an inference


def test_the_arena_has_room_for_the_largest_layer(tmp_path: Path) -> None:
    before, after = lenet().plan, fetching(lenet()).plan
    assert before is not None and after is not None
    steps, _ = steps_of(lenet().graph, before)
    places, size = fetched_places(steps, before)
    largest = max(sum(-(-4 * len(t) // BLOCK) * BLOCK for t in checked_tables([step])) for step in steps)
    assert after.fetched == size == largest > 48_000  # of the first dense layer, 400 × 120
    assert after.offsets[FETCHED] % BLOCK == 0 and after.offsets[FETCHED] >= before.arena_bytes
    assert after.arena_bytes == after.offsets[FETCHED] + size
    assert all(at % BLOCK == 0 for fields in places.values() for at in fields.values())
    save_design(fetching(lenet()), tmp_path / "design")
    assert load_design(tmp_path / "design") == fetching(lenet())


def test_firmware_that_does_not_fetch_is_what_it_was(tmp_path: Path) -> None:
    emit(lenet(), tmp_path / "firmware", random_inputs(lenet().graph, Seeded(0), 1))
    for path in (tmp_path / "firmware").rglob("*"):
        assert path.is_dir() or "fetch" not in path.read_text().lower()


@pytest.mark.parametrize("package", [Package.ZEPHYR, Package.CMSIS_PACK])
def test_the_self_test_of_a_package_copies_constants(package: Package, tmp_path: Path) -> None:
    design = fetching(planned(everything(Rounding.DOUBLE)))
    folder = tmp_path / "net"
    emit_package(design, folder, random_inputs(design.graph, Seeded(1), 2), package)
    main = "samples/selftest/src/main.c" if package is Package.ZEPHYR else "examples/selftest/main.c"
    sources = [str(path.relative_to(folder)) for path in sorted((folder / "src").rglob("*.c"))]
    assert selftest(folder, [main, *sources], ["src"]) == 0


def test_weights_of_a_second_memory_stay_there(tmp_path: Path) -> None:
    design = planned(everything(Rounding.DOUBLE))
    assert design.plan is not None
    layer = next(node.name for node in design.graph.nodes if node.op.channel_axis is not None)
    design = fetching(replace(design, plan=replace(design.plan, weights={layer: "flash2"})))
    x = random_inputs(design.graph, Seeded(1), 2)
    emit(design, tmp_path / "firmware", x[:1])
    text = (tmp_path / "firmware" / "model.c").read_text()
    assert "_weight[] MODEL_IN_FLASH2 = " in text and "_weight[] MODEL_CONSTANTS = " in text
    assert (Native.build(tmp_path / "firmware").run(x) == truth_of(design, x)).all()


def test_a_study_can_ask_for_it(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(TINY + '[[stage]]\nuse = "fetch-weights"\n')
    answer = call("run", study, "--out", tmp_path / "run", "--json")
    assert answer.status == 0, answer.err
    assert "model_fetch(fetched" in (tmp_path / "run" / "firmware" / "model.c").read_text()
    plan = load_design(tmp_path / "run" / "design").plan
    assert plan is not None and plan.fetched > 0


def test_a_design_that_cannot_fetch_is_told_why() -> None:
    with pytest.raises(GraphError, match="put this stage after plan-arena"):
        fetching(replace(lenet(), plan=None))
    with pytest.raises(GraphError, match="leave the second fetch-weights out"):
        fetching(fetching(lenet()))
    with pytest.raises(GraphError, match="leave it or fetch-weights out"):
        fetching(ProtectWeights()(lenet(), small_bench()))
    with pytest.raises(GraphError, match="leave it or protect-weights out"):
        ProtectWeights()(fetching(lenet()), small_bench())
    b = Builder()
    x = b.input("x", (2, 3), CODE)
    with pytest.raises(GraphError, match="no constants in flash"):
        fetching(planned(b.graph(b.add(Reshape(shape=(6,)), x, quant=CODE))))

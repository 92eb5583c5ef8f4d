"""The firmware folder: the same bytes every time, clean C, and nothing that could surprise the program around it."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import (
    Add,
    Conv2d,
    Dense,
    Dequantize,
    GlobalMean,
    Mul,
    Quantize,
    Relu,
    Requantize,
    Reshape,
    Softmax,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.emit.literals import number
from crosslayer.execute import reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native
from crosslayer.execute.toolchain import machine
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena
from crosslayer.testing.chance import Seeded
from crosslayer.testing.compiler import compile_strictly
from crosslayer.testing.executors import random_inputs, write_firmware
from crosslayer.testing.graphs import Growth, integer_graph

CODE = Quant(bits=8, scale=(0.05,), zero=(3,))
EVIL = (
    "*/ evil(); /*",
    'a"b\\n#error',
    "??/\nint x",
    "日本 é",
    "n" * 5000,
    "a b",
    "../../passwd",
    "%s%n",
    "{{ 7*7 }}",
)


def everything(rounding: Rounding) -> Graph:
    """One network with every kind of rescaling, float32 at both ends."""
    growth = Growth(Seeded(5), rounding)
    x = growth.apply(Quantize(), growth.input((6, 5, 3), coded=False))
    constants = growth.weights(4, 3, 3, 3), growth.weights(4)
    x = growth.apply(Conv2d(windows=Windows(kernel=(3, 3), padding=(1, 1, 1, 1))), x, constants=constants)
    x = growth.apply(Add(), x, growth.apply(Requantize(), x))
    x = growth.apply(GlobalMean(), growth.apply(Mul(), x, growth.mixed(x)))
    x = growth.apply(Dense(), x, constants=(growth.weights(5, 4), growth.weights(5)))
    return growth.graph(growth.apply(Dequantize(), growth.apply(Softmax(), x)))


def sources(firmware: Path) -> list[str]:
    """Its C files, the self-test too."""
    return [str(path.relative_to(firmware)) for path in sorted(firmware.rglob("*.c"))]


def written(graph: Graph, folder: Path) -> Path:
    return write_firmware(graph, folder / "firmware", random_inputs(graph, Seeded(1), 8))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("rounding", Rounding)
def test_the_same_design_gives_the_same_bytes(rounding: Rounding, tmp_path: Path) -> None:
    graph = everything(rounding)
    first = contents(written(graph, tmp_path / "a"))
    again = replace(graph, types=dict(reversed(list(graph.types.items()))))
    assert contents(written(again, tmp_path / "b")) == first
    assert contents(written(graph, tmp_path / "a")) == first
    assert set(first) >= {"model.h", "model.c", "selftest.c", "golden.h", "Makefile", "CMakeLists.txt"}


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Neither on how strings hash nor on the locale."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from crosslayer.core.fixed import Rounding; import test_emit\n"
        "test_emit.written(test_emit.everything(Rounding.FLOAT), Path(sys.argv[2]))\n"
    )
    arguments = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / "other")]
    subprocess.run(arguments, env={**os.environ, "PYTHONHASHSEED": "77", "LC_ALL": "C"}, check=True)
    assert contents(tmp_path / "other" / "firmware") == contents(written(everything(Rounding.FLOAT), tmp_path))


@pytest.mark.parametrize("rounding", Rounding)
def test_the_object_holds_code_and_constants_only(rounding: Rounding, tmp_path: Path) -> None:
    elffile: Any = pytest.importorskip("elftools.elf.elffile")
    firmware = written(everything(rounding), tmp_path)
    with compile_strictly(firmware, "model.c", flags=("-O2",)).open("rb") as file:
        elf = elffile.ELFFile(file)
        writable = [s.name for s in elf.iter_sections() if s["sh_flags"] & 1 and s["sh_flags"] & 2 and s["sh_size"]]
        relocated = [name for name in writable if name.startswith(".data.rel.ro")]  # pointers of a constant, as PIC
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
    assert writable == relocated
    shown = {s.name for s in symbols if s["st_info"]["bind"] == "STB_GLOBAL"}
    assert shown - {s for s in shown if s.startswith("cl_")} <= {
        "model_input",
        "model_output",
        "model_run",
        "memcpy",
        "memset",
    }
    text = "".join(path.read_text() for path in [firmware / "model.c", *(firmware / "kernels").iterdir()])
    assert not re.search(r"\b(malloc|calloc|alloca|free|printf|goto|setjmp)\b", text)


def test_the_self_test_passes_with_make_and_fails_when_a_byte_differs(tmp_path: Path) -> None:
    if not (shutil.which("make") and shutil.which("cc")):
        pytest.skip("no make or no system compiler")
    firmware = written(everything(Rounding.DOUBLE), tmp_path)
    made = subprocess.run(["make", "test"], cwd=firmware, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "8 samples, 0 differing bytes" in made.stdout.splitlines()
    golden = (firmware / "golden.h").read_text()
    place = golden.index("{", golden.index("golden_output")) + 1
    first = re.match(r"\s*(-?\d+),", golden[place:])
    assert first
    changed = golden[:place] + f" {int(first[1]) ^ 1}," + golden[place + first.end() :]
    (firmware / "golden.h").write_text(changed)
    made = subprocess.run(["make", "test"], cwd=firmware, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "8 samples, 1 differing bytes" in made.stdout
    subprocess.run(["make", "clean", "libmodel.a"], cwd=firmware, capture_output=True, check=True)
    assert (firmware / "libmodel.a").is_file()


def test_the_self_test_passes_with_cmake(tmp_path: Path) -> None:
    if not (shutil.which("cmake") and shutil.which("ctest") and shutil.which("cc")):
        pytest.skip("no CMake or no system compiler")
    firmware = written(everything(Rounding.FLOAT), tmp_path)
    for command in ("cmake -S . -B build", "cmake --build build", "ctest --test-dir build"):
        done = subprocess.run(command.split(), cwd=firmware, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout


def test_the_header_serves_cpp_programs(tmp_path: Path) -> None:
    firmware = written(everything(Rounding.DOUBLE), tmp_path)
    (firmware / "program.cpp").write_text(
        '#include "model.h"\n#include "model.h"\n'
        "alignas(MODEL_ARENA_ALIGN) static uint8_t arena[MODEL_ARENA_BYTES];\n"
        "static_assert(MODEL_INPUT_BYTES == sizeof(model_input_t) * MODEL_INPUT_SIZE);\n"
        "int main() {\n"
        "    static_cast<model_input_t *>(model_input(arena))[MODEL_INPUT_SIZE - 1] = 0;\n"
        "    return model_run(arena) + static_cast<int>(*static_cast<const model_output_t *>(model_output(arena)));\n"
        "}\n"
    )
    compile_strictly(firmware, "program.cpp", language="c++17")


def test_the_header_tells_the_codes(tmp_path: Path) -> None:
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", (2, 3), CODE), quant=replace(CODE, zero=(-128,))))
    header = (written(graph, tmp_path) / "model.h").read_text()
    assert f"#define MODEL_INPUT_SCALE {number(CODE.scale[0])}\n#define MODEL_INPUT_ZERO (3)\n" in header
    assert "#define MODEL_OUTPUT_ZERO (-128)\n" in header
    assert "shape (2, 3)" in header
    assert f"#define MODEL_ARENA_BYTES {plan_arena(graph).arena_bytes}\n" in header


def test_a_float_literal_is_the_value_that_c_reads() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 5000, np.uint32)
    drawn = bits.view(np.float32)
    for value in (0.0, -0.0, 1.0, 0.1, 16777217.0, 1e-45, 3.4028235e38, *drawn[np.isfinite(drawn)].tolist()):
        text = number(float(value))
        assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?F", text)
        assert re.search(r"[.e]", text)
        assert np.float32(text[:-1]).tobytes() == np.float32(value).tobytes()


def test_an_evil_name_is_harmless(tmp_path: Path) -> None:
    b = Builder()
    x = b.input(EVIL[0] + "input", (4,), CODE)
    for name in EVIL:
        x = b.add(Relu(), x, name=name, quant=CODE)
    w = b.constant('"; system("', np.ones((2, 4)), Quant(bits=8, scale=(1.0,)))
    c = b.constant("*/c", np.zeros(2), Quant(bits=32, scale=CODE.scale))
    graph = b.graph(b.add(Dense(), x, w, c, name="*/", quant=CODE))
    target = replace(load_target("stm32f769"), title="*/ int evil; /* \\\n#error é ??/")
    folder = tmp_path / "firmware"
    emit(Design(graph=graph, target=target, plan=plan_arena(graph)), folder, np.zeros((1, 4), np.int8))
    compile_strictly(folder, *sources(folder))
    codes = random_inputs(graph, Seeded(0), 20)
    assert Native.build(folder).run(codes).tobytes() == reference.run(graph, codes).tobytes()
    assert {p.name for p in tmp_path.rglob("*")} & {"passwd"} == set()
    assert (folder / "model.c").read_text().isascii()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16])
def test_weights_of_few_bits_are_packed(bits: int, tmp_path: Path) -> None:
    """What ships is what `weight_bytes` says, and the flash of a linked firmware shows it."""
    source, taps = Quant(bits=8 if bits <= 8 else 16, scale=(0.05,)), Quant(bits=bits, scale=(0.1,))
    weight = np.random.default_rng(0).choice(np.array([-taps.highest, taps.highest]), (30, 101))
    b = Builder()
    w = b.constant("w", weight, taps)
    c = b.constant("c", np.zeros(30), replace(bias_code(source, taps), bits=32))
    graph = b.graph(b.add(Dense(), b.input("x", (101,), source), w, c, quant=replace(source, scale=(50.0,))))
    folder = written(graph, tmp_path)
    text = (folder / "model.c").read_text()
    shipped = re.search(r"static const (u?int8_t|int16_t) \w+_weight\[] = \{([^}]*)}", text)
    assert shipped
    count = shipped[2].count(",") * (2 if shipped[1] == "int16_t" else 1)
    assert count == {1: 379, 2: 758, 3: 1138, 4: 1515, 5: 1895, 6: 2274, 7: 2653, 8: 32 * 104}.get(bits, 6060)
    assert count == weight_bytes(graph) - 4 * 30 or bits == 8  # the kernel of 8 bits takes whole blocks of 4 by 4
    assert 0 < Image.link(folder, Core.CORTEX_M4).flash_bytes - count - 4 * 30 < 2300  # the code
    x = random_inputs(graph, Seeded(0), 20)
    assert Native.build(folder).run(x).tobytes() == reference.run(graph, x).tobytes()


def test_two_arenas_are_two_inferences(tmp_path: Path) -> None:
    """Runs on many threads, and between each other's steps, do not see each other."""
    graph = everything(Rounding.DOUBLE)
    native = Native.build(written(graph, tmp_path))
    inputs = [random_inputs(graph, Seeded(i), 400) for i in range(4)]
    results: dict[int, Array] = {}

    def work(i: int) -> None:
        results[i] = native.run(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(inputs):
        assert results[i].tobytes() == native.run(x).tobytes() == reference.run(graph, x).tobytes()


def test_a_wrong_arena_is_refused_and_not_touched(tmp_path: Path) -> None:
    native = Native.build(written(everything(Rounding.DOUBLE), tmp_path))
    library = ctypes.CDLL(str(native.made.path))
    room = np.full(native.arena_bytes + 64, 0x5A, np.uint8)
    aligned = room.ctypes.data + -room.ctypes.data % 16
    assert library.model_run(None) == -1
    for offset in (1, 4, 8):
        assert library.model_run(ctypes.c_void_p(aligned + offset)) == -1
    assert (room == 0x5A).all()
    assert library.model_run(ctypes.c_void_p(aligned)) == 0


def test_what_lay_in_the_arena_does_not_matter(tmp_path: Path) -> None:
    for seed in range(3):
        graph = integer_graph(Seeded(seed, 8), Rounding.DOUBLE)
        native, x = Native.build(written(graph, tmp_path / str(seed))), random_inputs(graph, Seeded(1), 10)
        assert native.run(x, poison=0).tobytes() == native.run(x, poison=0xFF).tobytes()


def test_what_is_not_a_number_becomes_the_lowest_code(tmp_path: Path) -> None:
    b = Builder()
    graph = b.graph(b.add(Quantize(), b.input("x", (4,)), quant=replace(CODE, bits=7)))
    x = np.array([[np.nan, np.inf, -np.inf, -np.nan]], np.float32)
    assert reference.run(graph, x).tolist() == [[-64, 63, -64, -64]]
    assert Native.build(written(graph, tmp_path)).run(x).tobytes() == reference.run(graph, x).tobytes()


@pytest.mark.parametrize("nodes", [0, 1, 2])
def test_a_network_that_computes_nothing_still_is_firmware(nodes: int, tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (2, 3), CODE)
    for shape in ((6,), (3, 2))[:nodes]:
        x = b.add(Reshape(shape=shape), x)
    graph = b.graph(x)
    firmware = written(graph, tmp_path)
    compile_strictly(firmware, *sources(firmware))
    codes = random_inputs(graph, Seeded(0), 5)
    assert Native.build(firmware).run(codes).tobytes() == codes.tobytes()


M7 = machine(Core.CORTEX_M7)
FUSING = [
    (("-target", M7.zig_target, f"-mcpu={M7.zig_cpu}"), r"\bvmul\.f32", r"\bvf(n?m[as])\.f"),
    (("-target", "aarch64-freestanding-none"), r"\bfmul\s", r"\b(fn?m(add|sub)|fml[as])\s"),
]


@pytest.mark.parametrize(("target", "apart", "fused"), FUSING, ids=["cortex-m7", "aarch64"])
@pytest.mark.parametrize("rounding", Rounding)
def test_a_compiler_that_fuses_multiply_and_add_finds_nothing_to_fuse(
    rounding: Rounding, target: tuple[str, ...], apart: str, fused: str, tmp_path: Path
) -> None:
    """A fused operation rounds once: it would change bytes where a user's compiler fuses by default, as GCC does."""
    flags = (*target, "-O2", "-ffp-contract=fast", "-fno-math-errno", "-S")
    firmware = written(everything(rounding), tmp_path)
    assembly = compile_strictly(firmware, "model.c", flags=flags).read_text(errors="replace")
    assert re.search(apart, assembly), "no float arithmetic found; the test looks for nothing"
    assert not re.search(fused, assembly)


def two_outputs(design: Design) -> Design:
    graph = replace(design.graph, outputs=("relu1", "relu2"))
    return replace(design, graph=graph, plan=plan_arena(graph))


def in_floats(design: Design) -> Design:
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", (2,))))
    return replace(design, graph=graph, plan=plan_arena(graph))


def unplanned(design: Design) -> Design:
    return replace(design, plan=None)


REFUSED: list[tuple[Callable[[Design], Design], int, str]] = [
    (unplanned, 1, "no memory plan; run PlanArena before emitting"),
    (two_outputs, 1, "one input and one output, this network 1 and 2; split it"),
    (in_floats, 1, r"relu1 \(Relu\): computes in float; quantize the design first"),
    (lambda design: design, 0, "needs at least one sample"),
]


@pytest.mark.parametrize(("change", "samples", "complaint"), REFUSED)
def test_what_cannot_be_firmware_is_refused_and_nothing_is_written(
    change: Callable[[Design], Design], samples: int, complaint: str, tmp_path: Path
) -> None:
    b = Builder()
    x = b.add(Relu(), b.input("x", (2,), CODE), quant=CODE)
    graph = b.graph(b.add(Relu(), x, quant=CODE))
    design = Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))
    with pytest.raises(GraphError, match=complaint):
        emit(change(design), tmp_path / "firmware", np.zeros((samples, 2), np.float32))
    with pytest.raises(GraphError, match="takes samples of shape"):
        emit(design, tmp_path / "firmware", np.zeros((1, 3), np.float32))
    assert list(tmp_path.iterdir()) == []

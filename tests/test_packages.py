"""Packages of embedded toolchains: complete, compiled with nothing but what they declare, and right."""

import ctypes
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosslayer.core.design import Design
from crosslayer.core.errors import InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Conv2d, Windows
from crosslayer.core.quant import Quant
from crosslayer.core.target import Core
from crosslayer.emit.packages import Package, emit_package, library_folder, package_name
from crosslayer.execute.toolchain import machine
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena
from crosslayer.testing.chance import Seeded
from crosslayer.testing.compiler import compile_strictly
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.graphs import integer_graph
from crosslayer.workbench import write_firmware
from test_emit import CODE, contents, everything

SKETCH = """
struct Port {
    long told = -1;
    void begin(long) {}
    void print(const char *) {}
    void println(long value) { told = value; }
    void println(unsigned long) {}
} Serial;
unsigned long micros() { return 7; }
void delay(unsigned long) {}
#include "selftest.ino"
extern "C" long differing() { setup(); loop(); return Serial.told; }
"""
"""A sketch with what the Arduino tools put around it."""

ROW = machine(Core.CORTEX_M4)
DEVICE = ("-target", ROW.zig_target, f"-mcpu={ROW.zig_cpu}", "-Os", "-fhosted")


def packaged(folder: Path, package: Package, *, streamed: bool = False) -> Path:
    graph = streamable() if streamed else everything(Rounding.DOUBLE)
    plan = plan_arena(graph, streamed=streamed)
    design = Design(graph=graph, target=load_target("stm32f769"), plan=plan)
    emit_package(design, folder / "my net", random_inputs(graph, Seeded(1), 3), package)
    return folder / "my net"


def streamable() -> Graph:
    """A network whose input can come row by row, with a large value in its midst."""
    rng, b = np.random.default_rng(0), Builder(Rounding.DOUBLE)
    x = b.input("x", (8, 6, 4), CODE)
    windows = Windows(kernel=(3, 3), padding=(1, 1, 1, 1))
    for taken, given in ((4, 16), (16, 4)):
        w = b.constant(f"w{given}", rng.integers(-127, 128, (given, 3, 3, taken)), Quant(bits=8, scale=(0.001,)))
        c = b.constant(f"b{given}", rng.integers(-500, 500, given), Quant(bits=32, scale=(0.00005,)))
        x = b.add(Conv2d(windows=windows), x, w, c, quant=CODE)
    return b.graph(x)


def check_library(folder: Path, sources: list[str], includes: list[str]) -> None:
    """The C files that a package lists are those that it holds, and compile with the folders that it declares."""
    assert sorted(sources) == sorted(str(path.relative_to(folder)) for path in (folder / "src").rglob("*.c"))
    for source in sources:
        compile_strictly(folder, source, flags=(*DEVICE, *(f"-I{path}" for path in includes)))


def selftest(folder: Path, sources: list[str], includes: list[str]) -> int:
    """The exit status of the self-test on this computer."""
    return ctypes.CDLL(str(compile_strictly(folder, *sources, flags=tuple(f"-I{path}" for path in includes)))).main()


@pytest.mark.parametrize("streamed", [False, True])
def test_an_arduino_library_compiles_and_its_sketch_finds_no_difference(streamed: bool, tmp_path: Path) -> None:
    folder = packaged(tmp_path, Package.ARDUINO, streamed=streamed)
    properties = dict(line.split("=", 1) for line in (folder / "library.properties").read_text().splitlines())
    assert set(properties) >= {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"}
    assert properties["name"] == "my_net"
    assert (folder / "src" / properties["includes"]).is_file()
    sources = [str(path.relative_to(folder)) for path in sorted((folder / "src").rglob("*.c"))]
    check_library(folder, sources, ["src"])  # the specification: src, and no other folder
    (folder / "examples" / "selftest" / "sketch.cpp").write_text(SKETCH)
    flags = ("-Isrc", "-fPIC")
    compile_strictly(folder, "examples/selftest/sketch.cpp", flags=flags, language="c++17").rename(folder / "sketch.o")
    library = ctypes.CDLL(str(compile_strictly(folder, "sketch.o", *sources, flags=flags)))
    assert library.differing() == 0


def test_a_zephyr_module_lists_its_files_and_its_sample_finds_no_difference(tmp_path: Path) -> None:
    folder = packaged(tmp_path, Package.ZEPHYR)
    module = (folder / "zephyr" / "module.yml").read_text()
    assert module.startswith("name: my_net\n")
    assert (folder / re.findall(r"cmake: (\S+)", module)[0] / "CMakeLists.txt").is_file()
    (option,) = re.findall(r"^config (\w+)", (folder / re.findall(r"kconfig: (\S+)", module)[0]).read_text())
    commands = dict(re.findall(r"(\w+)\(([^()]*)\)", (folder / "CMakeLists.txt").read_text()))
    assert commands["if"] == f"CONFIG_{option}"
    sample = folder / "samples" / "selftest"
    assert f"CONFIG_{option}=y" in (sample / "prj.conf").read_text().splitlines()
    sources, includes = commands["zephyr_library_sources"].split(), commands["zephyr_include_directories"].split()
    check_library(folder, sources, includes)
    assert selftest(folder, [*sources, "samples/selftest/src/main.c"], includes) == 0
    (shown,) = re.findall(r'- "\d+ (.*)"', (sample / "sample.yaml").read_text())
    assert shown in (sample / "src" / "main.c").read_text()


def test_a_cmsis_pack_lists_its_files_and_its_example_finds_no_difference(tmp_path: Path) -> None:
    folder = packaged(tmp_path, Package.CMSIS_PACK)
    root = ElementTree.parse(folder / "crosslayer.my_net.pdsc").getroot()
    assert root.tag == "package" and root.findtext("name") == "my_net" and root.findtext("vendor") == "crosslayer"
    assert {"description", "url", "releases"} <= {child.tag for child in root}
    (component,) = root.findall("components/component")
    assert set(component.attrib) == {"Cclass", "Cgroup", "Csub", "Cversion"}
    files: list[dict[str, Any]] = [file.attrib for file in component.findall("files/file")]
    assert all((folder / file["name"]).exists() for file in files)
    sources = [file["name"] for file in files if file["category"] == "sourceC"]
    includes = [file["name"] for file in files if file["category"] == "include"]
    check_library(folder, sources, includes)
    assert selftest(folder, [*sources, "examples/selftest/main.c"], includes) == 0


@pytest.mark.parametrize("package", Package)
def test_a_package_holds_the_same_library_and_the_same_bytes_every_time(package: Package, tmp_path: Path) -> None:
    first = contents(packaged(tmp_path / "a", package))
    assert contents(packaged(tmp_path / "b", package)) == first
    plain = contents(packaged(tmp_path / "c", Package.PLAIN))
    library = contents(library_folder(tmp_path / "a" / "my net", package))
    others = {"golden.h", "selftest.c", "Makefile", "CMakeLists.txt", "manifest.json"}
    assert {name: plain[name] for name in plain if name not in others} == {
        name: text for name, text in library.items() if name not in others
    }


@pytest.mark.parametrize(
    ("folder", "name"), [("kws", "kws"), ("2nd try", "model_2nd_try"), ("日本", "model"), ("a--b.c", "a_b_c")]
)
def test_every_toolchain_takes_the_name(folder: str, name: str) -> None:
    assert package_name(Path(folder)) == name


def test_what_is_no_firmware_is_not_overwritten(tmp_path: Path) -> None:
    graph = integer_graph(Seeded(1), Rounding.DOUBLE)
    design = Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))
    x = random_inputs(graph, Seeded(1), 2)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…")
    with pytest.raises(InputError, match="is there and is no plain firmware"):
        write_firmware(design, tmp_path / "letters", Package.PLAIN, x, verify=False)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "…"
    for _ in range(2):
        write_firmware(design, tmp_path / "out", Package.ZEPHYR, x, verify=False)

"""The firmware as a package of an embedded toolchain: an Arduino library, a Zephyr module or a CMSIS-Pack.

Each holds the same C files as the plain folder, under `src/`, and the self-test as an example. The formats: the Arduino
library specification, rev. 2.2 (arduino-cli's documentation, "Library specification"); Zephyr's documentation, "Modules
(External projects)"; the Open-CMSIS-Pack specification 1.7.32, "Pack Description (*.pdsc) Format" and its PACK.xsd.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import final

from crosslayer.core.design import Design
from crosslayer.core.files import folder_atomic
from crosslayer.core.quant import Array
from crosslayer.emit.firmware import emit, render
from crosslayer.emit.literals import identifier
from crosslayer.emit.manifest import write_manifest


class Package(StrEnum):
    """The forms in which firmware is delivered."""

    PLAIN = "plain"
    ARDUINO = "arduino"
    ZEPHYR = "zephyr"
    CMSIS_PACK = "cmsis-pack"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the files of a package lie."""

    files: Mapping[str, str]
    """Templates of its own by path; `{name}` in a path stands for the package's name."""
    golden: str
    """The folder of the golden samples."""
    main: str | None
    """The path of the self-test; None where one of the templates is the self-test."""


_LAYOUTS: Mapping[Package, Layout] = MappingProxyType(
    {
        Package.ARDUINO: Layout(
            files={
                "library.properties": "arduino/library.properties",
                "examples/selftest/selftest.ino": "arduino/selftest.ino",
            },
            golden="examples/selftest",
            main=None,
        ),
        Package.ZEPHYR: Layout(
            files={
                "zephyr/module.yml": "zephyr/module.yml",
                "zephyr/Kconfig": "zephyr/Kconfig",
                "CMakeLists.txt": "zephyr/CMakeLists.txt",
                "samples/selftest/CMakeLists.txt": "zephyr/sample_CMakeLists.txt",
                "samples/selftest/prj.conf": "zephyr/prj.conf",
                "samples/selftest/sample.yaml": "zephyr/sample.yaml",
            },
            golden="samples/selftest/src",
            main="samples/selftest/src/main.c",
        ),
        Package.CMSIS_PACK: Layout(
            files={"crosslayer.{name}.pdsc": "cmsis/pack.pdsc"},
            golden="examples/selftest",
            main="examples/selftest/main.c",
        ),
    }
)


def emit_package(design: Design, folder: Path, samples: Array, package: Package) -> None:
    """`folder` holds what `emit` writes, as a package that is named after the folder, and its manifest."""
    with folder_atomic(folder) as scratch:
        emit(design, library_folder(scratch, package), samples)
        if package is not Package.PLAIN:
            _arrange(design, scratch, package, package_name(folder))
        write_manifest(scratch, design)


def _arrange(design: Design, folder: Path, package: Package, name: str) -> None:
    """Give what `emit` wrote the folders and the files of a package."""
    layout, library = _LAYOUTS[package], library_folder(folder, package)
    (folder / layout.golden).mkdir(parents=True)
    (library / "golden.h").rename(folder / layout.golden / "golden.h")
    if layout.main is not None:
        (library / "selftest.c").rename(folder / layout.main)
    for left in ("selftest.c", "Makefile", "CMakeLists.txt"):  # the package has its own
        (library / left).unlink(missing_ok=True)
    content = {
        "name": name,
        "sources": [str(path.relative_to(library).as_posix()) for path in sorted(library.rglob("*.c"))],
        "arena_bytes": 0 if design.plan is None else design.plan.arena_bytes,
        "streamed": design.plan is not None and design.plan.streamed,
        "fetched": design.plan is not None and design.plan.fetched,
    }
    for path, template in layout.files.items():
        file = folder / path.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render(template, content))


def library_folder(folder: Path, package: Package) -> Path:
    """Where in a package `model.h`, `model.c` and `kernels/` lie."""
    return folder if package is Package.PLAIN else folder / "src"


def package_name(folder: Path) -> str:
    """A name that every toolchain takes: letters, digits and underscores after a letter.

    >>> package_name(Path("out/2nd try"))
    'model_2nd_try'
    """
    name = re.sub(r"_+", "_", identifier(folder.resolve().name)).strip("_")
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")

"""What a linked image holds: its sizes, its symbols and what is loaded where."""

import importlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from crosslayer.core.errors import ToolError
from crosslayer.execute.toolchain import INSTALL


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """What is needed of an ELF file."""

    sections: Mapping[str, int]
    """Sizes of what takes memory on the device."""
    written: frozenset[str]
    stored: frozenset[str]
    segments: tuple[tuple[int, bytes], ...]
    """Address and content. Data that the start-up code would copy from flash to RAM is already in RAM."""
    symbols: Mapping[str, int]
    sizes: Mapping[str, int]
    """Bytes of each symbol."""
    functions: tuple[tuple[int, str], ...]
    """Start address and name, in order of address."""
    ends: Mapping[int, int]
    """Where the function that starts at an address ends."""
    marks: tuple[tuple[int, bool], ...]
    """Where code (False) or data among it (True) begins: the mapping symbols of the ABI, in order of address."""

    @staticmethod
    def read(path: Path) -> "Elf":
        """The content of a file that the linker wrote."""
        elffile = load_package("elftools.elf.elffile")
        elferror = load_package("elftools.common.exceptions").ELFError
        try:
            with path.open("rb") as file:
                return Elf._from(elffile.ELFFile(file))
        except (OSError, elferror) as error:
            raise ToolError(f"{path}: cannot be read ({error}); delete it, and it will be built again") from error

    @staticmethod
    def _from(elf: Any) -> "Elf":  # Any: pyelftools has no types
        write, allocate = 1, 2  # SHF_WRITE, SHF_ALLOC
        held = [section for section in elf.iter_sections() if section["sh_flags"] & allocate and section["sh_size"]]
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
        starts: dict[int, str] = {}
        ends: dict[int, int] = {}
        marks = {int(symbol["st_value"]): symbol.name[1] == "d" for symbol in symbols if symbol.name.startswith("$")}
        for symbol in symbols:
            if symbol["st_info"]["type"] == "STT_FUNC":
                address, name = int(symbol["st_value"]) & ~1, str(symbol.name)
                starts[address] = min(starts.get(address, name), name, key=len)  # of aliases, the plain C name
                ends[address] = address + int(symbol["st_size"])
        return Elf(
            sections={str(section.name): int(section["sh_size"]) for section in held},
            written=frozenset(str(section.name) for section in held if section["sh_flags"] & write),
            stored=frozenset(str(section.name) for section in held if section["sh_type"] != "SHT_NOBITS"),
            segments=tuple(
                (int(segment["p_vaddr"]), bytes(segment.data()).ljust(int(segment["p_memsz"]), b"\0"))
                for segment in elf.iter_segments()
                if segment["p_type"] == "PT_LOAD" and segment["p_memsz"]
            ),
            symbols={str(symbol.name): int(symbol["st_value"]) for symbol in symbols},
            sizes={str(symbol.name): int(symbol["st_size"]) for symbol in symbols},
            functions=tuple(sorted(starts.items())),
            ends=ends,
            marks=tuple(sorted(marks.items())),
        )

    def words(self, symbol: str, count: int) -> tuple[int, ...]:
        """32-bit constants in flash."""
        base, content = self.segments[0]
        start = self.symbols[symbol] - base
        return tuple(int(word) for word in np.frombuffer(content, "<u4", count, start))

    def function_at(self, address: int) -> str:
        """The function that holds a code address."""
        index = bisect_right(self.functions, address, key=lambda entry: entry[0]) - 1
        return self.functions[index][1] if index >= 0 else "no function"

    def is_data(self, address: int) -> bool:
        """Whether data lies at an address of the code, such as a function's constants."""
        index = bisect_right(self.marks, address, key=lambda entry: entry[0]) - 1
        return index >= 0 and self.marks[index][1]


def load_package(module: str) -> Any:  # Any: the emulator's packages have no usable types
    """An optional package's module."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolError(f"{module.partition('.')[0]} is not installed: {INSTALL}") from error

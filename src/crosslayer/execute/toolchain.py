"""C into machine code, for this computer and for each core, with a compiler that comes from the package index.

Builds are content-addressed: the same sources, flags and compiler give the same file in the cache, made once.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import final

import platformdirs

from crosslayer.core.errors import InputError, ToolError
from crosslayer.core.target import Core

INSTALL = "pip install 'crosslayer[mcu]'"

_HERE = Path(__file__).parent
_KEPT_BUILDS = 512
_STALE_S = 86_400.0
_COMPILE_LIMIT_S = 900.0
_SHOWN_LINES = 12

_WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wvla", "-Werror")
_SEMANTICS = (
    "-std=c99",
    "-ffp-contract=off",  # a fused multiply-add rounds once: cores with one would differ from those without
    "-fno-math-errno",
    "-fomit-frame-pointer",
)
_PLAIN = ("-fno-sanitize=undefined",)  # zig adds traps when it does not optimise
_BARE_METAL = (
    "-fhosted",  # zig says -ffreestanding, which leaves memcpy(&word, bytes, 4) a call instead of one load
    "-g",  # or zig strips the symbols at -Os; the linker script drops the rest
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-isystem",
    "harness/include",
    "-Wl,--entry=crosslayer_return",
    "-Wl,--gc-sections",
    "-Wl,-z,max-page-size=4096",
)
_UNDEFINED = ("undefined", "float-cast-overflow")


class Level(StrEnum):
    """How hard the compiler optimises."""

    O0 = "-O0"
    O1 = "-O1"
    O2 = "-O2"
    O3 = "-O3"
    OS = "-Os"
    OZ = "-Oz"

    @property
    def flags(self) -> tuple[str, ...]:
        """For zig, which knows three levels and rounds to them, and for clang behind it, which knows all."""
        return (self.value, "-Xclang", self.value)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """A C compiler and the command that calls it."""

    title: str
    """Name and version."""
    command: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A compiled file, and what made it."""

    path: Path
    compiler: str
    flags: tuple[str, ...]
    reused: bool
    """It lay in the cache; no compiler ran."""


class Emulator(StrEnum):
    """What runs firmware for a core."""

    UNICORN = "unicorn"
    QEMU = "qemu"


_BOARDS = {Emulator.UNICORN: ("board.ld", "board.c"), Emulator.QEMU: ("an547.ld", "board.c", "an547.c")}
"""The linker script and the sources that an emulator needs beside the model."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionSet:
    """What cores of one family share: Unicorn's names of architecture, modes and registers."""

    entry_bit: int
    architecture: str
    modes: tuple[str, ...]
    constants: str
    argument: str
    second: str
    stack: str
    link: str
    program: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How the compiler and the emulator name a core."""

    core: Core
    instruction_set: InstructionSet
    zig_target: str
    zig_cpu: str
    emulator: Emulator
    emulator_model: str
    """Unicorn's name of the core, or QEMU's name of a board that has it."""


@cache
def machine(core: Core) -> Machine:
    """The row of a core in `cores.toml`.

    >>> machine(Core.CORTEX_M0).zig_cpu
    'cortex_m0'
    """
    table = tomllib.loads((_HERE / "cores.toml").read_text())
    row = table["core"][core.value]
    shared = table["instruction_set"][row.pop("instruction_set")]
    shared["modes"] = tuple(shared["modes"])
    emulator = Emulator(row.pop("emulator"))
    return Machine(core=core, instruction_set=InstructionSet(**shared), emulator=emulator, **row)


@cache
def zig() -> Compiler:
    """The compiler from the package index: clang with cross-compilers and run-time libraries for all cores."""
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as error:
        raise ToolError(f"the C compiler (ziglang) is not installed: {INSTALL}") from error
    return Compiler(title=f"zig cc {version}", command=(sys.executable, "-m", "ziglang", "cc"))


def default_cache() -> Path:
    """The user's cache folder; where that cannot be written, one of this user's own in the temporary folder."""
    usual = platformdirs.user_cache_path("crosslayer")
    if _can_write(usual):
        return usual
    spare = Path(tempfile.gettempdir()) / f"crosslayer-{getattr(os, 'getuid', str)()}"
    if _can_write(spare) and _is_mine(spare):
        return spare
    raise ToolError(f"{usual}: compiled files cannot be cached there; make it writable or set XDG_CACHE_HOME")


def build_native(folder: Path, *, level: Level = Level.O2, cache: Path | None = None) -> Build:
    """A shared library of the firmware in `folder` for this computer, with `crosslayer_run_many`."""
    return _compile(
        {**_firmware(folder), **_harness("run_many.c", "feed.h")},
        (*_on_this_computer(), *level.flags, *_SEMANTICS, *_WARNINGS, *_PLAIN, "-Ifirmware"),
        (*_units(folder), "harness/run_many.c"),
        suffix=".so",
        compiler=zig(),
        cache=cache,
    )


def build_core(folder: Path, core: Core, *, level: Level = Level.O2, cache: Path | None = None) -> Build:
    """An ELF image of the firmware in `folder` for a core: code and constants in flash; start-up code only for QEMU."""
    row = machine(core)
    script, *board = _BOARDS[row.emulator]
    return _compile(
        {**_firmware(folder), **_harness(script, *board, "include/string.h")},
        (
            *("-target", row.zig_target, f"-mcpu={row.zig_cpu}", "-T", f"harness/{script}"),
            *(*level.flags, *_SEMANTICS, *_WARNINGS, *_PLAIN, *_BARE_METAL, "-Ifirmware"),
        ),
        (*_units(folder), *(f"harness/{name}" for name in board)),
        suffix=".elf",
        compiler=zig(),
        cache=cache,
    )


def build_sanitized(folder: Path, *, cache: Path | None = None) -> tuple[Build, tuple[str, ...]]:
    """A program that filters samples through the firmware and dies at its first error, and the sanitizers in it.

    A system clang or gcc brings the address and the undefined-behaviour sanitizer; zig alone only the latter, because
    its wheel has no run-time library for the former.
    """
    compiler, sanitizers = _sanitizing(cache)
    built = _compile(
        {**_firmware(folder), **_harness("filter.c", "feed.h")},
        (*_sanitizer_flags(sanitizers), "-O1", *_SEMANTICS, "-Ifirmware"),
        (*_units(folder), "harness/filter.c"),
        suffix=".run",
        compiler=compiler,
        cache=cache,
    )
    return built, sanitizers


def build_counter(*, cache: Path | None = None) -> Build:
    """Unicorn's block counter as a shared library."""
    return _build_library("count_blocks.c", cache)


def build_qemu_counter(plugin_version: int, *, cache: Path | None = None) -> Build:
    """QEMU's block counter as a plugin for a QEMU that takes plugins of that version."""
    return _build_library("count_qemu.c", cache, f"-DPLUGIN_VERSION={plugin_version}")


def _build_library(source: str, cache: Path | None, *definitions: str) -> Build:
    """A file of the harness as a shared library for this computer."""
    flags = (*_on_this_computer(), *Level.O2.flags, *_SEMANTICS, *_WARNINGS, *_PLAIN, *definitions)
    return _compile(_harness(source), flags, (f"harness/{source}",), suffix=".so", compiler=zig(), cache=cache)


def _on_this_computer() -> tuple[str, ...]:
    """Flags of a shared library that may use every instruction of this processor."""
    return ("-mcpu=native", "-shared", "-fPIC")


def _sanitizer_flags(sanitizers: tuple[str, ...]) -> tuple[str, ...]:
    return (f"-fsanitize={','.join(sanitizers)}", "-fno-sanitize-recover=all", "-g")


def _sanitizing(cache: Path | None) -> tuple[Compiler, tuple[str, ...]]:
    """The first compiler that can link and run the most sanitizers."""
    for name in ("clang", "gcc", "cc"):
        path = shutil.which(name)
        if path and _has_address_sanitizer(compiler := _system_compiler(path), cache):
            return compiler, ("address", *_UNDEFINED)
    return zig(), _UNDEFINED


@cache
def _system_compiler(path: str) -> Compiler:
    answer = subprocess.run((path, "--version"), capture_output=True, text=True, check=False)
    return Compiler(title=answer.stdout.partition("\n")[0].strip(), command=(path,))


@cache
def _has_address_sanitizer(compiler: Compiler, cache: Path | None) -> bool:
    """Whether a sanitized program links and starts: the run-time libraries may be absent."""
    source = {"empty.c": b"int main(void) { return 0; }\n"}
    flags = _sanitizer_flags(("address", *_UNDEFINED))
    try:
        built = _compile(source, flags, ("empty.c",), suffix=".run", compiler=compiler, cache=cache)
    except ToolError:
        return False
    return subprocess.run((str(built.path),), capture_output=True, check=False).returncode == 0


def _firmware(folder: Path) -> dict[str, bytes]:
    """The C files of a firmware folder."""
    for needed in ("model.c", "model.h"):
        if not (folder / needed).is_file():
            raise InputError(f"{folder / needed}: not found; give the folder that `emit` wrote")
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in {".c", ".h"})
    return {f"firmware/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def _units(folder: Path) -> tuple[str, ...]:
    """The C files of a firmware folder that make its library: all but the self-test."""
    return tuple(name for name in _firmware(folder) if name.endswith(".c") and not name.endswith("/selftest.c"))


def _harness(*names: str) -> dict[str, bytes]:
    return {f"harness/{name}": (_HERE / "harness" / name).read_bytes() for name in names}


def _compile(
    sources: Mapping[str, bytes],
    flags: tuple[str, ...],
    units: tuple[str, ...],
    *,
    suffix: str,
    compiler: Compiler,
    cache: Path | None,
) -> Build:
    """`units` of `sources`, compiled and linked, from the cache if the same was built before."""
    cache = (cache or default_cache()).resolve()
    builds = cache / "builds"
    product = builds / f"{_key(sources, flags, units, compiler)}{suffix}"
    if product.exists():
        with contextlib.suppress(OSError):
            os.utime(product)  # the trim below drops what was not used for longest
        return Build(path=product, compiler=compiler.title, flags=flags, reused=True)
    try:
        builds.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".stage-", dir=builds) as name:
            stage = Path(name)
            for relative, content in sources.items():
                (stage / relative).parent.mkdir(parents=True, exist_ok=True)
                (stage / relative).write_bytes(content)
            _call(compiler, (*flags, "-o", "product", *units), stage, cache)
            with (stage / "product").open("rb") as made:
                os.fsync(made.fileno())
            (stage / "product").replace(product)
    except OSError as error:
        raise ToolError(f"{builds}: cannot be written ({error.strerror}); free space or set XDG_CACHE_HOME") from error
    _trim(builds)
    return Build(path=product, compiler=compiler.title, flags=flags, reused=False)


def _call(compiler: Compiler, arguments: tuple[str, ...], stage: Path, cache: Path) -> None:
    """Run the compiler in `stage`; its complaint becomes the error."""
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(cache / "zig")),  # run-time libraries: kept
        "ZIG_LOCAL_CACHE_DIR": str(stage / "zig"),  # object files: dropped with the stage
    }
    try:
        done = subprocess.run(
            (*compiler.command, *arguments),
            cwd=stage,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{compiler.title}: not finished after {_COMPILE_LIMIT_S:.0f} s; try a lower level") from error
    except OSError as error:
        raise ToolError(f"{compiler.command[0]}: cannot be run ({error.strerror}); {INSTALL}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        shown = "\n".join(lines[:_SHOWN_LINES]) or f"exit status {done.returncode} and no message"
        raise ToolError(f"{compiler.title} cannot compile the firmware:\n{shown}")


def _key(sources: Mapping[str, bytes], flags: tuple[str, ...], units: tuple[str, ...], compiler: Compiler) -> str:
    """A digest of all that decides the bytes of a build."""
    digest = hashlib.sha256(repr((compiler.title, flags, units, _processor())).encode())
    for name, content in sorted(sources.items()):
        digest.update(repr((name, len(content))).encode())
        digest.update(content)
    return digest.hexdigest()


@cache
def _processor() -> str:
    """What `-mcpu=native` depends on: a cache on a shared disk serves unequal computers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{sys.platform} {platform.machine()} {features}"


def _trim(builds: Path) -> None:
    """Keep the builds used last; drop what killed compilers left behind."""
    found = sorted(((_age_s(path), path) for path in builds.iterdir()), reverse=True)
    stages = [path for age_s, path in found if path.name.startswith(".stage-") and age_s > _STALE_S]
    files = [path for _, path in found if not path.name.startswith(".")]
    for path in stages:
        shutil.rmtree(path, ignore_errors=True)
    for path in files[: max(0, len(files) - _KEPT_BUILDS)]:
        path.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # another process tidied up first
        return 0.0


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _is_mine(folder: Path) -> bool:
    """Whether nobody else could have put a build there."""
    status = folder.lstat()
    return os.name != "posix" or (status.st_uid == os.getuid() and not status.st_mode & 0o022)

"""The firmware on an emulated core: the same bytes as on the device, and exact counts of what it executes.

Every instruction is counted, per sample and per function: a small C hook sees each basic block, so that counting costs
next to nothing. Instructions are not cycles; a target's cycles per instruction joins the two.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import ToolError
from crosslayer.core.target import Core
from crosslayer.execute import qemu
from crosslayer.execute.elf import Elf, load_package
from crosslayer.execute.native import POISON, Bytes, as_samples
from crosslayer.execute.stack import StackBound, stack_bound
from crosslayer.execute.toolchain import INSTALL, Build, Emulator, Level, build_core, build_counter, machine

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples in all."""

LIMIT_INSTRUCTIONS = 20_000_000_000
"""A sample that executes more than this hangs: ten times what MobileNetV2 at 224×224 needs on a Cortex-M0."""

STACK_BYTES = 16 * 1024

_HARNESS = ".harness"
_PAGE = 4096
# Page numbers whose low bits differ from the image's: where they clash, the emulator is up to 7 times slower.
_STACK_LOW = 0x210F_C000
_ARENA_PAGES = 0x220A_0000
_ALIGNMENT = 16
_GAP = 0x10_0000  # addresses this far below the stack are taken for a stack that grew too deep
_GUARD_BYTE = b"\x3c"
_STEP_BYTES = 32  # of a `cl_step` in kernels.h, where pointers have 32 bits


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Firmware linked for a core, and what it takes of the device's memories."""

    core: Core
    made: Build
    arena_bytes: int
    input_bytes: int
    output_bytes: int
    input_rows: int
    """In how many pieces the input is given; 0: it is taken whole."""
    flash_bytes: int
    """Code, constants and initial values; without the harness."""
    ram_bytes: int
    """Arena and static data; without the stack, which only a run shows."""
    sections: Mapping[str, int]

    @staticmethod
    def link(folder: Path, core: Core, *, level: Level = Level.O2, cache: Path | None = None) -> "Image":
        """Compile the firmware in `folder` for a core, or take it from the cache."""
        if machine(core).emulator is Emulator.QEMU and "int model_push(" in (folder / "model.h").read_text():
            raise ToolError(
                f"{core.value}: firmware that takes its input row by row is not run in QEMU; choose another core"
            )
        made = build_core(folder, core, level=level, cache=cache)
        elf = Elf.read(made.path)
        arena, taken, given, rows = elf.words("crosslayer_sizes", 4)
        model = {name: size for name, size in elf.sections.items() if not name.startswith(_HARNESS)}
        ram = sum(size for name, size in model.items() if name in elf.written)
        return Image(
            core=core,
            made=made,
            arena_bytes=arena,
            input_bytes=taken,
            output_bytes=given,
            input_rows=rows,
            flash_bytes=sum(size for name, size in model.items() if name in elf.stored),
            ram_bytes=arena + ram,
            sections=model,
        )

    def stack_bound(self) -> StackBound:
        """The most stack that the firmware can take, whatever its input: from the machine code, without a run."""
        return stack_bound(self.made.path, self.core, step_bytes=_STEP_BYTES)

    def run(
        self,
        codes: npt.NDArray[Any],
        *,
        poison: int | None = POISON,
        limit: int = LIMIT_INSTRUCTIONS,
        progress: Progress | None = None,
    ) -> "Emulation":
        """Run input codes (samples, ...) of any type and shape, one after the other, each in an arena full of `poison`;
        with None what an inference leaves there stays for the next, which QEMU cannot do.

        QEMU runs them all at once, and the progress is told at the end.
        """
        inputs = as_samples(codes, self.input_bytes)
        if machine(self.core).emulator is Emulator.QEMU:
            if poison is None:
                raise ToolError(
                    f"{self.core.value}: QEMU fills each arena; give a byte as poison or choose another core"
                )
            given = (self.made.path, self.core, inputs, self.output_bytes)
            ran = qemu.run(*given, poison=poison, limit=limit, step_bytes=_STEP_BYTES)
            if progress is not None and len(inputs):
                progress(len(inputs), len(inputs))
            return Emulation(
                image=self,
                outputs=ran.outputs,
                instructions=ran.instructions,
                stack_bytes=ran.stack_bytes,
                profile=ran.profile,
                by_step=ran.by_step,
            )
        outputs = np.empty((len(inputs), self.output_bytes), np.uint8)
        instructions = np.zeros(len(inputs), np.int64)
        board = _Board(self, limit)
        for index, sample in enumerate(inputs):
            instructions[index], outputs[index] = board.infer(index, sample.tobytes(), poison)
            if progress is not None:
                progress(index + 1, len(inputs))
        return Emulation(
            image=self,
            outputs=outputs,
            instructions=instructions,
            stack_bytes=board.stack_bytes(),
            profile=board.profile(),
            by_step=board.by_step,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """What a run on an emulated core showed."""

    image: Image
    outputs: Bytes
    """Axes: sample, byte."""
    instructions: npt.NDArray[np.int64]
    """Executed by `model_run` for each sample, skipped conditional ones included."""
    stack_bytes: int
    """The deepest byte that `model_run` wrote below its caller's stack pointer, over all samples."""
    profile: Mapping[str, int]
    """Instructions of each function that ran, over all samples; the most expensive first."""
    by_step: npt.NDArray[np.uint64]
    """Instructions of each step of the model, over all samples; empty where the emulator does not tell."""


def emulate(folder: Path, core: Core, codes: npt.NDArray[Any], *, progress: Progress | None = None) -> Emulation:
    """Link the firmware in `folder` for a core and run input codes on it."""
    return Image.link(folder, core).run(codes, progress=progress)


def left_out() -> dict[Core, str]:
    """The cores that no emulator here runs, each with the reason."""
    return {
        core: f"{core.value}: {qemu.ABSENT}"
        for core in Core
        if machine(core).emulator is Emulator.QEMU and not qemu.is_installed()
    }


def runnable_cores() -> list[Core]:
    """The cores that an emulator here runs: all, but without QEMU those that only it has."""
    return [core for core in Core if core not in left_out()]


class _Counter(ctypes.Structure):
    """`Counter` of harness/count_blocks.c."""

    _fields_ = (
        ("code", ctypes.c_char_p),
        ("base", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("blocks", ctypes.c_void_p),
        ("executed", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
        ("thumb", ctypes.c_int32),
        ("stop", ctypes.c_void_p),
        ("make", ctypes.c_uint64),
        ("steps", ctypes.c_uint64),
        ("step_bytes", ctypes.c_uint64),
        ("step_count", ctypes.c_uint64),
        ("by_step", ctypes.c_void_p),
        ("step", ctypes.c_uint64),
        ("second", ctypes.c_int32),
        ("read", ctypes.c_void_p),
    )


_BLOCK = np.dtype([("bytes", np.uint32), ("instructions", np.uint32), ("executed", np.uint64)])


@final
class _Board:
    """An emulated core with flash, static data, stack and arena, each between unmapped pages."""

    def __init__(self, image: Image, limit: int) -> None:
        unicorn = load_package("unicorn")
        self.image = image
        self.where = image.core.value
        self.elf = Elf.read(image.made.path)
        self.limit = limit
        self.row = machine(image.core)
        family = self.row.instruction_set
        self.constants = load_package(f"unicorn.{family.constants}")
        self.error: type[Exception] = unicorn.UcError

        mode = sum(getattr(unicorn, name) for name in family.modes)
        self.engine = unicorn.Uc(getattr(unicorn, family.architecture), mode)
        self.engine.ctl_set_cpu_model(getattr(self.constants, self.row.emulator_model))
        executable = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
        writable = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
        for index, (address, content) in enumerate(self.elf.segments):
            self.engine.mem_map(address, _round_up(len(content), _PAGE), executable if index == 0 else writable)
            self.engine.mem_write(address, content)

        self.paint = np.random.default_rng(0).integers(0, 256, STACK_BYTES, np.uint8)  # no byte a program writes often
        self.engine.mem_map(_STACK_LOW, STACK_BYTES, writable)
        self.arena_pages = _round_up(max(image.arena_bytes, 1), _PAGE)
        self.arena = _ARENA_PAGES + self.arena_pages - _round_up(image.arena_bytes, _ALIGNMENT)  # an overrun faults
        self.engine.mem_map(_ARENA_PAGES, self.arena_pages, writable)
        self.engine.mem_write(_ARENA_PAGES, _GUARD_BYTE * self.arena_pages)

        self.faults: list[str] = []
        self.engine.hook_add(unicorn.UC_HOOK_MEM_INVALID, _fault_hook(unicorn, self.faults))
        self.counter = self._count_blocks(unicorn.UC_HOOK_BLOCK)
        self.input = self._call("model_input")
        self.output = self._call("model_output")
        self.blocks["executed"] = 0
        self.engine.mem_write(_STACK_LOW, self.paint.tobytes())

    def infer(self, index: int, sample: bytes, poison: int | None) -> tuple[int, Bytes]:
        """Instructions and output bytes of one sample."""
        self.where = f"{self.image.core.value}, sample {index}"
        if poison is not None:
            self.engine.mem_write(self.arena, bytes([poison]) * self.image.arena_bytes)
        self.counter.step = len(self.by_step)  # none yet
        if self.image.input_rows:
            instructions = self._counted("model_begin", 0)
            size = len(sample) // self.image.input_rows
            for row in range(self.image.input_rows):
                self.counter.step = len(self.by_step)
                self._give(self._call("model_input"), sample[row * size : (row + 1) * size])
                instructions += self._counted("model_push", int(row + 1 == self.image.input_rows))
        else:
            self._give(self.input, sample)
            instructions = self._counted("model_run", 0)
        self._check_guard()
        try:
            raw = self.engine.mem_read(self.output, self.image.output_bytes)
        except self.error as error:
            raise ToolError(f"{self.where}: model_output gave 0x{self.output:08x}, outside the arena") from error
        return instructions, np.frombuffer(raw, np.uint8)

    def _give(self, address: int, codes: bytes) -> None:
        """Input codes to where the firmware wants them."""
        try:
            self.engine.mem_write(address, codes)
        except self.error as error:
            raise ToolError(f"{self.where}: model_input gave 0x{address:08x}, which lies outside the arena") from error

    def _counted(self, function: str, expected: int) -> int:
        """Instructions of a call that returns what is expected."""
        self.counter.executed = 0
        status = self._call(function)
        if status != expected:
            status = ctypes.c_int32(status).value
            raise ToolError(f"{self.where}: {function} returned {status}; the firmware is faulty")
        return int(self.counter.executed)

    def stack_bytes(self) -> int:
        """Stack bytes from the deepest change to the top."""
        now = np.frombuffer(self.engine.mem_read(_STACK_LOW, STACK_BYTES), np.uint8)
        changed = np.flatnonzero(now != self.paint)
        return STACK_BYTES - int(changed[0]) if len(changed) else 0

    def profile(self) -> dict[str, int]:
        """Instructions by function, the most expensive first."""
        base = self.elf.segments[0][0]
        total: dict[str, int] = {}
        for halfword in np.flatnonzero(self.blocks["executed"]).tolist():
            name = self.elf.function_at(base + 2 * halfword)
            total[name] = total.get(name, 0) + int(self.blocks["executed"][halfword])
        return dict(sorted(total.items(), key=lambda entry: -entry[1]))

    def _register(self, name: str) -> int:
        return int(getattr(self.constants, name))

    def _call(self, function: str) -> int:
        """The result of a C function of the firmware, given the arena."""
        family = self.row.instruction_set
        home = self.elf.symbols["crosslayer_return"]
        self.engine.reg_write(self._register(family.argument), self.arena)
        self.engine.reg_write(self._register(family.stack), _STACK_LOW + STACK_BYTES)
        self.engine.reg_write(self._register(family.link), home)
        try:
            self.engine.emu_start(self.elf.symbols[function], home & ~1)
        except self.error as error:
            raise ToolError(self._failure(function, self.faults[0] if self.faults else f"fails: {error}")) from error
        if self.counter.executed >= self.limit:
            raise ToolError(self._failure(function, f"does not end within {self.limit} instructions"))
        if self.engine.reg_read(self._register(family.program)) != home & ~1:
            raise ToolError(self._failure(function, "stops the core"))
        return int(self.engine.reg_read(self._register(family.argument))) & 0xFFFF_FFFF

    def _failure(self, function: str, what: str) -> str:
        program = int(self.engine.reg_read(self._register(self.row.instruction_set.program)))
        running = self.elf.function_at(self.counter.last)
        return f"{self.where}: {function} {what}, at pc 0x{program:08x} in {running}; the firmware is faulty"

    def _check_guard(self) -> None:
        start, end = self.arena - _ARENA_PAGES, self.arena - _ARENA_PAGES + self.image.arena_bytes
        pages = bytes(self.engine.mem_read(_ARENA_PAGES, self.arena_pages))
        if pages[:start].strip(_GUARD_BYTE) or pages[end:].strip(_GUARD_BYTE):
            raise ToolError(f"{self.where}: model_run wrote outside its arena; the firmware is faulty")

    def _count_blocks(self, kind: int) -> _Counter:
        """Hook the C counter into the engine, past Unicorn's Python callbacks."""
        library = load_package("unicorn.unicorn_py3.unicorn").uclib
        base, code = self.elf.segments[0]
        self.blocks = np.zeros(len(code) // 2 + 1, _BLOCK)
        self.library = ctypes.CDLL(str(build_counter().path))
        count = self.elf.sizes.get("steps", 0) // _STEP_BYTES
        self.by_step = np.zeros(count, np.uint64)
        counter = _Counter(
            code=code,
            base=base,
            bytes=len(code),
            blocks=self.blocks.ctypes.data,
            limit=self.limit,
            thumb=self.row.instruction_set.entry_bit,
            stop=ctypes.cast(library.uc_emu_stop, ctypes.c_void_p),
            make=self.elf.symbols.get("cl_make", 0) & ~1,
            steps=self.elf.symbols.get("steps", 0),
            step_bytes=_STEP_BYTES,
            step_count=count,
            by_step=self.by_step.ctypes.data,
            step=count,
            second=self._register(self.row.instruction_set.second),
            read=ctypes.cast(library.uc_reg_read, ctypes.c_void_p),
        )
        hook = ctypes.cast(self.library.crosslayer_count_block, ctypes.c_void_p)
        handle = ctypes.c_size_t()
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)  # an empty range
        failed = library.uc_hook_add(
            self.engine._uch, ctypes.byref(handle), kind, hook, ctypes.byref(counter), *everywhere
        )
        if failed:
            raise ToolError(f"the emulator refuses the block counter (error {failed}): {INSTALL}")
        return counter


def _fault_hook(unicorn: Any, faults: list[str]) -> Callable[..., bool]:
    """Notes accesses to where there is no memory, or memory of another kind.

    Not a method: a board that its own engine refers to would keep a gigabyte of address space until collected.
    """
    verbs = {
        unicorn.UC_MEM_READ_UNMAPPED: "reads",
        unicorn.UC_MEM_WRITE_UNMAPPED: "writes",
        unicorn.UC_MEM_WRITE_PROT: "writes",
        unicorn.UC_MEM_FETCH_UNMAPPED: "jumps to",
        unicorn.UC_MEM_FETCH_PROT: "jumps to",
    }

    def note(_engine: Any, access: int, address: int, size: int, _value: int, _user: Any) -> bool:
        if 0 < _STACK_LOW - address <= _GAP:
            faults.append(f"needs more than {STACK_BYTES} bytes of stack (uses 0x{address:08x})")
        else:
            faults.append(f"{verbs.get(access, 'uses')} 0x{address:08x} ({size} bytes), where it may not")
        return False

    return note


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step

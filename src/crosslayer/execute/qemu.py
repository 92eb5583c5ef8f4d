"""The firmware on a core that only QEMU emulates: as a program of its own on one of QEMU's boards, counted by a plugin.

The counts are exact: the plugin sees each block of instructions that is entered, as the hook of `emulate` does.
"""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import ToolError
from crosslayer.core.target import Core
from crosslayer.execute.elf import Elf
from crosslayer.execute.native import Bytes
from crosslayer.execute.toolchain import build_qemu_counter, machine

_PROGRAM = "qemu-system-arm"

ABSENT = (
    f"only QEMU emulates it, and there is no {_PROGRAM}; install it "
    "(Debian and Ubuntu: apt-get install qemu-system-arm; macOS: brew install qemu)"
)
"""What to say of a core where QEMU is not installed."""

_START_LIMIT_S = 60.0
_SLOWEST_HZ = 2e7  # counted instructions per second on a computer that is much slower than today's
_SHOWN_LINES = 12

_ANSWER = np.dtype([("what", "<u4"), ("value", "<u4"), ("status", "<u4"), ("address", "<u4")])
_STACK_LOW, _STACK_BYTES = 0x7100_0000, 0x4000  # of harness/an547.c
_GAP = 0x10_0000  # addresses this far below the stack are taken for a stack that grew too deep

# Configurable Fault Status Register (Armv8-M manual): IACCVIOL; MMARVALID; MSTKERR or STKERR.
_JUMPED, _ADDRESS_KNOWN, _NO_ROOM_LEFT = 0x0001, 0x0080, 0x1010


class _Answer(IntEnum):
    """The first word of an answer of harness/an547.c."""

    DONE = 0
    RETURNED = 1
    WROTE_OUTSIDE = 2
    INPUT_OUTSIDE = 3
    OUTPUT_OUTSIDE = 4
    FAULTED = 5
    STACK_DEPTH = 6


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run in QEMU showed: the fields of `emulate.Emulation`."""

    outputs: Bytes
    instructions: npt.NDArray[np.int64]
    stack_bytes: int
    profile: Mapping[str, int]
    by_step: npt.NDArray[np.uint64]


def is_installed() -> bool:
    """Whether QEMU can be found."""
    return shutil.which(_PROGRAM) is not None


def run(image: Path, core: Core, inputs: Bytes, output_bytes: int, *, poison: int, limit: int, step_bytes: int) -> Ran:
    """Run samples (samples, bytes), one after the other, through an image that `build_core` made.

    A sample that executes `limit` instructions hangs. An entry of the model's table of steps has `step_bytes`.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise ToolError(f"{core.value}: {ABSENT}")
    elf = Elf.read(image)
    make = elf.symbols.get("cl_make", 0) & ~1
    counted = {
        "run": elf.symbols["model_run"] & ~1,
        "harness": elf.symbols["crosslayer_harness"],
        "end": elf.symbols["crosslayer_flash_end"],
        "limit": limit,
        "make": make,
        "make_end": make + elf.sizes.get("cl_make", 0),
        "steps": elf.symbols.get("steps", 0),
        "step_bytes": step_bytes,
        "step_count": elf.sizes.get("steps", 0) // step_bytes,
    }
    plugin = str(build_qemu_counter(_plugin_version(program)).path).replace(",", ",,")  # QEMU's way to quote a comma
    command = (
        *(program, "-machine", machine(core).emulator_model, "-kernel", str(image)),
        *("-plugin", ",".join((plugin, *(f"{name}={value}" for name, value in counted.items())))),
        *("-semihosting-config", "enable=on,target=native"),
        *("-no-user-config", "-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none"),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "samples").write_bytes(bytes([poison]) + inputs.tobytes())
        complaint = _call(command, folder, limit_s=_START_LIMIT_S + len(inputs) * limit / _SLOWEST_HZ)
        answers, counts = (_content(folder / file) for file in ("answers", "counts"))
    size = _ANSWER.itemsize + output_bytes
    done = len(answers) // size
    outputs = np.frombuffer(answers, np.uint8, done * size).reshape(done, size)[:, _ANSWER.itemsize :].copy()
    last = answers[done * size :]
    if len(last) != _ANSWER.itemsize or (answer := np.frombuffer(last, _ANSWER)[0])["what"] != _Answer.STACK_DEPTH:
        raise ToolError(f"{core.value}, sample {done}: {_failure(last, counts.decode(), elf, limit) or complaint}")
    lines = [line.split() for line in counts.decode().splitlines()]
    return Ran(
        outputs=outputs,
        instructions=np.array([int(line[1]) for line in lines if line[0] == "run"], np.int64),
        stack_bytes=int(answer["value"]),
        profile=_profile(elf, ((int(line[1]), int(line[2])) for line in lines if line[0] == "block")),
        by_step=np.array([int(line[1]) for line in lines if line[0] == "step"], np.uint64),
    )


def _call(command: tuple[str, ...], folder: Path, *, limit_s: float) -> str:
    """How QEMU ended."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{_PROGRAM} did not end within {limit_s:.0f} s; give fewer samples") from error
    except OSError as error:
        raise ToolError(f"{command[0]}: cannot be run ({error.strerror})") from error
    shown = "\n".join(done.stderr.decode(errors="replace").splitlines()[:_SHOWN_LINES])
    return f"{_PROGRAM} ended early, with status {done.returncode}:\n{shown}"


@cache
def _plugin_version(program: str) -> int:
    """A version of QEMU's plugin interface that this QEMU takes: from 9.0 on none below 2, before none above 1 or 0."""
    answer = subprocess.run((program, "--version"), capture_output=True, text=True, timeout=_START_LIMIT_S, check=False)
    found = re.search(r"version (\d+)\.", answer.stdout)
    if found is None:
        raise ToolError(f"{program} --version says nothing known: '{answer.stdout[:80]}'; install QEMU 7 or later")
    return 2 if int(found[1]) >= 9 else 0


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _profile(elf: Elf, blocks: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Instructions by function, the most expensive first."""
    total: dict[str, int] = {}
    for address, executed in blocks:
        name = elf.function_at(address)
        total[name] = total.get(name, 0) + executed
    return dict(sorted(total.items(), key=lambda entry: -entry[1]))


def _failure(last: bytes, counts: str, elf: Elf, limit: int) -> str | None:
    """What the firmware did wrong, if the board or the counter says so."""
    entered = re.search(r"^last (\d+)$", counts, re.MULTILINE)
    where = f"in {elf.function_at(int(entered[1]))}; the firmware is faulty" if entered else ""
    if re.search("^limit", counts, re.MULTILINE):
        return f"model_run does not end within {limit} instructions, {where}"
    if re.search("^stopped", counts, re.MULTILINE):
        return f"model_run stops the core, {where}"
    if len(last) != _ANSWER.itemsize:
        return None
    what, value, status, address = (int(word) for word in np.frombuffer(last, _ANSWER)[0])
    match what:
        case _Answer.RETURNED:
            return f"model_run returned {ctypes.c_int32(value).value}; the firmware is faulty"
        case _Answer.WROTE_OUTSIDE:
            return "model_run wrote outside its arena; the firmware is faulty"
        case _Answer.INPUT_OUTSIDE:
            return f"model_input gave 0x{value:08x}, which lies outside the arena"
        case _Answer.OUTPUT_OUTSIDE:
            return f"model_output gave 0x{value:08x}, which lies outside the arena"
        case _:
            return f"model_run {_fault(value, status, address)} {where}"


def _fault(program: int, status: int, address: int) -> str:
    """What the core's fault registers say."""
    known = status & _ADDRESS_KNOWN
    if status & _NO_ROOM_LEFT or (known and 0 < _STACK_LOW - address <= _GAP):
        return f"needs more than {_STACK_BYTES} bytes of stack,"
    if status & _JUMPED:
        return f"jumps to 0x{program:08x}, where it may not,"
    if known:
        return f"uses 0x{address:08x}, where it may not, at pc 0x{program:08x}"
    return f"fails: fault status 0x{status:08x}, at pc 0x{program:08x}"

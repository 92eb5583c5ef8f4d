"""How deep the stack of a linked image can get, from its machine code alone: no run can go deeper.

Every path through every function is followed. Instructions that move the stack pointer by a constant are understood,
as compilers and our assembler kernels use them; what moves it otherwise, recursion, and calls through pointers other
than those of the model's table of steps are refused. Instructions as in the Armv7-M and Armv8-M architecture reference
manuals (Arm DDI 0403 and DDI 0553) and in the RISC-V unprivileged specification.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from crosslayer.core.errors import ToolError
from crosslayer.core.target import Core
from crosslayer.execute.elf import Elf, load_package
from crosslayer.execute.toolchain import machine

_ENTRIES = ("model_input", "model_output", "model_run", "model_run_known", "model_begin", "model_push")
_ARM_ALWAYS = 15  # capstone's ARM_CC_AL
_WRITEBACK = re.compile(r"\[sp, #(-?\w+)\]!|\[sp\], #(-?\w+)")
_MOVES = re.compile(rf"^vpush|^vpop|\bsp!|{_WRITEBACK.pattern}")  # of some of these capstone does not say that they do
_DEEPEST = 1 << 20  # a loop that takes stack in every turn gets here


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StackBound:
    """The most bytes that a call of the firmware can take below its caller's stack pointer."""

    bytes: int
    path: tuple[tuple[str, int], ...]
    """The functions of the deepest chain of calls, and what each of them holds then; they add up to `bytes`."""


def stack_bound(image: Path, core: Core, *, step_bytes: int) -> StackBound:
    """The bound of an image that `build_core` made, over all functions of its interface.

    An entry of the model's table of steps has `step_bytes`; the kernel's address comes first. Raises `ToolError` for
    machine code that has no bound, or none that can be read off it.
    """
    elf = Elf.read(image)
    program = _Program(elf, core, _pointers(elf, step_bytes))
    return max(
        (program.bound(elf.symbols[n] & ~1) for n in _ENTRIES if n in elf.symbols), key=lambda found: found.bytes
    )


def _pointers(elf: Elf, step_bytes: int) -> dict[str, list[int]]:
    """What the functions of run.c that call through a pointer can call: `cl_make` a kernel of the table of steps,
    `cl_run` the function that the model names."""
    starts = {start for start, _ in elf.functions}

    def words(symbol: str) -> list[int]:
        size = elf.sizes.get(symbol, 0) // 4
        return [word & ~1 for word in (elf.words(symbol, size) if size else ())]

    kernels = words("steps")[:: step_bytes // 4]
    return {"cl_make": kernels, "cl_run": [word for word in words("model") if word in starts]}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """What an instruction does to the stack and to the order of instructions."""

    takes: int = 0
    """Bytes of stack; negative where it gives them back."""
    falls: bool = True
    """The next instruction may follow."""
    jump: int | None = None
    call: int | None = None
    jumps_by_register: bool = False
    calls_by_register: bool = False


_NEUTRAL = _Effect()
_END = _Effect(falls=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Instruction:
    """An instruction, or None for what the decoder does not know."""

    size: int
    decoded: Any  # capstone has no types


@final
@dataclass(slots=True)
class _Reached:
    """The instructions of a function that can run, each with the most stack that is held before it."""

    held: dict[int, int] = field(default_factory=dict[int, int])
    calls: dict[tuple[int, int], None] = field(default_factory=dict[tuple[int, int], None])
    """Stack held and address called, in order of appearance."""


@final
class _Program:
    """The functions of an image and their bounds."""

    def __init__(self, elf: Elf, core: Core, pointers: dict[str, list[int]]) -> None:
        capstone = load_package("capstone")
        self.elf, self.core, self.pointers = elf, core, pointers
        thumb = machine(core).instruction_set.entry_bit == 1
        modes = (
            (capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
            if thumb
            else (capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
        )
        self.decoder = capstone.Cs(*modes)
        self.decoder.detail = True
        self.base, self.code = elf.segments[0]
        self.effect: Callable[[int, _Instruction], _Effect] = self._thumb if thumb else self._riscv
        self.known: dict[int, StackBound] = {}
        self.active: list[int] = []

    def bound(self, start: int) -> StackBound:
        """The bound of the function at an address."""
        if start in self.known:
            return self.known[start]
        name = self.elf.function_at(start)
        if start in self.active:
            raise self._unbounded(start, "calls itself: recursion has no bound")
        self.active.append(start)
        reached = self._follow(start)
        best = StackBound(bytes=max(reached.held.values()), path=((name, max(reached.held.values())),))
        for held, target in reached.calls:
            deeper = self.bound(target)
            if held + deeper.bytes > best.bytes:
                best = StackBound(bytes=held + deeper.bytes, path=((name, held), *deeper.path))
        self.active.pop()
        self.known[start] = best
        return best

    def _follow(self, start: int) -> _Reached:
        """All paths through the function that holds `start`, from there on; what leaves it without return is a call."""
        code = self._instructions(start)
        reached = _Reached()
        computed: set[int] = set()  # stack held where a jump goes to an address in a register
        led = False
        waiting = [(start, 0)]
        while waiting:
            address, held = waiting.pop()
            if address not in code:
                reached.calls[held, address] = None
            elif held > reached.held.get(address, -1):
                reached.held[address] = held
                waiting += self._after(address, held, code[address], reached, computed)
            if not waiting and computed:
                # A computed jump stays in its function (a table of cases, or into an unrolled loop): what was not
                # reached otherwise is what it can reach.
                waiting = [(left, max(computed)) for left in code if left not in reached.held][:1]
                led = led or bool(waiting)
        if computed and not led:
            raise self._unbounded(start, "jumps to an address that it computes, and not within itself")
        return reached

    def _after(
        self, address: int, held: int, instruction: _Instruction, reached: _Reached, computed: set[int]
    ) -> Iterable[tuple[int, int]]:
        """The addresses that may follow, and the stack held there."""
        effect = self.effect(address, instruction)
        after = held + effect.takes
        if not 0 <= after < _DEEPEST:
            raise self._unbounded(address, "takes or gives back stack in a loop")
        if effect.call is not None:
            reached.calls[after, effect.call] = None
        if effect.calls_by_register:
            pointers = self.pointers.get(self.elf.function_at(address))
            if pointers is None:
                raise self._unbounded(address, "calls through a pointer")
            reached.calls.update(dict.fromkeys((after, pointer) for pointer in pointers))
        if effect.jumps_by_register:
            computed.add(after)
        if effect.jump is not None:
            yield effect.jump, after
        if effect.falls:
            yield address + instruction.size, after

    def _instructions(self, start: int) -> dict[int, _Instruction]:
        """The instructions of the function that holds an address, by address, in order. They are decoded in a row, for
        an `it` says what those after it mean."""
        index = bisect_right(self.elf.functions, start, key=lambda entry: entry[0]) - 1
        address = self.elf.functions[index][0]
        end = self.elf.ends[address]
        if not address <= start < end:
            raise self._unbounded(start, "jumps out of the program")
        found: dict[int, _Instruction] = {}
        while address < end:
            if self.elf.is_data(address):
                address += 2
                continue
            stop = min((mark for mark, _ in self.elf.marks if mark > address), default=end)
            raw = self.code[address - self.base : min(stop, end) - self.base]
            for one in self.decoder.disasm(raw, address):
                found[address] = _Instruction(size=int(one.size), decoded=one)
                address += one.size
            if address < min(stop, end):
                found[address] = _Instruction(size=4, decoded=None)
                address += 4
        return found

    def _unbounded(self, address: int, what: str) -> ToolError:
        return ToolError(
            f"{self.core.value}: the stack has no bound that its machine code shows: {self.elf.function_at(address)} "
            f"{what} (at 0x{address:08x})"
        )

    def _thumb(self, address: int, instruction: _Instruction) -> _Effect:
        one = instruction.decoded
        if one is None:
            return self._unknown_thumb(address)
        effect = self._thumb_effect(one)
        if one.cc in (0, _ARM_ALWAYS):
            return effect
        if not effect.falls:  # the function ends or jumps here, or goes on with the stack as it is
            return _Effect(jump=effect.jump, jumps_by_register=effect.jumps_by_register)
        return replace(effect, takes=max(effect.takes, 0))

    def _unknown_thumb(self, address: int) -> _Effect:
        """Armv8.1-M adds vector instructions and loops, in the coprocessors' space and at 0xF0. They leave the stack
        pointer alone, and a loop's end lies before its next instruction: what follows is the next one."""
        high = self.code[address - self.base + 1]
        if high & 0xEC == 0xEC or high == 0xF0:
            return _NEUTRAL
        raise self._unbounded(address, "has an instruction that the decoder does not know")

    def _thumb_effect(self, instruction: Any) -> _Effect:
        name, text = str(instruction.insn_name()), str(instruction.op_str)
        match name:
            case "b":
                return _Effect(jump=_last_number(text), falls=False)
            case "cbz" | "cbnz":
                return _Effect(jump=_last_number(text))
            case "bl":
                return _Effect(call=_last_number(text))
            case "blx":
                return _Effect(calls_by_register=True)
            case "bx":
                return _END if text == "lr" else _Effect(jumps_by_register=True, falls=False)
            case "tbb" | "tbh":
                return _Effect(jumps_by_register=True, falls=False)
            case "udf":
                return _END
            case _:
                written = {str(instruction.reg_name(register)) for register in instruction.regs_access()[1]}
                if "sp" in written or _MOVES.search(f"{name} {text}"):
                    return self._thumb_move(instruction, name, text)
                if "pc" in written:
                    return _END if text == "pc, lr" else _Effect(jumps_by_register=True, falls=False)
                return _NEUTRAL

    def _thumb_move(self, instruction: Any, name: str, text: str) -> _Effect:
        """The effect of an instruction that writes the stack pointer."""
        moved = _WRITEBACK.search(text)
        if name in ("push", "vpush", "pop", "vpop") or (name in ("stmdb", "ldm") and text.startswith("sp!")):
            listed = text[text.index("{") + 1 : text.index("}")].split(", ")
            size = sum(8 if register.startswith("d") else 4 for register in listed)
            takes = size if name in ("push", "vpush", "stmdb") else -size
            return _Effect(takes=takes, falls="pc" not in listed)
        if name in ("sub", "subw", "add", "addw") and re.fullmatch(r"sp, (sp, )?#\w+", text):
            return _Effect(takes=_last_number(text) * (1 if name.startswith("sub") else -1))
        if moved and name in ("str", "strd", "ldr", "ldrd"):
            return _Effect(takes=-int(moved[1] or moved[2], 0), falls=not text.startswith("pc,"))
        raise self._unbounded(int(instruction.address), f"moves the stack pointer by no constant ({name} {text})")

    def _riscv(self, address: int, instruction: _Instruction) -> _Effect:
        one = instruction.decoded
        if one is None:
            raise self._unbounded(address, "has an instruction that the decoder does not know")
        name, text = str(one.mnemonic).removeprefix("c."), str(one.op_str)
        match name:
            case "j":
                return _Effect(jump=address + _last_number(text), falls=False)
            case "jal" if "," not in text or text.startswith("ra,"):
                return _Effect(call=address + _last_number(text))
            case "ebreak" | "unimp":
                return _END
            case "ret" | "jr" | "jal" | "jalr":
                return self._riscv_register(address, name, text or "ra")
            case _ if name.startswith("b"):
                return _Effect(jump=address + _last_number(text))
            case "addi" | "addi16sp" if re.fullmatch(r"sp, (sp, )?-?\w+", text):
                return _Effect(takes=-_last_number(text))
            case _ if text.startswith("sp,") and name not in ("sw", "swsp"):
                raise self._unbounded(address, f"moves the stack pointer by no constant ({name} {text})")
            case _:
                return _NEUTRAL

    def _riscv_register(self, address: int, name: str, text: str) -> _Effect:
        """A jump by register; with the `auipc` before it, one to a known address (the pair `call` or `tail`)."""
        parts = text.split(", ")
        link, register = (parts[0], parts[1]) if len(parts) == 3 else ("ra" if name == "jalr" else "zero", parts[0])
        raw = self.code[address - 4 - self.base : address - self.base]
        before = next(self.decoder.disasm(raw, address - 4, count=1), None)
        if before is not None and before.mnemonic == "auipc" and before.op_str.startswith(f"{register},"):
            low = int(parts[2], 0) if len(parts) == 3 else 0
            far = (address - 4 + (_last_number(before.op_str) << 12) + low) & 0xFFFF_FFFF
            return _Effect(jump=far, falls=False) if link == "zero" else _Effect(call=far)
        if link == "ra":
            return _Effect(calls_by_register=True)
        if link == "zero":
            return _END if register == "ra" else _Effect(jumps_by_register=True, falls=False)
        raise self._unbounded(address, f"links by another register than ra ({name} {text})")


def _last_number(text: str) -> int:
    """The number that ends an instruction's operands.

    >>> _last_number("r3, #0x10")
    16
    """
    return int(re.split(r"[ #]", text)[-1], 0)

"""A device: what it can hold, what it runs, what it costs. One TOML file each, a source beside every figure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

from crosslayer.core.errors import InputError


class Core(StrEnum):
    """Instruction sets that firmware is built for and emulated on."""

    CORTEX_M0 = "cortex-m0"
    CORTEX_M4 = "cortex-m4"
    CORTEX_M7 = "cortex-m7"
    CORTEX_M33 = "cortex-m33"
    CORTEX_M55 = "cortex-m55"
    RV32 = "rv32"


class MemoryKind(StrEnum):
    """What a memory is for."""

    FLASH = "flash"
    RAM = "ram"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One memory of a device."""

    name: str
    kind: MemoryKind
    bytes: int
    source: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number with an interval and the document it was taken or derived from."""

    value: float
    low: float
    high: float
    source: str

    def __post_init__(self) -> None:
        if not (self.low <= self.value <= self.high):
            raise InputError(f"figure {self.value} lies outside its interval {self.low}…{self.high}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device in one configuration. `active_power` is in W/Hz: watts per hertz of core clock while computing."""

    name: str
    title: str
    core: Core
    clock_hz: int
    clock_source: str
    memories: tuple[Memory, ...]
    cycles_per_instruction: Figure
    active_power: Figure | None = None
    """None: no measurement is known; the energy is then reported as unknown, not guessed."""

    def capacity(self, kind: MemoryKind) -> int:
        """Bytes of all memories of a kind."""
        return sum(memory.bytes for memory in self.memories if memory.kind is kind)

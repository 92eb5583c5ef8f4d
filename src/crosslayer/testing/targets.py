"""What every target must state."""

import math

from crosslayer.core.codec import from_plain, to_plain
from crosslayer.core.target import MemoryKind, Target
from crosslayer.execute.toolchain import machine
from crosslayer.hardware.cycles import latency
from crosslayer.hardware.energy import energy

_INSTRUCTIONS = 1_000_000


def check_target(target: Target) -> None:
    """`target` keeps all promises of a device. Raises `AssertionError` that says which one it breaks."""
    name = target.name
    assert name == name.lower() and " " not in name, f"{name}: a name is one word in small letters"
    assert target.title, f"{name}: has no title"
    assert target.clock_hz > 0, f"{name}: has no clock"
    assert machine(target.core).core is target.core, f"{name}: firmware cannot be built for its core"
    for kind in MemoryKind:
        held = [memory for memory in target.memories if memory.kind is kind]
        assert target.capacity(kind) == sum(memory.bytes for memory in held) > 0, f"{name}: has no {kind.value}"
        assert all(memory.bytes > 0 for memory in held), f"{name}: has an empty memory"
    figures = [target.cycles_per_instruction, *([] if target.active_power is None else [target.active_power])]
    for figure in figures:
        assert 0 < figure.low <= figure.value <= figure.high < math.inf, f"{name}: {figure} has no sensible interval"
    for stated in (target, target.cycles_per_instruction):
        assert from_plain(type(stated), to_plain(stated), name) == stated, f"{name}: differs after a way through text"
    sources = [target.clock_source, *(item.source for item in (*target.memories, *figures))]
    assert all(len(source.strip()) > 10 for source in sources), f"{name}: a figure has no source"
    time = latency(_INSTRUCTIONS, target)
    assert 0 < time.low <= time.value <= time.high, f"{name}: a million instructions take {time.value} s"
    spent = energy(_INSTRUCTIONS, target)
    assert (spent is None) == (target.active_power is None), f"{name}: energy and power figure do not agree"
    assert spent is None or 0 < spent.low <= spent.value <= spent.high, f"{name}: a million instructions take {spent} J"

"""The memory map: which value lies where in the arena, and from which step to which."""

import math
from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Interval, Plan, intervals, whole_words
from crosslayer.core.score import Score
from crosslayer.core.sheet import Sheet
from crosslayer.core.target import MemoryKind
from crosslayer.report.figures import amount
from crosslayer.report.labels import LETTER, Label, Rectangle, place_labels

_HEIGHT, _TOP, _RIGHT, _LEFT = 320.0, 16.0, 112.0, 64.0
_SLOPE = math.radians(40)
_LONGEST = 24


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One value: a rectangle over the steps it lives and the bytes it holds. `number` is its row in the table."""

    number: int
    value: Interval
    offset: int
    place: Rectangle
    peak: bool
    label: Label | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A labelled place on an axis, or a labelled line across the map."""

    text: str
    at: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMap:
    """The drawing, in pixels. `peak_steps` are those at which the most bytes are alive."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    boxes: tuple[Box, ...]
    steps: tuple[Mark, ...]
    bytes: tuple[Mark, ...]
    arena: Mark
    bound: Mark
    peak_steps: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much of one kind of memory is taken."""

    kind: str
    used: Score
    capacity: int

    @property
    def share(self) -> float:
        """Used ÷ capacity; above 1 where it does not fit."""
        return self.used.value / self.capacity


def usages(sheet: Sheet) -> tuple[Usage, ...]:
    """Flash and RAM, as far as the sheet has their scores."""
    target = sheet.design.target
    return tuple(
        Usage(kind=kind.value, used=score, capacity=target.capacity(kind))
        for kind in MemoryKind
        for score in sheet.scores
        if score.name == kind.value and target.capacity(kind)
    )


def memory_map(graph: Graph, plan: Plan) -> MemoryMap:
    """The drawing of a plan: turns from left to right, byte offsets from the bottom up."""
    spans = intervals(graph, plan.turns, plan.rings, plan.scratch)
    names = ("input", *(turn[0] if len(turn) == 1 else f"{turn[0]}…{turn[-1]}" for turn in plan.turns))
    column = min(88.0, max(26.0, 760.0 / len(names)))
    reach = [len(_short(n)) * LETTER * math.cos(_SLOPE) - (i + 0.5) * column for i, n in enumerate(names)]
    left = max(_LEFT, *(r + 8 for r in reach))
    bottom = _TOP + _HEIGHT
    per_byte = _HEIGHT / max(1, plan.arena_bytes)

    alive = [sum(whole_words(s.bytes) for s in spans if s.born <= i <= s.dies) for i in range(len(names))]
    most = max(alive)
    busiest = [i for i, total in enumerate(alive) if total == most]
    places = [
        Rectangle(
            round(left + span.born * column + 1, 1),
            round(bottom - (plan.offsets[span.name] + span.bytes) * per_byte, 1),
            round((span.dies - span.born + 1) * column - 2, 1),
            round(max(1.5, span.bytes * per_byte), 1),
        )
        for span in spans
    ]
    labels = place_labels(places, [(span.name, str(number)) for number, span in enumerate(spans, 1)])
    boxes = tuple(
        Box(
            number=number,
            value=span,
            offset=plan.offsets[span.name],
            place=place,
            peak=any(span.born <= i <= span.dies for i in busiest),
            label=label,
        )
        for number, (span, place, label) in enumerate(zip(spans, places, labels, strict=True), 1)
    )
    right = left + len(names) * column
    return MemoryMap(
        width=round(right + _RIGHT, 1),
        height=round(bottom + 20 + max(len(_short(n)) for n in names) * LETTER * math.sin(_SLOPE), 1),
        left=round(left, 1),
        right=round(right, 1),
        top=_TOP,
        bottom=bottom,
        boxes=boxes,
        steps=tuple(Mark(text=_short(n), at=round(left + (i + 0.5) * column, 1)) for i, n in enumerate(names)),
        bytes=_ticks(plan.arena_bytes, bottom, per_byte),
        arena=Mark(text=amount(plan.arena_bytes, "B"), at=_TOP),
        bound=Mark(text=amount(plan.bound_bytes, "B"), at=round(bottom - plan.bound_bytes * per_byte, 1)),
        peak_steps=tuple(names[i] for i in busiest),
    )


def _ticks(arena_bytes: int, bottom: float, per_byte: float) -> tuple[Mark, ...]:
    """Marks at multiples of a power of two, so that they are round in bytes and KiB."""
    step = 2 ** max(2, math.ceil(math.log2(max(1, arena_bytes) / 6)))
    return tuple(
        Mark(text=amount(offset, "B"), at=round(bottom - offset * per_byte, 1))
        for offset in range(0, arena_bytes + 1, step)
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"

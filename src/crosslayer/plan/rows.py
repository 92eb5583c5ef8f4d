"""Running layers together row by row, each value keeping only the rows that are still needed.

Nothing is computed twice: rows wait in rings until their last reader has seen them. This is what line buffers do in
hardware; patches (Lin et al., "MCUNetV2", NeurIPS 2021) would compute the margins of their pieces again.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Interval, intervals, peak_of, reciprocal, storage, stored_bytes
from crosslayer.kernels.call import Call, Rows
from crosslayer.kernels.choose import call

_MOST_TOGETHER = 10  # layers in a group: rings add up, so that longer ones have not paid in any network tried


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What runs together, what it keeps, and what it needs."""

    rings: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows kept of the values inside."""
    scratch: int = 0
    leads: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, dict[str, int]])
    need: int = 0
    """Bytes alive meanwhile, if no result lies over an input."""
    shared: int = 0
    """The same, if each lies over its inputs as far as it can."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All turns."""

    turns: tuple[tuple[str, ...], ...]
    rings: Mapping[str, int]
    scratch: Mapping[str, int]
    leads: Mapping[str, Mapping[str, int]]

    def spans(self, graph: Graph) -> tuple[Interval, ...]:
        """The lifetimes of all that lies in the arena."""
        return intervals(graph, self.turns, self.rings, self.scratch)


def schedules(graph: Graph, order: Sequence[str], budget: int, *, streamed: bool = False) -> tuple[Schedule, Schedule]:
    """The fewest nodes in groups for which no turn needs more than `budget` bytes; of the least need, if none fits.

    Over all ways to cut `order` into turns: what a turn needs depends on nothing but where it begins and ends. The
    first schedule counts on results lying over their inputs, which offsets may not achieve everywhere at once; the
    second does not. With `streamed` the input arrives row by row; raises `GraphError` if its readers cannot take it so.
    """
    turns = _Turns(graph, tuple(order), streamed=streamed)
    return _fewest(turns, budget, shared=True), _fewest(turns, budget, shared=False)


def _fewest(turns: "_Turns", budget: int, *, shared: bool) -> Schedule:
    """The schedule with the fewest nodes in groups."""

    def need(turn: Turn) -> int:
        return turn.shared if shared else turn.need

    count = len(turns.order)
    least: list[float] = [0] * (count + 1)
    for end in range(1, count + 1):
        least[end] = min((max(least[start], need(turn)) for start, turn in turns.ending(end)), default=math.inf)
    if least[count] == math.inf:
        raise GraphError("its input cannot be streamed: a layer that reads it does not run row by row")
    limit = max(budget, least[count])
    cost: list[tuple[int, int]] = [(0, 0)]  # nodes in groups up to here, and where the last turn begins
    for end in range(1, count + 1):
        fitting = [
            (cost[start][0] + (end - start if end - start > 1 else 0), start)
            for start, turn in turns.ending(end)
            if need(turn) <= limit
        ]
        cost.append(min(fitting, default=(count + 1, end - 1)))
    cuts = [count]
    while cuts[-1] > 0:
        cuts.append(cost[cuts[-1]][1])
    return turns.schedule(cuts[::-1])


class _Turns:
    """What each turn order[start:end] would need; None for one that cannot be."""

    def __init__(self, graph: Graph, order: tuple[str, ...], *, streamed: bool) -> None:
        self.graph, self.order, self.streamed = graph, order, streamed
        nodes = [graph.producers[name] for name in order]
        self.alone = [call(graph, node, by_rows=False) if graph.is_integer else None for node in nodes]
        self.together = [call(graph, node, by_rows=True) if graph.is_integer else None for node in nodes]
        self.whole = {s.name: s for s in intervals(graph, tuple((name,) for name in order))}
        self.known: dict[tuple[int, int], Turn | None] = {}

    def ending(self, end: int) -> list[tuple[int, Turn]]:
        """Where a turn that ends there may begin, and the turn."""
        first, lowest = end - 1, max(0, end - _MOST_TOGETHER)
        while first > lowest and self.together[end - 1] is not None and self.together[first - 1] is not None:
            first -= 1
        found = [(start, self._turn(start, end)) for start in range(first, end)]
        return [(start, turn) for start, turn in found if turn is not None]

    def schedule(self, cuts: Sequence[int]) -> Schedule:
        """The turns between neighbouring cuts."""
        rings: dict[str, int] = {}
        scratch: dict[str, int] = {}
        leads: dict[str, Mapping[str, int]] = {}
        bounds = list(itertools.pairwise(cuts))
        for start, end in bounds:
            turn = self._turn(start, end)
            assert turn is not None
            rings |= turn.rings
            leads |= turn.leads
            if turn.scratch:
                scratch[self.order[start]] = turn.scratch
        names = tuple(self.order[start:end] for start, end in bounds)
        return Schedule(turns=names, rings=rings, scratch=scratch, leads=leads)

    def _turn(self, start: int, end: int) -> Turn | None:
        if (start, end) not in self.known:
            self.known[start, end] = self._made(start, end)
        return self.known[start, end]

    def _made(self, start: int, end: int) -> Turn | None:
        names = self.order[start:end]
        first = self.streamed and start == 0
        by_rows = first or end - start > 1
        calls = dict(zip(names, (self.together if by_rows else self.alone)[start:end], strict=True))
        known = {name: found for name, found in calls.items() if found is not None}
        if by_rows and len(known) < len(calls):
            return None
        source = self.graph.inputs[0] if first else ""
        if any(reader.name not in names for reader in (self.graph.users[source] if first else ())):
            return None
        run = run_rows(self.graph, {name: found.rows for name, found in known.items()}, source)
        if run is None:
            return None
        rings, first_rows = run
        kept = {storage(self.graph, name) for name in self.graph.outputs}
        dying = {s.name for s in self.whole.values() if start < s.dies <= end} - kept
        turn = Turn(
            rings=rings if by_rows else {},
            scratch=max((found.scratch for found in known.values()), default=0),
            leads=_leads(self.graph, known, first_rows, dying, set(rings)),
        )
        alive = self._alive(start, end, turn)
        return replace(turn, need=peak_of(alive), shared=peak_of(alive, turn.leads))

    def _alive(self, start: int, end: int, turn: Turn) -> list[Interval]:
        """What lies in the arena during a turn."""
        alive = [
            Interval(name=s.name, bytes=stored_bytes(self.graph, s.name, turn.rings), born=int(s.born > start), dies=1)
            for s in self.whole.values()
            if s.born <= end and s.dies > start  # order[i] is step i + 1
        ]
        made = 2 * (len(self.order) + len(self.graph.inputs)) if end - start > 1 else 0
        working = [Interval(name=f":{size}", bytes=size, born=1, dies=1) for size in (turn.scratch, made)]
        return [*alive, *working]


FirstRows = Mapping[str, Mapping[str, Sequence[int]]]
"""For each node and each input of its turn: the first row of the input that is still needed, row by row of the node."""


def run_rows(graph: Graph, group: Mapping[str, Rows], pushed: str = "") -> tuple[dict[str, int], FirstRows] | None:
    """Nodes run together as `run.c` does: rows kept of each value that none outside reads, and rows still needed.

    A row of the input `pushed` comes when nothing else can be made. None if they would stop short.
    """
    if pushed:
        group = {pushed: Rows(count=graph.types[pushed].shape[0]), **group}
    names = list(group)
    made = dict.fromkeys(names, 0)
    kept = dict.fromkeys(names, 0)
    inputs = {name: () if name == pushed else graph.activations(graph.producers[name]) for name in names}
    readers = {n: [r for r in names if n in inputs[r]] for n in {*names, *(n for name in names for n in inputs[name])}}
    outer = [n for n in readers if n not in group]
    needed: dict[str, dict[str, list[int]]] = {name: {n: [] for n in outer} for name in names}

    def ready(name: str) -> bool:
        done, rows = made[name], group[name]
        if done == rows.count:
            return False
        return all(rows.last(done, group[n].count) < made[n] for n in inputs[name] if n in group)

    def first_needed(value: str, otherwise: int) -> int:
        waiting = [group[r].first(made[r]) for r in readers[value] if made[r] < group[r].count]
        return min(waiting, default=otherwise)

    def make(name: str) -> None:
        for value in outer:
            needed[name][value].append(first_needed(value, graph.types[value].shape[0]))
        kept[name] = max(kept[name], made[name] + 1 - min(first_needed(name, made[name]), made[name]))
        made[name] += 1

    def advance(steps: Sequence[str]) -> None:
        at = 0 if steps else -1
        while at >= 0:
            if ready(steps[at]):
                make(steps[at])
                at = min(at + 1, len(steps) - 1)
            else:
                at -= 1

    for _ in range(group[pushed].count if pushed else 1):
        if pushed:
            make(pushed)
        advance(names[1:] if pushed else names)
    if any(made[name] < rows.count for name, rows in group.items()):
        return None
    rings: dict[str, int] = {}
    for name in names:
        outside = name in graph.outputs or any(reader.name not in group for reader in graph.users[name])
        if not outside:
            rings[name] = kept[name] if _divides(kept[name], group[name].count) else group[name].count
    return rings, needed


def _leads(
    graph: Graph, calls: Mapping[str, Call], first_rows: FirstRows, dying: set[str], inside: set[str]
) -> dict[str, dict[str, int]]:
    """By how many bytes each result must begin before each input that dies in its turn, to lie over it."""
    leads: dict[str, dict[str, int]] = {}
    for name, found in calls.items():
        if name in inside:
            continue
        made = graph.types[name]
        for source, needed in first_rows[name].items():
            kind = graph.types[source]
            if storage(graph, source) not in dying:
                continue
            if len(calls) == 1 and found.forward:
                lead = max(0, made.bytes - kind.bytes)
            elif found.rows.count == made.shape[0] and len(made.shape) == len(kind.shape) == 3:
                row, other = made.bytes // made.shape[0], kind.bytes // kind.shape[0]
                lead = max((r + 1) * row - first * other for r, first in enumerate(needed))
            else:
                continue
            known = leads.setdefault(name, {})
            known[storage(graph, source)] = max(lead, known.get(storage(graph, source), lead))  # views share bytes
    return leads


def _divides(ring: int, rows: int) -> bool:
    """Whether `run.c` finds the place of each row in a ring."""
    return all(row * reciprocal(ring) >> 16 == row // ring for row in range(rows))

"""Node order and offsets of one arena."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import NO_LEADS, Interval, Leads, Plan, extent, peak_bytes, peak_of, storage, whole_words
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.plan.rows import Schedule, schedules
from crosslayer.plan.weights import placed_bytes, split_weights

_NEAR = 1.005  # of the bound: what could still be gained is not worth the time
_EXHAUSTED = 8  # values all of whose orders are tried


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanArena(Stage):
    """Orders the nodes and places all values in one arena.

    Exact for small graphs: at most `order_states` sets of finished nodes are compared for the order, at most
    `offset_steps` placements tried for the offsets; beyond, the order stays and the offsets come from the best greedy
    packing. Layers are run together row by row, each keeping only the rows that the next ones still need, where the
    arena would not fit into `budget` bytes otherwise; 0 asks for the smallest arena. With `streamed` the input arrives
    row by row, as from a camera, and is never whole in memory. The plan reports its lower bound and whether it is known
    to be the least.
    """

    order_states: int = 20_000
    offset_steps: int = 8_000
    budget: int = 0
    streamed: bool = False

    def __post_init__(self) -> None:
        check_parameters(
            (self.order_states >= 0, "order_states must be at least 0"),
            (self.offset_steps >= 0, "offset_steps must be at least 0"),
            (self.budget >= 0, "budget must be at least 0"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The planned design; notes: arena and bound in bytes, and the layers run row by row."""
        plan = plan_arena(
            design.graph,
            order_states=self.order_states,
            offset_steps=self.offset_steps,
            budget=self.budget,
            streamed=self.streamed,
        )
        plan = replace(
            plan, weights=split_weights(design.graph, plan, design.target) if design.graph.is_integer else {}
        )
        notes = {
            "arena_bytes": plan.arena_bytes,
            "bound_bytes": plan.bound_bytes,
            "exact": plan.exact,
            "by_rows": [list(group) for group in plan.groups],
            "weights": dict(placed_bytes(design.graph, plan)),
        }
        return replace(design, plan=plan), notes


def plan_arena(
    graph: Graph, *, order_states: int = 20_000, offset_steps: int = 8_000, budget: int = 0, streamed: bool = False
) -> Plan:
    """The plan that `PlanArena` finds. Raises `GraphError` if the input is to be streamed and cannot be."""
    given = tuple(node.name for node in graph.nodes)
    best = best_order(graph, order_states)
    order = given if best is None or peak_bytes(graph, best) >= peak_bytes(graph, given) else best
    hopeful, careful = schedules(graph, order, budget, streamed=streamed)
    plan = _placed(graph, order, hopeful, offset_steps)
    if peak_of(careful.spans(graph), careful.leads) < plan.arena_bytes > budget:
        other = _placed(graph, order, careful, offset_steps)
        plan = min(plan, other, key=lambda p: (max(p.arena_bytes, budget), sum(map(len, p.groups))))
    return plan


def _placed(graph: Graph, order: tuple[str, ...], found: Schedule, steps: int) -> Plan:
    """The plan of a schedule."""
    spans = found.spans(graph)
    bound = peak_of(spans, found.leads)
    offsets, arena = place(spans, bound, steps, found.leads)
    bound = max(bound, min(arena, least_chain(spans, found.leads, arena)))
    return Plan(
        order=order,
        offsets=offsets,
        arena_bytes=arena,
        bound_bytes=bound,
        exact=arena == bound,
        groups=tuple(turn for turn in found.turns if len(turn) > 1),
        rings=found.rings,
        scratch=found.scratch,
        leads=found.leads,
        streamed=any(name in found.rings for name in graph.inputs),
    )


def best_order(graph: Graph, states: int) -> tuple[str, ...] | None:
    """An order of least peak memory, by dynamic programming over sets of finished nodes; None if there are too many.

    What is alive depends only on which nodes are done, so the least peak over all ways to reach a set is enough.
    """
    index = {node.name: i for i, node in enumerate(graph.nodes)}
    needs = [sum(1 << index[n] for n in set(node.inputs) if n in index) for node in graph.nodes]
    size = {name: whole_words(kind.bytes) for name, kind in graph.types.items()}
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for name in graph.activations(node):
            readers[storage(graph, name)] = readers.get(storage(graph, name), 0) | 1 << index[node.name]
    kept = {storage(graph, name) for name in graph.outputs}
    made = {storage(graph, n): 0 for n in graph.inputs}
    made |= {n.name: 1 << index[n.name] for n in graph.nodes if not n.op.is_view}
    everything = (1 << len(graph.nodes)) - 1

    def alive(done: int) -> int:
        return sum(size[v] for v, by in made.items() if done & by == by and (v in kept or readers.get(v, 0) & ~done))

    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (alive(0), ())}
    seen = 1
    for _ in graph.nodes:
        following: dict[int, tuple[int, tuple[int, ...]]] = {}
        for done, (peak, path) in best.items():
            held = alive(done)
            for i, node in enumerate(graph.nodes):
                if done >> i & 1 or needs[i] & ~done:
                    continue
                during = held + (0 if node.op.is_view else size[node.name])
                now, reached = max(peak, during), done | 1 << i
                if reached not in following or now < following[reached][0]:
                    following[reached] = (now, (*path, i))
        best = following
        seen += len(best)
        if seen > states:
            return None
    return tuple(graph.nodes[i].name for i in best[everything][1])


def least_chain(spans: tuple[Interval, ...], leads: Leads, arena: int) -> int:
    """What an arena smaller than `arena` would need at least, because results would have to lie over their inputs.

    Where a result and its input do not fit beside each other, it must begin before it by its lead; such leads add up
    along a chain of layers.
    """
    by_name = {span.name: span for span in spans}
    lowest: dict[str, int] = {}
    for span in sorted(spans, key=lambda s: -s.born):  # results before their inputs
        forced = [
            lowest[result] + extent(by_name[result], span, leads)
            for result, inputs in leads.items()
            if span.name in inputs
            and result in lowest
            and whole_words(by_name[result].bytes) + whole_words(span.bytes) >= arena
        ]
        lowest[span.name] = max(forced, default=0)
    return max((lowest[s.name] + whole_words(s.bytes) for s in spans), default=0)


def place(spans: tuple[Interval, ...], bound: int, steps: int, leads: Leads = NO_LEADS) -> tuple[dict[str, int], int]:
    """Offsets without overlap in time and space, but for what `leads` allows, and the arena they need.

    Values are placed one after the other where they make the arena least larger. The best of some orders; if that
    misses the bound, all orders of few values, or changes to the best order of many, until half a percent above the
    bound or `steps` placements.
    """
    if not spans:
        return {}, 0
    packing = _Packing(spans, leads)
    positions = range(len(spans))
    orders = [
        sorted(positions, key=lambda i: (-spans[i].bytes, spans[i].born)),
        sorted(positions, key=lambda i: (spans[i].born, -spans[i].bytes)),
        sorted(positions, key=lambda i: (-(spans[i].dies - spans[i].born), -spans[i].bytes)),
        sorted(positions, key=lambda i: (-spans[i].bytes * (spans[i].dies - spans[i].born + 1), spans[i].born)),
        sorted(positions, key=lambda i: (-spans[i].born, -spans[i].bytes)),  # results before what they may lie over
    ]
    for order in orders:
        packing.try_order(order, [1] * len(spans))
    if len(spans) <= _EXHAUSTED:
        packing.exhaust(orders[0], bound, steps)
    else:
        packing.improve(bound, steps)
    lowest = min(packing.best)
    return {span.name: offset - lowest for span, offset in zip(spans, packing.best, strict=True)}, packing.height


class _Packing:
    """Orders of placement tried so far, and the best."""

    def __init__(self, spans: tuple[Interval, ...], leads: Leads) -> None:
        self.sizes = [whole_words(s.bytes) for s in spans]
        self.beside = [
            [
                (j, extent(other, span, leads), extent(span, other, leads))
                for j, other in enumerate(spans)
                if i != j and span.born <= other.dies and other.born <= span.dies
            ]
            for i, span in enumerate(spans)
        ]
        self.best: list[int] = []
        self.height = sum(self.sizes) + 1
        self.order: list[int] = []
        self.sides: list[int] = []

    def try_order(self, order: list[int], sides: list[int]) -> bool:
        """Place in that order, ties to the low side (1) or the high one (−1) of each; keep what is not worse."""
        offsets: dict[int, int] = {}
        low, high = 0, 0
        for i in order:
            offsets[i], low, high = self._place(i, offsets, low, high, sides[i])
            if high - low > self.height:
                return False
        self.height, self.order, self.sides = high - low, order, sides
        self.best = [offsets[i] for i in range(len(order))]
        return True

    def exhaust(self, order: list[int], bound: int, steps: int) -> None:
        """All orders, those first that resemble `order`."""
        left = steps

        def descend(offsets: dict[int, int], rest: list[int], low: int, high: int) -> None:
            nonlocal left
            if high - low >= self.height or self.height <= bound or left <= 0:
                return
            left -= 1
            if not rest:
                self.height, self.best = high - low, [offsets[i] for i in range(len(order))]
                return
            for position, i in enumerate(rest):
                offset, lowest, highest = self._place(i, offsets, low, high, 1)
                descend({**offsets, i: offset}, rest[:position] + rest[position + 1 :], lowest, highest)

        descend({}, order, 0, 0)

    def improve(self, bound: int, steps: int) -> None:
        """Moves single values in the order, or to the other side; seeded: the same values get the same places."""
        random = np.random.default_rng(0)
        count = len(self.sizes)
        for _ in range(steps // count):
            if self.height <= bound * _NEAR:
                return
            order, sides = list(self.order), list(self.sides)
            for _ in range(int(random.integers(1, 4))):
                i = order.pop(int(random.integers(count)))
                order.insert(int(random.integers(count)), i)
                sides[int(random.integers(count))] *= -1
            self.try_order(order, sides)

    def _place(self, i: int, offsets: Mapping[int, int], low: int, high: int, side: int) -> tuple[int, int, int]:
        """The offset next to a value alive at the same time, or at the lower end, that makes the whole least higher;
        and the ends of the whole then."""
        size = self.sizes[i]
        forbidden = [(offsets[j] - own, offsets[j] + other) for j, other, own in self.beside[i] if j in offsets]
        ends = (low, high - size, *(end for pair in forbidden for end in pair))
        free = [o for o in ends if not any(before < o < after for before, after in forbidden)]
        offset = min(free, key=lambda o: (max(high, o + size) - min(low, o), side * o))
        return offset, min(low, offset), max(high, offset + size)

"""Node order and offsets of one arena."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Interval, Plan, intervals, peak_bytes, storage, whole_words
from crosslayer.core.stage import Stage, check_parameters

_SEARCHED = 200  # values; the search is as deep as there are values


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanArena(Stage):
    """Orders the nodes and places all values in one arena, as small as can be found.

    Exact for small graphs: at most `order_states` sets of finished nodes are compared for the order, at most
    `offset_steps` placements tried for the offsets; beyond, the order stays and the offsets come from the best greedy
    packing. The plan reports its lower bound and whether it is known to be the least.
    """

    order_states: int = 20_000
    offset_steps: int = 200_000

    def __post_init__(self) -> None:
        check_parameters(
            (self.order_states >= 0, "order_states must be at least 0"),
            (self.offset_steps >= 0, "offset_steps must be at least 0"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The planned design; notes: arena and bound in bytes."""
        plan = plan_arena(design.graph, order_states=self.order_states, offset_steps=self.offset_steps)
        notes = {"arena_bytes": plan.arena_bytes, "bound_bytes": plan.bound_bytes, "exact": plan.exact}
        return replace(design, plan=plan), notes


def plan_arena(graph: Graph, *, order_states: int = 20_000, offset_steps: int = 200_000) -> Plan:
    """The plan that `PlanArena` finds."""
    given = tuple(node.name for node in graph.nodes)
    best = best_order(graph, order_states)
    order = given if best is None or peak_bytes(graph, best) >= peak_bytes(graph, given) else best
    bound = peak_bytes(graph, order)
    offsets, arena = place(intervals(graph, order), bound, offset_steps)
    return Plan(
        order=order,
        offsets=offsets,
        arena_bytes=arena,
        bound_bytes=bound,
        exact=best is not None and arena == bound,
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


def place(spans: tuple[Interval, ...], bound: int, steps: int) -> tuple[dict[str, int], int]:
    """Offsets without overlap in time and space, and the arena they need.

    The best of four greedy packings; if that misses the bound, a depth-first search over placements, with at most
    `steps` steps.
    """
    orders = (
        sorted(spans, key=lambda s: (-s.bytes, s.born)),
        sorted(spans, key=lambda s: (s.born, -s.bytes)),
        sorted(spans, key=lambda s: (-(s.dies - s.born), -s.bytes)),
        sorted(spans, key=lambda s: (-s.bytes * (s.dies - s.born + 1), s.born)),
    )
    packings = [_greedy(order) for order in orders]
    best = min(packings, key=_extent(spans))
    if _extent(spans)(best) > bound and len(spans) <= _SEARCHED:
        best = _search(orders[0], bound, best, steps)
    return best, _extent(spans)(best)


def _extent(spans: tuple[Interval, ...]) -> Any:
    def extent(offsets: dict[str, int]) -> int:
        return max((offsets[s.name] + whole_words(s.bytes) for s in spans), default=0)

    return extent


def _greedy(order: list[Interval]) -> dict[str, int]:
    """Each value at the lowest place that is free during its life."""
    placed: list[tuple[Interval, int]] = []
    for span in order:
        placed.append((span, _lowest(span, placed)))
    return {span.name: offset for span, offset in placed}


def _lowest(span: Interval, placed: list[tuple[Interval, int]]) -> int:
    offset = 0
    for start, end in sorted((o, o + whole_words(s.bytes)) for s, o in placed if _meet(s, span)):
        if offset + whole_words(span.bytes) <= start:
            break
        offset = max(offset, end)
    return offset


def _meet(a: Interval, b: Interval) -> bool:
    return a.born <= b.dies and b.born <= a.dies


def _search(spans: list[Interval], bound: int, best: dict[str, int], steps: int) -> dict[str, int]:
    """Depth-first over which value to place next at its lowest place; stops at the bound or after `steps`."""
    limit = max(best[s.name] + whole_words(s.bytes) for s in spans)
    left = steps

    def descend(placed: list[tuple[Interval, int]], rest: list[Interval], top: int) -> None:
        nonlocal best, limit, left
        if top >= limit or limit == bound or left <= 0:
            return
        left -= 1
        if not rest:
            best, limit = {s.name: o for s, o in placed}, top
            return
        for i, span in enumerate(rest):
            offset = _lowest(span, placed)
            end = max(top, offset + whole_words(span.bytes))
            if end < limit:
                descend([*placed, (span, offset)], rest[:i] + rest[i + 1 :], end)

    descend([], spans, 0)
    return best

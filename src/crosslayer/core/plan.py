"""Where and when: the order of nodes and the place of each value in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph

WORD = 4
"""Every value starts at a multiple of this many bytes, so that kernels may load four codes at once."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value occupies [offset, offset + bytes) of the arena from step `born` to step `dies`, both included."""

    name: str
    bytes: int
    born: int
    dies: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Node order, byte offsets in one arena, and how good they are.

    `bound_bytes` is the least that any offsets could need in this order: the largest sum of values alive at one step.
    `exact` says that no order and no offsets need less than `arena_bytes`.
    """

    order: tuple[str, ...]
    offsets: Mapping[str, int]
    arena_bytes: int
    bound_bytes: int
    exact: bool


def storage(graph: Graph, name: str) -> str:
    """The value whose bytes `name` occupies: itself, or for a view the value it renames."""
    node = graph.producers.get(name)
    while node is not None and node.op.is_view:
        name = node.inputs[0]
        node = graph.producers.get(name)
    return name


def intervals(graph: Graph, order: tuple[str, ...]) -> tuple[Interval, ...]:
    """Lifetimes of all stored values when nodes run in `order` (step 0 is before the first node).

    Inputs are born at step 0, outputs die after the last step; views share the bytes of what they rename.
    """
    step = {name: i + 1 for i, name in enumerate(order)}
    spans: dict[str, list[int]] = {storage(graph, n): [0, 0] for n in graph.inputs}
    for name in order:
        node = graph.producers[name]
        if not node.op.is_view:
            spans[name] = [step[name], step[name]]
        for source in graph.activations(node):
            span = spans[storage(graph, source)]
            span[1] = max(span[1], step[name])
    for name in graph.outputs:
        spans[storage(graph, name)][1] = len(order)
    return tuple(
        Interval(name=name, bytes=graph.types[name].bytes, born=born, dies=dies) for name, (born, dies) in spans.items()
    )


def check_plan(graph: Graph, plan: Plan) -> Plan:
    """`plan`, known to be legal for `graph`: an executable order, and no two living values share a byte."""
    if sorted(plan.order) != sorted(graph.producers):
        raise GraphError("the plan does not order exactly the graph's nodes; run PlanArena again")
    done = set(graph.inputs) | set(graph.constants)
    for name in plan.order:
        late = [n for n in graph.producers[name].inputs if n not in done]
        if late:
            raise GraphError(f"the plan runs {name} before {late[0]}; run PlanArena again")
        done.add(name)
    spans = intervals(graph, plan.order)
    for i, a in enumerate(spans):
        start = plan.offsets.get(a.name, -1)
        if start < 0 or start % WORD or start + a.bytes > plan.arena_bytes:
            raise GraphError(f"the plan places {a.name} outside the arena or unaligned; run PlanArena again")
        for b in spans[:i]:
            other = plan.offsets[b.name]
            if a.born <= b.dies and b.born <= a.dies and start < other + b.bytes and other < start + a.bytes:
                raise GraphError(f"the plan places {a.name} and {b.name} on the same bytes; run PlanArena again")
    return plan


def whole_words(size: int) -> int:
    """`size` rounded up to whole words.

    >>> whole_words(5)
    8
    """
    return -(-size // WORD) * WORD


def peak_bytes(graph: Graph, order: tuple[str, ...]) -> int:
    """The largest sum of bytes (rounded up to words) of values alive at one step: what any offsets need at least."""
    alive = [0] * (len(order) + 1)
    for span in intervals(graph, order):
        for step in range(span.born, span.dies + 1):
            alive[step] += whole_words(span.bytes)
    return max(alive)

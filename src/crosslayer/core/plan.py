"""Where and when: the order of nodes and the place of each value in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.rejection import Rejection

_NONE: Mapping[str, int] = MappingProxyType({})
NO_LEADS: Mapping[str, Mapping[str, int]] = MappingProxyType({})

Leads = Mapping[str, Mapping[str, int]]
"""By result and input: a result may lie over an input if it begins at least that many bytes before it."""

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
class WeightCheck:
    """The firmware compares the constants of its layers with signatures while it runs.

    Each inference looks at a slice of them before it begins, so that `inferences` in a row see all; where that is more
    than one, a word of the arena keeps the place. `parity` is how many groups of constants that went bad at once can be
    restored at best: each costs a group's bytes.
    """

    inferences: int = 1
    parity: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Node order, byte offsets in one arena, and how good they are.

    `bound_bytes` is the least that any offsets could need in this order: the largest sum of values alive at one step.
    `exact` says that no offsets need less than `arena_bytes`, order and groups as they are.
    """

    order: tuple[str, ...]
    offsets: Mapping[str, int]
    arena_bytes: int
    bound_bytes: int
    exact: bool
    groups: tuple[tuple[str, ...], ...] = ()
    """Neighbours in the order that are run together row by row; all other nodes are run one after the other."""
    rings: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many rows are kept of a value inside a group; of all others, all are."""
    scratch: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes that a node's kernel needs while it runs; for a group those of its first node serve all."""
    streamed: bool = False
    """The input arrives row by row: the first turn, a group even if it is one node, makes what each row allows."""
    leads: Leads = field(default_factory=dict[str, dict[str, int]])
    """Which results may lie over an input that dies as they are made, and how many bytes before it they must begin."""

    weights: Mapping[str, str] = field(default_factory=dict[str, str])
    """Nodes whose weights lie in another flash memory of the target than the first, and its name."""
    check: WeightCheck | None = None
    """How the constants in flash are checked; None if they are not."""
    fetched: int = 0
    """Bytes in which the constants of a turn lie once they are fetched; 0 if they are read where they lie."""
    rejection: Rejection | None = None
    """When the firmware says that it does not know an input; None if it never does."""

    def by_rows(self, turn: tuple[str, ...]) -> bool:
        """Whether a turn makes single rows as it can, rather than each value at once."""
        return len(turn) > 1 or (self.streamed and turn == self.turns[0])

    @property
    def turns(self) -> tuple[tuple[str, ...], ...]:
        """The order, what runs together in one turn."""
        inside = {name: group for group in self.groups for name in group}
        return tuple(inside.get(name, (name,)) for name in self.order if inside.get(name, (name,))[0] == name)


def feature_maps(graph: Graph, plan: Plan) -> tuple[str, ...]:
    """The results that are whole in memory when their turn has ended, by their nodes."""
    return tuple(turn[-1] for turn in plan.turns if not graph.producers[turn[-1]].op.is_view)


def storage(graph: Graph, name: str) -> str:
    """The value whose bytes `name` occupies: itself, or for a view the value it renames."""
    node = graph.producers.get(name)
    while node is not None and node.op.is_view:
        name = node.inputs[0]
        node = graph.producers.get(name)
    return name


SCRATCH, MADE, CHECKED, FETCHED = ":scratch", ":made", ":checked", ":fetched"
"""What an offset's name ends with that is no value: working memory of a turn, rows made of each value, where the next
check of the constants begins, and fetched constants."""


def intervals(
    graph: Graph,
    turns: Sequence[Sequence[str]],
    rings: Mapping[str, int] = _NONE,
    scratch: Mapping[str, int] = _NONE,
) -> tuple[Interval, ...]:
    """Lifetimes of all stored values when nodes run in `turns` (step 0 is before the first turn).

    Inputs are born at step 0, outputs die after the last step; views share the bytes of what they rename.
    """
    step = {name: i + 1 for i, turn in enumerate(turns) for name in turn}
    spans: dict[str, list[int]] = {storage(graph, n): [0, 0] for n in graph.inputs}
    for name in step:
        node = graph.producers[name]
        if not node.op.is_view:
            spans[name] = [step[name], step[name]]
        for source in graph.activations(node):
            span = spans[storage(graph, source)]
            span[1] = max(span[1], step[name])
    for name in graph.outputs:
        spans[storage(graph, name)][1] = len(turns)
    values = [
        Interval(name=name, bytes=stored_bytes(graph, name, rings), born=born, dies=dies)
        for name, (born, dies) in spans.items()
    ]
    working = [
        Interval(name=f"{name}{SCRATCH}", bytes=size, born=step[name], dies=step[name])
        for name, size in scratch.items()
    ]
    if any(len(turn) > 1 for turn in turns) or any(name in rings for name in graph.inputs):
        size = 2 * (len(graph.inputs) + len(step))
        working.append(Interval(name=MADE, bytes=size, born=0, dies=len(turns)))
    return (*values, *working)


def stored_bytes(graph: Graph, name: str, rings: Mapping[str, int]) -> int:
    """Bytes of the rows that are kept of a value."""
    kind = graph.types[name]
    return kind.bytes // kind.shape[0] * rings[name] if name in rings else kind.bytes


def check_plan(graph: Graph, plan: Plan) -> Plan:
    """`plan`, known to be legal for `graph`: an executable order, and no two living values share a byte."""
    if sorted(plan.order) != sorted(graph.producers):
        raise GraphError("the plan does not order exactly the graph's nodes; run PlanArena again")
    if [name for turn in plan.turns for name in turn] != list(plan.order):
        raise GraphError("the plan's groups are not neighbours in its order; run PlanArena again")
    done = set(graph.inputs) | set(graph.constants)
    for name in plan.order:
        late = [n for n in graph.producers[name].inputs if n not in done]
        if late:
            raise GraphError(f"the plan runs {name} before {late[0]}; run PlanArena again")
        done.add(name)
    features = None if plan.rejection is None else plan.rejection.features
    if features is not None and features.after not in feature_maps(graph, plan):
        raise GraphError(f"the plan rejects by {features.after}, which is never whole; run PlanArena again")
    if features is not None and graph.types[features.after].shape[-1] != len(features.weights):
        raise GraphError(f"the plan rejects by other channels than {features.after} has; run RejectUnknown again")
    spans = intervals(graph, plan.turns, plan.rings, plan.scratch)
    if plan.check is not None and plan.check.inferences > 1:
        spans = (*spans, Interval(name=CHECKED, bytes=WORD, born=0, dies=len(plan.turns)))
    if plan.fetched:
        spans = (*spans, Interval(name=FETCHED, bytes=plan.fetched, born=0, dies=len(plan.turns)))
    for i, a in enumerate(spans):
        start = plan.offsets.get(a.name, -1)
        if start < 0 or start % WORD or start + a.bytes > plan.arena_bytes:
            raise GraphError(f"the plan places {a.name} outside the arena or unaligned; run PlanArena again")
        for b in spans[:i]:
            other = plan.offsets[b.name]
            apart = other + extent(b, a, plan.leads) <= start or start + extent(a, b, plan.leads) <= other
            if a.born <= b.dies and b.born <= a.dies and not apart:
                raise GraphError(f"the plan places {a.name} and {b.name} on the same bytes; run PlanArena again")
    return plan


def extent(span: Interval, beside: Interval, leads: Leads) -> int:
    """How many bytes from the start of `span` on must lie before `beside`, if it starts before it; whole words."""
    lead = leads.get(span.name, {}).get(beside.name)
    return whole_words(span.bytes if lead is None else min(lead, span.bytes))


def whole_words(size: int) -> int:
    """`size` rounded up to whole words.

    >>> whole_words(5)
    8
    """
    return -(-size // WORD) * WORD


def peak_of(spans: Sequence[Interval], leads: Leads = NO_LEADS) -> int:
    """The largest sum of bytes (rounded up to words) of values alive at one step, less what a result and one input can
    share: what any offsets need at least."""
    alive = [0] * (max((span.dies for span in spans), default=0) + 1)
    shared = [0] * len(alive)
    sources = [set[str]() for _ in alive]
    by_name = {span.name: span for span in spans}
    for span in spans:
        for step in range(span.born, span.dies + 1):
            alive[step] += whole_words(span.bytes)
        inputs = leads.get(span.name, {})
        shared[span.born] += max((shared_bytes(span, by_name[n], leads) for n in inputs), default=0)
        sources[span.born].update(inputs)
    most = [sum(whole_words(by_name[n].bytes) for n in names) for names in sources]  # each byte is shared once
    return max(total - min(some, limit) for total, some, limit in zip(alive, shared, most, strict=True))


def shared_bytes(result: Interval, source: Interval, leads: Leads) -> int:
    """How many bytes a result and an input can have in common."""
    lead, size, other = extent(result, source, leads), whole_words(result.bytes), whole_words(source.bytes)
    return size + other - max(max(lead, 0) + other, size)


def peak_bytes(graph: Graph, order: Sequence[str]) -> int:
    """The peak of whole values, the nodes run one after the other in `order`."""
    return peak_of(intervals(graph, one_by_one(order)))


def one_by_one(order: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Turns without groups."""
    return tuple((name,) for name in order)


def reciprocal(ring: int) -> int:
    """What `run.c` multiplies a row with to divide it by the size of a ring."""
    return -(-(1 << 16) // ring)

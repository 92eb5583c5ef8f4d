"""The memory plan: legal, tight, and honest about how good it is."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import (
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    MaxPool,
    Relu,
    Requantize,
    Reshape,
    Transpose,
    Windows,
)
from crosslayer.core.plan import (
    MADE,
    NO_LEADS,
    SCRATCH,
    WORD,
    Interval,
    Leads,
    Plan,
    check_plan,
    extent,
    intervals,
    one_by_one,
    peak_bytes,
    peak_of,
    storage,
    whole_words,
)
from crosslayer.core.quant import Quant
from crosslayer.emit.firmware import emit
from crosslayer.execute import reference
from crosslayer.execute.native import Native
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.call import Call
from crosslayer.kernels.choose import call
from crosslayer.networks.zoo import NETWORKS, network
from crosslayer.plan.arena import PlanArena, place, plan_arena
from crosslayer.plan.rows import run_rows
from crosslayer.quantize.affine import quantize
from crosslayer.read.tflite import read_tflite
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.integers import simplify_integers
from crosslayer.simplify.norms import fold_norms
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import random_inputs
from crosslayer.testing.graphs import float_graph, integer_graph
from crosslayer.testing.stages import small_bench

CODE = Quant(bits=8, scale=(0.1,))
FOLDER = Path(os.environ["CROSSLAYER_DATA"]) / "mlperf_tiny"
LARGE = 1 << 30
"""A budget for which nothing needs to run by rows."""


def branchy(chance: Chance, *, nodes: int) -> Graph:
    """Copies, views, joins and values nobody reads, of random sizes; only sizes and readers matter here."""
    b = Builder()
    values = [b.input("x", (chance.integer(1, 24),), CODE)]
    for _ in range(chance.integer(1, nodes)):
        x, y = (chance.one_of(values[-3:]) for _ in range(2))
        kind = chance.integer(0, 3)
        if kind == 0:
            values.append(b.add(Requantize(), x, quant=CODE))
        elif kind == 1:
            values.append(b.add(Reshape(shape=(1, b.shape(x)[-1])), x))
        elif len(b.shape(x)) == len(b.shape(y)):
            same = b.shape(x) == b.shape(y) and kind == 2
            values.append(b.add(Add() if same else Concat(), x, y, quant=CODE))
    outputs = {values[-1]: None, chance.one_of(values): None}
    return b.graph(*outputs)


def orders(graph: Graph) -> Iterator[tuple[str, ...]]:
    """All orders in which the nodes can run."""
    for permutation in itertools.permutations(graph.nodes):
        done = set(graph.inputs)
        for node in permutation:
            if not done.issuperset(graph.activations(node)):
                break
            done.add(node.name)
        else:
            yield tuple(node.name for node in permutation)


def meet(a: Interval, b: Interval) -> bool:
    return a.born <= b.dies and b.born <= a.dies


def least_arena(spans: tuple[Interval, ...], leads: Leads = NO_LEADS) -> int:
    """The least arena for these lifetimes, over all placements.

    Of two values alive at once one lies before the other, or begins before it by its lead. Each choice for all pairs
    asks for offsets that are longest paths; the arena is the longest of all, the least over all choices.
    """
    pairs = [(i, j) for i, a in enumerate(spans) for j, b in enumerate(spans[:i]) if meet(a, b)]
    best = sum(whole_words(span.bytes) for span in spans)

    def descend(known: list[tuple[int, int, int]], at: int) -> None:
        nonlocal best
        offsets = [0] * len(spans)
        for _ in range(len(spans) + 1):
            for before, after, apart in known:
                offsets[after] = max(offsets[after], offsets[before] + apart)
        if any(offsets[after] < offsets[before] + apart for before, after, apart in known):
            return  # a circle: no offsets do this
        height = max((o + whole_words(s.bytes) for o, s in zip(offsets, spans, strict=True)), default=0)
        if height >= best:
            return
        if at == len(pairs):
            best = height
            return
        for i, j in (pairs[at], pairs[at][::-1]):
            descend([*known, (i, j, extent(spans[i], spans[j], leads))], at + 1)

    best += 1
    descend([], 0)
    return best


def parts(graph: Graph, plan: Plan) -> tuple[Interval, ...]:
    """Lifetimes of all that a plan places."""
    return intervals(graph, plan.turns, plan.rings, plan.scratch)


@settings(max_examples=150, deadline=None)
@given(grown(partial(branchy, nodes=12)))
def test_a_plan_is_legal_and_no_smaller_than_its_bound(graph: Graph) -> None:
    plan = check_plan(graph, plan_arena(graph))
    assert peak_of(parts(graph, plan), plan.leads) <= plan.bound_bytes <= plan.arena_bytes
    assert plan.arena_bytes <= sum(whole_words(span.bytes) for span in parts(graph, plan))
    assert plan.arena_bytes % WORD == 0
    assert plan.exact == (plan.arena_bytes == plan.bound_bytes)
    assert plan_arena(graph) == plan


@settings(max_examples=60, deadline=None)
@given(grown(partial(branchy, nodes=5)))
def test_the_order_has_the_least_peak_of_all(graph: Graph) -> None:
    plan = plan_arena(graph)
    assert peak_bytes(graph, plan.order) == min(peak_bytes(graph, order) for order in orders(graph))


@settings(max_examples=60, deadline=None)
@given(grown(partial(branchy, nodes=4)))
def test_an_exact_plan_is_the_least_of_its_order_and_groups(graph: Graph) -> None:
    plan = plan_arena(graph)
    least = least_arena(parts(graph, plan), plan.leads)
    assert plan.bound_bytes <= least <= plan.arena_bytes
    assert not plan.exact or plan.arena_bytes == least


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=6))
def test_offsets_are_the_least_for_few_values(rows: list[tuple[int, int, int]]) -> None:
    spans = tuple(Interval(name=f"v{i}", bytes=4 * b, born=t, dies=t + d) for i, (b, t, d) in enumerate(rows))
    bound = max(sum(s.bytes for s in spans if s.born <= t <= s.dies) for t in range(10))
    offsets, arena = place(spans, bound, 100_000)
    assert arena == least_arena(spans) >= bound
    assert arena == max(offsets[s.name] + s.bytes for s in spans)


def test_a_packing_that_no_greedy_order_finds_is_searched() -> None:
    rows = [(2, 4, 5), (4, 3, 3), (3, 2, 3), (3, 3, 4), (5, 2, 2), (4, 4, 5)]
    spans = tuple(Interval(name=f"v{i}", bytes=4 * b, born=t, dies=d) for i, (b, t, d) in enumerate(rows))
    assert place(spans, 40, 1000)[1] == least_arena(spans) == 40


@settings(max_examples=60, deadline=None)
@given(grown(lambda chance: integer_graph(chance, Rounding.DOUBLE)))
def test_random_networks_are_planned(graph: Graph) -> None:
    check_plan(graph, plan_arena(graph))


def integers(name: str) -> Graph:
    """A network of the zoo, quantized."""
    slim = fuse_activations(fold_norms(network(name, (16, 16, 1), 4, 0)))
    samples = [np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype(np.float32)]
    return quantize(slim, reference.calibrate(slim, samples, reference.evaluate), Rounding.DOUBLE)


def near(graph: Graph) -> None:
    """The plan of a graph is legal and within 2 % of what it needs at least, with and without groups."""
    for budget in (0, LARGE):
        plan = check_plan(graph, plan_arena(graph, budget=budget))
        assert plan.bound_bytes <= plan.arena_bytes <= 1.02 * plan.bound_bytes
        assert not budget or not plan.groups


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_of_the_zoo_is_planned_near_its_bound(name: str) -> None:
    near(integers(name))
    assert plan_arena(network(name, (16, 16, 1), 4, 0)).exact


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the data set mlperf_tiny is absent")
@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.tflite")), ids=lambda path: path.stem)
def test_every_integer_model_of_mlperf_tiny_is_planned_near_its_bound(path: Path) -> None:
    graph = read_tflite(path)
    if graph.is_integer:
        near(simplify_integers(graph))
        whole, rows = plan_arena(graph, budget=LARGE), plan_arena(graph)
        assert rows.arena_bytes <= whole.arena_bytes <= peak_bytes(graph, whole.order)


def test_random_networks_of_many_nodes_are_planned_near_their_bound() -> None:
    graphs = [integer_graph(Seeded(seed, 7), Rounding.DOUBLE) for seed in range(80)]
    large = [graph for graph in graphs if len(graph.nodes) >= 6]
    assert len(large) > 40
    for graph in large:
        near(graph)


def pixels(chance: Chance, *, nodes: int = 7) -> Graph:
    """Layers that can run row by row, and some that cannot, of random geometry; weights never matter for the plan."""
    rng, b = chance.rng(), Builder(chance.one_of(tuple(Rounding)))
    shape = chance.integer(1, 12), chance.integer(1, 7), chance.integer(1, 8)
    values = [b.input("x", shape, CODE)]
    taps, sums = Quant(bits=8, scale=(0.02,)), Quant(bits=32, scale=(0.002,))
    for i in range(chance.integer(1, nodes)):
        x = chance.one_of(values[:-4:-1])
        high, wide, channels = b.shape(x)
        windows = sides(chance, high, wide)
        kind = chance.one_of((0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9))
        out = channels if kind > 4 else chance.integer(2, 9)
        c = b.constant(f"b{i}", rng.integers(-500, 500, out), sums)
        if kind <= 4:
            size = (1, 1) if chance.rarely(3) else windows.kernel
            w = b.constant(f"w{i}", rng.integers(-127, 128, (out, *size, channels)), taps)
            windows = windows if size == windows.kernel else Windows(stride=windows.stride, kernel=size)
            values.append(b.add(Conv2d(windows=windows), x, w, c, quant=CODE))
        elif kind <= 6:
            w = b.constant(f"w{i}", rng.integers(-127, 128, (*windows.kernel, channels)), taps)
            values.append(b.add(DepthwiseConv2d(windows=windows), x, w, c, quant=CODE))
        elif kind == 7:
            size = min(windows.kernel[0], high), min(windows.kernel[1], wide)
            pool = chance.one_of((MaxPool, AveragePool))
            values.append(b.add(pool(windows=Windows(kernel=size, stride=windows.stride)), x, quant=CODE))
        elif kind == 8:
            twin = chance.one_of([v for v in values if b.shape(v) == b.shape(x)])
            values.append(b.add(Add(), x, twin, quant=CODE))
        else:
            values.append(b.add(chance.one_of((Relu(), Transpose(permutation=(1, 0, 2)))), x, quant=CODE))
    y = values[-1]
    if chance.rarely(4):
        flat = b.add(Reshape(shape=(int(np.prod(b.shape(y))),)), y)
        w = b.constant("w", rng.integers(-127, 128, (3, *b.shape(flat))), taps)
        y = b.add(Dense(), flat, w, b.constant("b", rng.integers(-500, 500, 3), sums), quant=CODE)
    return b.graph(y)


def sides(chance: Chance, high: int, wide: int) -> Windows:
    """Windows with at least one place."""
    kernel, stride, dilation, before, after = ([0, 0] for _ in range(5))
    for i, size in enumerate((high, wide)):
        kernel[i], dilation[i] = chance.one_of((1, 3, 2, 3, 4)), chance.one_of((1, 1, 1, 2))
        stride[i] = chance.one_of((1, 1, 1, 2, 3))
        reach = (kernel[i] - 1) * dilation[i] + 1
        before[i], after[i] = chance.integer(0, 2), chance.integer(0, 2)
        after[i] = max(after[i], reach - size - before[i])
    return Windows(
        kernel=(kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        padding=(before[0], after[0], before[1], after[1]),
    )


class Memory:
    """An arena that holds, instead of codes, which byte of which value was written last to each place."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self.bytes = np.full(plan.arena_bytes, -1, np.int64)
        self.number = {name: i for i, name in enumerate(graph.types)}

    def row(self, name: str, row: int) -> tuple[slice, np.ndarray]:
        """Where a row of a value lies, and what must be there once it is made."""
        kind, owner = self.graph.types[name], storage(self.graph, name)
        width = kind.bytes // kind.shape[0]
        start = self.plan.offsets[owner] + row % self.plan.rings.get(name, kind.shape[0]) * width
        return slice(start, start + width), (self.number[owner] << 32) + row * width + np.arange(width)

    def write(self, name: str, rows: Sequence[int]) -> None:
        for row in rows:
            where, what = self.row(name, row)
            self.bytes[where] = what

    def check(self, name: str, rows: Sequence[int]) -> None:
        for row in rows:
            where, what = self.row(name, row)
            assert (self.bytes[where] == what).all(), f"row {row} of {name} was written over"

    def spoil(self, name: str, size: int) -> None:
        start = self.plan.offsets.get(name, 0)
        self.bytes[start : start + size] = -1

    def elementwise(self, name: str, inputs: Sequence[str], count: int) -> None:
        """A call that reads place after place, and writes the result of each before it reads the next."""
        for at in range(count):
            for value in (*inputs, name):
                kind, owner = self.graph.types[value], storage(self.graph, value)
                width = kind.bytes // count
                assert width * count == kind.bytes
                start = self.plan.offsets[owner] + at * width
                what = (self.number[owner] << 32) + at * width + np.arange(width)
                if value == name:
                    self.bytes[start : start + width] = what
                assert (self.bytes[start : start + width] == what).all(), f"place {at} of {value} was written over"


def replay(graph: Graph, plan: Plan) -> None:
    """What firmware does with its arena under a plan, byte by byte: nothing is written over that is still to be read.

    The order of calls is that of `run.c`, `group.c` and `stream.c`, told once more.
    """
    memory = Memory(graph, plan)
    height = {name: kind.shape[0] for name, kind in graph.types.items()}
    source = graph.inputs[0]
    if not plan.streamed:
        memory.write(source, range(height[source]))
    for turn in plan.turns:
        by_rows = len(turn) > 1 or (plan.streamed and turn == plan.turns[0])
        calls = {name: call(graph, graph.producers[name], by_rows=by_rows) for name in turn}
        if not by_rows:
            (name,) = turn
            if calls[name] is not None:
                alone(memory, name, calls[name])
            continue
        made = {name: 0 if name in turn else rows for name, rows in height.items()}
        pushed = plan.streamed and turn == plan.turns[0]
        for row in range(height[source] if pushed else 1):
            if pushed:
                memory.write(source, [row])
                made[source] = row + 1
            advance(memory, turn, calls, made)
        assert all(made[name] == height[name] for name in turn), "the group stops short"
    for name in graph.outputs:
        memory.check(name, range(height[name]))


def alone(memory: Memory, name: str, found: Call) -> None:
    """All calls of a step that is no part of a group."""
    graph, plan = memory.graph, memory.plan
    inputs = graph.activations(graph.producers[name])
    memory.spoil(f"{name}{SCRATCH}", plan.scratch.get(name, 0))
    height = graph.types[name].shape[0]
    if found.forward:
        sizes = [graph.types[n].bytes for n in (name, *inputs)]
        memory.elementwise(name, inputs, int(np.gcd.reduce(sizes)) if len(set(sizes)) == 1 else places(found))
        return
    for row in range(found.rows.count):
        whole = found.rows.count == 1
        memory.write(name, range(height) if whole else [row])
        for value in inputs:
            rows = range(graph.types[value].shape[0])
            memory.check(value, rows if whole else window(found, row, len(rows)))


def places(found: Call) -> int:
    """Places of a 1×1 convolution that runs as one row."""
    width = found.fields["out_w"]
    assert isinstance(width, int)
    return width


def advance(memory: Memory, turn: tuple[str, ...], calls: dict[str, Call | None], made: dict[str, int]) -> None:
    """Makes the rows of a group that can be made."""
    graph, plan = memory.graph, memory.plan
    at = 0
    while at >= 0:
        name, found = turn[at], calls[turn[at]]
        assert found is not None
        row, inputs = made[name], graph.activations(graph.producers[name])
        reads = {n: window(found, row, graph.types[n].shape[0]) for n in inputs}
        last = row * found.rows.stride - found.rows.pad + (found.rows.taps - 1) * found.rows.dilation
        ready = all(made[n] > min(last, graph.types[n].shape[0] - 1) for n in inputs)
        if row == found.rows.count or not ready:
            at -= 1
            continue
        memory.spoil(MADE, 2 * len(graph.inputs + plan.order))
        memory.spoil(f"{turn[0]}{SCRATCH}", plan.scratch.get(turn[0], 0))
        memory.write(name, [row])
        for value in inputs:
            memory.check(value, reads[value])
        made[name] += 1
        at = min(at + 1, len(turn) - 1)


def window(found: Call, row: int, height: int) -> list[int]:
    """The rows of an input of that height that a call reads."""
    rows = found.rows
    taken = (row * rows.stride - rows.pad + tap * rows.dilation for tap in range(rows.taps))
    return [r for r in taken if 0 <= r < height]


def forced(graph: Graph) -> Plan:
    """A plan with groups as long as they can be, whether they save memory or not."""
    turns: list[tuple[str, ...]] = []
    for node in graph.nodes:
        together = (*(turns[-1] if turns else ()), node.name)
        calls = [call(graph, graph.producers[name], by_rows=True) for name in together]
        rows = {name: found.rows for name, found in zip(together, calls, strict=True) if found is not None}
        if len(rows) == len(together) > 1 and run_rows(graph, rows) is not None:
            turns[-1] = together
        else:
            turns.append((node.name,))
    rings: dict[str, int] = {}
    scratch: dict[str, int] = {}
    for turn in turns:
        calls = [call(graph, graph.producers[name], by_rows=len(turn) > 1) for name in turn]
        needs = [found.scratch for found in calls if found is not None]
        scratch |= {turn[0]: max(needs)} if any(needs) else {}
        if len(turn) > 1:
            found = run_rows(graph, {name: c.rows for name, c in zip(turn, calls, strict=True) if c is not None})
            assert found is not None
            rings |= found[0]
    spans = intervals(graph, turns, rings, scratch)
    bound = peak_of(spans)
    offsets, arena = place(spans, bound, 1000)
    return Plan(
        order=tuple(node.name for node in graph.nodes),
        offsets=offsets,
        arena_bytes=arena,
        bound_bytes=bound,
        exact=arena == bound,
        groups=tuple(turn for turn in turns if len(turn) > 1),
        rings=rings,
        scratch=scratch,
    )


def streamed(graph: Graph) -> Plan | None:
    """A plan for an input that arrives row by row; None if it cannot."""
    try:
        return plan_arena(graph, streamed=True)
    except GraphError:
        return None


def plans(graph: Graph) -> list[Plan]:
    """As small as can be, without groups, and with all the groups there can be."""
    return [plan_arena(graph), plan_arena(graph, budget=LARGE), forced(graph)]


@settings(max_examples=150, deadline=None)
@given(grown(pixels))
def test_nothing_is_written_over_that_is_still_to_be_read(graph: Graph) -> None:
    found = streamed(graph)
    for plan in (*plans(graph), *(() if found is None else (found,))):
        replay(graph, check_plan(graph, plan))


@settings(max_examples=60, deadline=None)
@given(grown(lambda chance: integer_graph(chance, Rounding.DOUBLE)))
def test_nothing_is_written_over_in_random_networks(graph: Graph) -> None:
    if all(graph.integral(node) for node in graph.nodes):
        replay(graph, plan_arena(graph))


def test_random_pixels_hold_groups_rings_leads_and_streams() -> None:
    """Otherwise the properties above say less than they seem to."""
    graphs = [pixels(Seeded(seed)) for seed in range(100)]
    small = [plan_arena(graph) for graph in graphs]
    assert sum(bool(plan.groups) for plan in small) > 10
    assert sum(any(lead > 0 for leads in plan.leads.values() for lead in leads.values()) for plan in small) > 20
    assert sum(any(lead == 0 for leads in plan.leads.values() for lead in leads.values()) for plan in small) > 20
    everything = [forced(graph) for graph in graphs]
    assert sum(ring > 1 for plan in everything for ring in plan.rings.values()) > 30
    assert sum(streamed(graph) is not None for graph in graphs) > 40


def shrinkable(graph: Graph, plan: Plan) -> Iterator[str]:
    """Values of which several rows are kept, each for a window that reads every row it spans."""
    for name, ring in plan.rings.items():
        readers = [call(graph, reader, by_rows=True) for reader in graph.users[name]]
        if ring > 1 and all(found is not None and found.rows.dilation == 1 for found in readers):
            yield name


def test_a_ring_one_row_smaller_loses_a_row() -> None:
    tried = 0
    for seed in range(100):
        graph = pixels(Seeded(seed))
        plan = forced(graph)
        for name in shrinkable(graph, plan):
            tried += 1
            with pytest.raises(AssertionError, match=f"of {name} was written over"):
                replay(graph, replace(plan, rings={**plan.rings, name: plan.rings[name] - 1}))
    assert tried > 20


def test_a_result_one_word_nearer_to_its_input_destroys_it() -> None:
    """Leads of what is made row by row are no larger than they must be, where every window reads its first row."""
    tried = 0
    for seed in range(300):
        graph = pixels(Seeded(seed, 2), nodes=1)
        plan = plan_arena(graph)
        (node,) = graph.nodes[:1]
        lead = plan.leads.get(node.name, {}).get("x", 0)
        found = call(graph, node, by_rows=False)
        assert found is not None
        apart = plan.offsets["x"] - plan.offsets[node.name]
        height = graph.types["x"].shape[0]
        full = all(found.rows.first(row) in window(found, row, height) for row in range(found.rows.count))
        if len(graph.nodes) == 1 and found.rows.count > 1 and full and lead == apart >= WORD:
            near = {name: max(0, offset - WORD) if name == "x" else offset for name, offset in plan.offsets.items()}
            tried += 1
            with pytest.raises(AssertionError, match="was written over"):
                replay(graph, replace(plan, offsets=near))
    assert tried > 5


@pytest.mark.parametrize("seed", range(6))
def test_firmware_gives_the_same_bytes_by_rows_and_at_once_whatever_its_arena_holds(seed: int, tmp_path: Path) -> None:
    graph = pixels(Seeded(seed, 3))
    x = random_inputs(graph, Seeded(seed), 40)
    truth = reference.run(graph, x).reshape(len(x), -1).view(np.uint8)
    for i, plan in enumerate(plans(graph)):
        design = Design(graph=graph, target=load_target("stm32f769"), plan=plan)
        emit(design, tmp_path / str(i), x[:1])
        native = Native.build(tmp_path / str(i))
        for poison in (0, 0x7F, 0xA5, 0xFF):
            assert np.array_equal(native.run(x, poison=poison), truth)


def chain() -> Graph:
    """x (6) → a (6) → view (2, 3) → b (2, 3)."""
    b = Builder()
    x = b.input("x", (6,), CODE)
    y = b.add(Relu(), x, name="a", quant=CODE)
    return b.graph(b.add(Relu(), b.add(Reshape(shape=(2, 3)), y, name="view"), name="b", quant=CODE))


def test_a_view_has_the_bytes_of_what_it_renames() -> None:
    graph = chain()
    assert [storage(graph, n) for n in ("x", "a", "view", "b")] == ["x", "a", "a", "b"]
    spans = {s.name: (s.bytes, s.born, s.dies) for s in intervals(graph, one_by_one(("a", "view", "b")))}
    assert spans == {"x": (6, 0, 1), "a": (6, 1, 3), "b": (6, 3, 3)}
    plan = plan_arena(graph)
    assert set(plan.offsets) == {"x", "a", "b"}
    assert plan.leads == {"a": {"x": 0}, "b": {"a": 0}}
    assert plan.arena_bytes == plan.bound_bytes == 8


def test_inputs_and_outputs_live_as_long_as_they_must() -> None:
    graph = replace(chain(), outputs=("view", "b", "x"))
    spans = {s.name: (s.born, s.dies) for s in intervals(graph, one_by_one(("a", "view", "b")))}
    assert spans == {"x": (0, 3), "a": (1, 3), "b": (3, 3)}


def test_an_output_under_another_name_is_kept() -> None:
    graph = replace(chain(), outputs=("view", "b"))
    plan = plan_arena(graph)
    assert "b" not in plan.leads
    replay(graph, check_plan(graph, plan))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"order": ("a", "view")}, "does not order exactly the graph's nodes"),
        ({"order": ("a", "view", "b", "b")}, "does not order exactly the graph's nodes"),
        ({"order": ("view", "a", "b")}, "runs view before a"),
        ({"offsets": {"x": 0, "a": 8}}, "places b outside the arena or unaligned"),
        ({"offsets": {"x": 0, "a": 8, "b": 2}}, "places b outside the arena or unaligned"),
        ({"offsets": {"x": 0, "a": 8, "b": -4}}, "places b outside the arena or unaligned"),
        ({"offsets": {"x": 0, "a": 12, "b": 0}}, "places a outside the arena or unaligned"),
        ({"offsets": {"x": 0, "a": 4, "b": 12}, "arena_bytes": 40}, "places a and x on the same bytes"),
        ({"offsets": {"x": 0, "a": 8, "b": 8}}, "places b and a on the same bytes"),
    ],
)
def test_an_illegal_plan_is_refused(changes: dict[str, object], complaint: str) -> None:
    graph = chain()
    good = Plan(order=("a", "view", "b"), offsets={"x": 0, "a": 8, "b": 0}, arena_bytes=16, bound_bytes=16, exact=True)
    assert check_plan(graph, good) is good
    with pytest.raises(GraphError, match=f"{complaint}; run PlanArena again|{complaint}.*run PlanArena again"):
        check_plan(graph, replace(good, **changes))


def test_a_search_without_budget_still_gives_a_legal_plan() -> None:
    for seed in range(30):
        graph = branchy(Seeded(seed), nodes=12)
        plan = check_plan(graph, plan_arena(graph, order_states=1, offset_steps=0))
        assert plan.order == tuple(node.name for node in graph.nodes)
        assert plan.exact == (plan.arena_bytes == plan.bound_bytes)


def test_the_stage_plans_and_reports() -> None:
    graph = integer_graph(Seeded(0), Rounding.DOUBLE)
    planned = PlanArena()(Design(graph=graph, target=load_target("stm32f769")), small_bench())
    plan = plan_arena(graph)
    assert planned.plan == plan
    assert planned.trail[-1].notes == {
        "arena_bytes": plan.arena_bytes,
        "bound_bytes": plan.bound_bytes,
        "exact": plan.exact,
        "by_rows": [],
        "weights": {},
    }


@settings(max_examples=30, deadline=None)
@given(grown(float_graph))
def test_float_networks_can_be_planned_too(graph: Graph) -> None:
    check_plan(graph, plan_arena(graph))

"""The memory plan: legal, tight, and honest about how good it is."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Add, Concat, Relu, Requantize, Reshape
from crosslayer.core.plan import (
    WORD,
    Interval,
    Plan,
    check_plan,
    intervals,
    one_by_one,
    peak_bytes,
    storage,
    whole_words,
)
from crosslayer.core.quant import Quant
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import NETWORKS, network
from crosslayer.plan.arena import PlanArena, place, plan_arena
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.graphs import float_graph, integer_graph
from crosslayer.testing.stages import small_bench

CODE = Quant(bits=8, scale=(0.1,))


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


def least_arena(spans: tuple[Interval, ...]) -> int:
    """The least arena for these lifetimes, over all placements.

    Some order of placing each value at its lowest free place gives the least arena: in a best packing, push the values
    down one after the other, the lowest first.
    """
    best = sum(whole_words(span.bytes) for span in spans)
    for permutation in itertools.permutations(spans):
        taken: list[tuple[Interval, int]] = []
        for span in permutation:
            rivals = sorted(
                (o, o + whole_words(s.bytes)) for s, o in taken if s.born <= span.dies and span.born <= s.dies
            )
            offset = 0
            for start, end in rivals:
                if offset + whole_words(span.bytes) <= start:
                    break
                offset = max(offset, end)
            taken.append((span, offset))
        best = min(best, max(o + whole_words(s.bytes) for s, o in taken))
    return best


@settings(max_examples=150, deadline=None)
@given(grown(partial(branchy, nodes=12)))
def test_a_plan_is_legal_and_no_smaller_than_its_bound(graph: Graph) -> None:
    plan = check_plan(graph, plan_arena(graph))
    assert plan.arena_bytes >= plan.bound_bytes == peak_bytes(graph, plan.order)
    assert plan.bound_bytes <= peak_bytes(graph, tuple(node.name for node in graph.nodes))
    assert plan.arena_bytes % WORD == 0
    assert not plan.exact or plan.arena_bytes == plan.bound_bytes
    assert plan_arena(graph) == plan


@settings(max_examples=60, deadline=None)
@given(grown(partial(branchy, nodes=5)))
def test_an_exact_plan_is_the_least_of_all(graph: Graph) -> None:
    plan = plan_arena(graph)
    least_bound = min(peak_bytes(graph, order) for order in orders(graph))
    assert plan.bound_bytes == least_bound
    least = min(least_arena(intervals(graph, one_by_one(order))) for order in orders(graph))
    assert plan.arena_bytes >= least
    if plan.exact:
        assert plan.arena_bytes == least


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
    assert place(spans, 40, 0)[1] == 44
    assert place(spans, 40, 1000)[1] == least_arena(spans) == 40


@settings(max_examples=60, deadline=None)
@given(grown(lambda chance: integer_graph(chance, Rounding.DOUBLE)))
def test_random_networks_are_planned(graph: Graph) -> None:
    check_plan(graph, plan_arena(graph))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_of_the_zoo_is_planned_at_its_bound(name: str) -> None:
    graph = network(name, (16, 16, 1), 4, 0)
    plan = check_plan(graph, plan_arena(graph))
    assert plan.exact
    assert plan.arena_bytes == plan.bound_bytes


def test_no_value_is_alive_twice_in_a_straight_run() -> None:
    """By definition, byte by byte: nothing writes over what is still to be read."""
    for seed in range(40):
        graph = integer_graph(Seeded(seed, 6), Rounding.DOUBLE)
        plan = plan_arena(graph)
        owner = np.full(plan.arena_bytes, -1)
        number = {name: i for i, name in enumerate(graph.types)}

        def bytes_of(name: str, graph: Graph = graph, plan: Plan = plan) -> slice:
            start = plan.offsets[storage(graph, name)]
            return slice(start, start + graph.types[name].bytes)

        for name in graph.inputs:
            owner[bytes_of(name)] = number[name]
        for name in plan.order:
            node = graph.producers[name]
            for source in graph.activations(node):
                assert (owner[bytes_of(source)] == number[storage(graph, source)]).all()
            owner[bytes_of(name)] = number[storage(graph, name)]
        for name in graph.outputs:
            assert (owner[bytes_of(name)] == number[storage(graph, name)]).all()


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
    assert plan.arena_bytes == plan.bound_bytes == 16


def test_inputs_and_outputs_live_as_long_as_they_must() -> None:
    graph = replace(chain(), outputs=("view", "b", "x"))
    spans = {s.name: (s.born, s.dies) for s in intervals(graph, one_by_one(("a", "view", "b")))}
    assert spans == {"x": (0, 3), "a": (1, 3), "b": (3, 3)}


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


def test_a_search_without_budget_still_gives_a_legal_plan_that_claims_nothing() -> None:
    for seed in range(30):
        graph = branchy(Seeded(seed), nodes=12)
        plan = check_plan(graph, plan_arena(graph, order_states=1, offset_steps=0))
        assert plan.order == tuple(node.name for node in graph.nodes)
        assert not plan.exact


def test_the_stage_plans_and_reports() -> None:
    graph = integer_graph(Seeded(0), Rounding.DOUBLE)
    planned = PlanArena()(Design(graph=graph, target=load_target("stm32f769")), small_bench())
    plan = plan_arena(graph)
    assert planned.plan == plan
    notes = {"arena_bytes": plan.arena_bytes, "bound_bytes": plan.bound_bytes, "exact": plan.exact}
    assert planned.trail[-1].notes == notes


@settings(max_examples=30, deadline=None)
@given(grown(float_graph))
def test_float_networks_can_be_planned_too(graph: Graph) -> None:
    check_plan(graph, plan_arena(graph))

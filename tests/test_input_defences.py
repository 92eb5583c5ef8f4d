"""Filters and few levels in front of a network: part of what ships, and worth less than blind attacks say."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attack_networks import digits, trained, uniform, zoo_network
from crosslayer.attack.budget import Budget
from crosslayer.attack.filter import FilterInput, Window
from crosslayer.attack.levels import QuantizeInput
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Relu
from crosslayer.core.quant import Array
from crosslayer.core.stage import Recipe, Stage
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute import torch as bridge
from crosslayer.execute.native import Native
from crosslayer.execute.surrogate import Surrogate
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.activations import fuse_activations
from crosslayer.testing.stages import small_bench

FRONTS: tuple[Stage, ...] = (
    *(FilterInput(window=window, radius=1 + i) for i, window in enumerate(Window)),
    QuantizeInput(),
    *(QuantizeInput(levels=5, learned=learned) for learned in (False, True)),
)
names = [str(front) for front in FRONTS]


def design_of(graph: Graph) -> Design:
    return Design(graph=graph, target=load_target("stm32f769"))


def after(recipe: Recipe, graph: Graph) -> Design:
    design, bench = design_of(graph), Bench(data=digits(), seed=0, executor=execute)
    for stage in recipe:
        design = stage(design, bench)
    return design


@cache
def shipped(front: Stage | None) -> Graph:
    """A network in integers, trained behind a front."""
    if front is None:
        return after((QuantizeAffine(),), trained()).graph
    fresh = fuse_activations(network("lenet5", digits().shape, 10, 1))
    return after((front, Train(epochs=10, batch=64), QuantizeAffine()), fresh).graph


def alone(front: Stage, x: Array) -> Array:
    """What the front makes of inputs (batch, height, width, channels)."""
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", x.shape[1:])))
    return reference.run(front(design_of(graph), small_bench()).graph, x)


def weighted(x: Array, taps: Array) -> Array:
    """Σ taps · x over windows, beyond the edge 0."""
    radius = len(taps) // 2
    padded = np.pad(x, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps.shape, (1, 2))
    return np.einsum("nhwcij,ij->nhwc", windows, taps)


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("window", Window)
def test_a_filter_takes_the_mean_that_it_is_named_after(window: Window, radius: int) -> None:
    x = np.random.default_rng(0).random((3, 9, 8, 2), np.float32)
    away = np.arange(-radius, radius + 1)
    binomial = np.array({1: [1, 2, 1], 2: [1, 4, 6, 4, 1]}[radius])
    taps = {
        Window.MEAN: np.ones((2 * radius + 1,) * 2),
        Window.DISK: (away[:, None] ** 2 + away**2 <= radius**2) * 1.0,
        Window.GAUSSIAN: np.outer(binomial, binomial) * 1.0,
    }[window]
    found, wanted = alone(FilterInput(window=window, radius=radius), x), weighted(x, taps / taps.sum())
    inner = slice(radius, -radius)
    assert np.allclose(found[:, inner, inner], wanted[:, inner, inner], atol=1e-6)
    if window is Window.DISK:
        assert np.allclose(found, wanted, atol=1e-6)
    else:
        assert np.allclose(alone(FilterInput(window=window, radius=radius), np.full_like(x, 0.7)), 0.7, atol=1e-6)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 6])
def test_few_levels_are_the_nearest_ones_but_on_the_ramps(levels: int, learned: bool) -> None:
    x = np.linspace(0, 1, 500, dtype=np.float32).reshape(1, 500, 1, 1)
    found = alone(QuantizeInput(levels=levels, width=0.1, learned=learned), x)
    nearest = np.rint(x * (levels - 1)) / (levels - 1)
    ramp = np.abs(x * (levels - 1) % 1 - 0.5) < 0.051
    assert np.abs((found - nearest)[~ramp]).max() < 1e-5
    assert (np.diff(found.ravel()) > -1e-6).all()


@pytest.mark.parametrize("front", FRONTS, ids=names)
def test_a_front_ships_and_every_executor_computes_it(front: Stage, tmp_path: Path) -> None:
    graph = zoo_network("lenet5")
    recipe = (front, QuantizeAffine(samples=64), PlanArena())
    float_design, design = after(recipe[:1], graph), after(recipe, graph)
    x = uniform(graph, 20)
    assert np.allclose(bridge.run(float_design.graph, x), reference.run(float_design.graph, x), atol=1e-5)
    truth = reference.run(design.graph, x)
    assert (exact.run(design.graph, x) == truth).all()
    emit(design, tmp_path / "firmware", x[:1])
    codes = reference.encode_input(design.graph, x)
    assert (Native.build(tmp_path / "firmware").run(codes) == truth.reshape(20, -1).view(np.uint8)).all()


@pytest.mark.parametrize("front", FRONTS, ids=names)
def test_training_changes_what_is_learned_and_nothing_else(front: Stage) -> None:
    before = front(design_of(network("lenet5", (8, 8, 1), 4, 0)), small_bench()).graph
    tuned = Train(epochs=1, batch=32)(design_of(before), small_bench()).graph
    own = [name for name in before.constants if name.startswith("input.")]
    learned = getattr(front, "learned", False) or getattr(front, "window", None) is Window.DISK
    assert bool(own) is learned
    assert all((tuned.constants[name] != before.constants[name]).any() for name in own if not name.endswith("bias"))


def left(victim: Victim, x: Array, labels: Array) -> float:
    return float((~victim.fooled(x, labels)).mean())


@pytest.mark.parametrize("front", [FilterInput(), QuantizeInput()], ids=str)
def test_attacks_that_do_not_know_a_defence_overstate_it(front: Stage) -> None:
    data, budget, rng = digits(), Budget.parse("linf 2/16"), np.random.default_rng(0)
    sensor = Sensor.of(data.train)
    plain, victim = (Victim.of(shipped(each), sensor, execute) for each in (None, front))
    x, labels = sensor.shares(data.test.real(slice(0, 200))), data.test.labels[:200]
    blind, worst = Pgd(steps=20, stop=False)(plain, x, labels, budget, rng), x
    for surrogate in Surrogate:
        worst = Pgd(steps=20, surrogate=surrogate)(victim, x, labels, budget, rng, worst)
    assert left(victim, x, labels) > 0.85
    assert left(plain, blind, labels) < 0.3
    assert left(victim, worst, labels) < left(victim, blind, labels) - 0.15


def test_a_front_may_lie_before_another_but_not_twice() -> None:
    bench, design = small_bench(), design_of(zoo_network("lenet5"))
    both = QuantizeInput()(FilterInput()(design, bench), bench)
    assert [type(node.op).__name__ for node in both.graph.nodes[:2]] == ["HardSigmoid", "AveragePool"]
    with pytest.raises(GraphError, match=r"'input\.filter' is in the network already"):
        FilterInput()(both, bench)


@pytest.mark.parametrize("front", FRONTS, ids=names)
def test_integers_get_no_front(front: Stage) -> None:
    whole = QuantizeAffine(samples=8)(design_of(zoo_network("lenet5")), Bench(data=digits(), seed=0, executor=execute))
    with pytest.raises(GraphError, match="before quantization"):
        front(replace(whole), small_bench())


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (FilterInput, {"radius": 0}, "radius must lie in 1…8"),
        (QuantizeInput, {"levels": 1}, "levels must lie in 2…16"),
        (QuantizeInput, {"width": 0.0}, r"width must lie in 0\.02…1"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        kind(**fields)

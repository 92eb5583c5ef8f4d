"""The checks of an evaluation: they see through each masked network, and let honest ones pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import pytest

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.callable import score_victim
from crosslayer.attack.losses import Loss
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Bench, silent
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.edit import decoded
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Dense, Relu, Reshape, Softmax
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Check
from crosslayer.core.stage import run
from crosslayer.datasets.catalog import load
from crosslayer.evaluate import robustness
from crosslayer.evaluate.believable import checks
from crosslayer.evaluate.robustness import Knowledge, Outcome, Trial, attack
from crosslayer.execute.surrogate import Surrogate
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.precision import Precision
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms
from crosslayer.testing.planted import masked

BUDGET = Budget.parse("linf 2/16")
SAMPLES = 60
MASKED = ("rounded", "shattered", "reversed", "flat", "heated", "filtered behind the slopes", "random")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


def trained(graph: Graph, data: Dataset) -> Graph:
    bench = Bench(data=data, seed=0, executor=execute)
    start = Design(graph=graph, target=load_target("stm32f769"))
    return run((Train(epochs=8, batch=32),), start, bench, judge=lambda _: ()).graph


@pytest.fixture(scope="module")
def float_graph(data: Dataset) -> Graph:
    return trained(network("lenet5", data.shape, len(data.classes), 0), data)


def dense(data: Dataset) -> Graph:
    rng, b = np.random.default_rng(0), Builder()
    x = b.add(Reshape(shape=(64,)), b.input("x", data.shape))
    for i, (inside, out) in enumerate(((64, 32), (32, 10))):
        weight = b.constant(f"w{i}", rng.normal(size=(out, inside)) / np.sqrt(inside))
        x = b.add(Dense(), x, weight, b.constant(f"b{i}", np.zeros(out)), name=f"dense{i}")
        x = b.add(Relu(), x) if i == 0 else b.add(Softmax(), x)
    return trained(b.graph(x), data)


def quantized(graph: Graph, data: Dataset, stage: QuantizeAffine) -> Graph:
    bench = Bench(data=data, seed=0, executor=execute)
    start = Design(graph=graph, target=load_target("stm32f769"))
    return run((FoldNorms(), FuseActivations(), stage), start, bench, judge=lambda _: ()).graph


HONEST: dict[str, Callable[[Graph, Dataset], Graph]] = {
    "float": lambda graph, data: graph,
    "float, dense": lambda graph, data: dense(data),
    "int8": lambda graph, data: quantized(graph, data, QuantizeAffine()),
    "int8, dense": lambda graph, data: quantized(dense(data), data, QuantizeAffine()),
    "4-bit weights": lambda graph, data: quantized(graph, data, QuantizeAffine(precision=Precision(weights=4))),
    "16-bit activations": lambda graph, data: quantized(
        graph, data, QuantizeAffine(precision=Precision(activations=16))
    ),
}


def judged(victim: Victim, twin: Victim, data: Dataset) -> tuple[Outcome, tuple[Check, ...]]:
    x, labels = victim.sensor.shares(data.test.real(slice(0, SAMPLES))), data.test.labels[:SAMPLES]
    outcome = attack(victim, x, labels, BUDGET, twin=twin, progress=silent)
    return outcome, checks(victim, outcome)


def of(graph: Graph, data: Dataset) -> Victim:
    return Victim.of(graph, Sensor.of(data.train), execute)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_passes_every_check(name: str, float_graph: Graph, data: Dataset) -> None:
    graph = HONEST[name](float_graph, data)
    outcome, found = judged(of(graph, data), of(decoded(graph), data), data)
    assert [check for check in found if not check.holds] == []
    assert outcome.right.mean() < outcome.clean.mean()


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_network_is_flagged(name: str, float_graph: Graph, data: Dataset) -> None:
    graph = quantized(float_graph, data, QuantizeAffine())
    victim = of(graph, data)
    hidden = masked(victim)
    assert set(hidden) == set(MASKED)
    _, found = judged(hidden[name], of(decoded(graph), data), data)
    assert [check.name for check in found if not check.holds] != []


@final
@dataclass(frozen=True, kw_only=True)
class Slow(Attack):
    """Turns a sample once it may take as many steps as the sample's second value says."""

    norms = (Norm.LINF,)
    steps: int
    loss: Loss = Loss.CE
    surrogate: Surrogate = Surrogate.GATED

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        return np.where((np.arange(2) == 0) & (255 * x[:, 1:] <= self.steps / 4), np.float32(budget.size), x)


@pytest.mark.parametrize(
    ("needed", "steps", "turned", "holds"),
    [((40, 80), 160, 0, True), ((40, 80, 160), 320, 0, True), ((40, 80, 160, 320, 640), 640, 10, False)],
)
def test_attacks_get_longer_while_that_turns_samples(
    needed: tuple[int, ...], steps: int, turned: int, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten samples need each number of steps, and forty more than there will ever be."""
    levels = np.repeat([*needed, 1000], [*(10 for _ in needed), 40]) // 4
    x = np.stack([np.zeros(len(levels)), levels / 255], axis=1).astype(np.float32)
    victim = score_victim(lambda real: real[:, :1] - 0.5, Sensor(low=0.0, high=1.0))
    trial = Trial(name="slow", attack=Slow(steps=40), knowledge=Knowledge.SLOPES)
    monkeypatch.setattr(robustness, "attack_set", lambda *_: (trial,))
    monkeypatch.setattr(robustness, "Pgd", Slow)
    outcome = attack(victim, x, np.zeros(len(x), np.int64), Budget.parse("linf 1"))
    assert (outcome.steps, outcome.turned) == (steps, turned)
    assert outcome.right.sum() == 40 + 10 * sum(each > steps for each in needed)
    (check,) = (check for check in checks(victim, outcome) if check.name.startswith("twice the steps"))
    assert check.holds == holds
    assert check.finding == f"{steps} turned {turned} of {len(x)} samples more"

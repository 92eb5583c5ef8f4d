"""Mixed precision: the searches find what they promise, and the stage keeps its budget."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.ops import Dense, Relu, Softmax
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.budget import Assignment, Judge, least_harm, q_capsnets
from crosslayer.quantize.mixed import MixedPrecision, Resource, Search
from crosslayer.study import parse_study, study_text

Table = Mapping[str, Mapping[int, float]]


def table(values: list[list[float]]) -> Table:
    return {f"layer{i}": dict(enumerate(row, start=2)) for i, row in enumerate(values)}


@st.composite
def choices(draw: st.DrawFn) -> tuple[Table, Table, float]:
    count, depth = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    numbers = st.lists(st.integers(0, 9).map(float), min_size=depth, max_size=depth)
    harm, cost = (draw(st.lists(numbers, min_size=count, max_size=count)) for _ in range(2))
    return table(harm), table(cost), float(draw(st.integers(0, 40)))


@given(choices())
def test_the_least_harm_is_that_of_all_combinations(drawn: tuple[Table, Table, float]) -> None:
    harm, cost, budget = drawn
    every = [dict(zip(harm, bits, strict=True)) for bits in itertools.product(*harm.values())]
    affordable = [each for each in every if sum(cost[n][b] for n, b in each.items()) <= budget]
    if not affordable:
        with pytest.raises(InputError, match="raise it"):
            least_harm(harm, cost, budget)
        return
    found = least_harm(harm, cost, budget)
    assert sum(cost[n][b] for n, b in found.items()) <= budget
    assert sum(harm[n][b] for n, b in found.items()) == min(sum(harm[n][b] for n, b in e.items()) for e in affordable)


LAYERS = ("a", "b", "c", "d", "e", "f")
SIZES = dict(zip(LAYERS, (10, 40, 80, 80, 40, 10), strict=True))


def bits_in_all(weights: Assignment) -> float:
    return float(sum(SIZES[name] * bits for name, bits in weights.items()))


def judged(harm_of_a_bit: Mapping[str, float], activation_harm: float = 0.0) -> Judge:
    """Accuracy 0.9 less what each bit below 8 costs."""

    def judge(weights: Assignment, activations: int) -> float:
        lost = sum(harm_of_a_bit[name] * max(8 - bits, 0) for name, bits in weights.items())
        return 0.9 - lost - activation_harm * max(8 - activations, 0)

    return judge


def test_four_steps_keep_accuracy_and_budget_where_both_can_be_had() -> None:
    judge = judged(dict.fromkeys(LAYERS, 1e-6), 1e-6)
    found = q_capsnets(LAYERS, bits_in_all, judge, full=0.9, tolerance=0.01, budget=1000.0)
    assert bits_in_all(found.weights) <= 1000
    assert found.accuracy >= 0.89
    assert [found.weights[n] for n in LAYERS] == sorted(found.weights.values(), reverse=True)
    assert found.activations == 4


def test_four_steps_keep_the_accuracy_where_the_budget_would_cost_it() -> None:
    harm = {**dict.fromkeys(LAYERS, 1e-6), "b": 0.004}
    found = q_capsnets(LAYERS, bits_in_all, judged(harm), full=0.9, tolerance=0.01, budget=600.0)
    assert found.accuracy >= 0.89
    assert bits_in_all(found.weights) > 600


def test_activations_fall_until_their_share_of_what_is_left_is_spent() -> None:
    found = q_capsnets(
        LAYERS,
        bits_in_all,
        judged(dict.fromkeys(LAYERS, 0.0), 0.002),
        full=0.9,
        tolerance=0.01,
        budget=5000.0,
    )
    assert found.activations == 6  # 2 bits × 0.002 ≤ 55 % of 0.01; step 1 spends none of it
    assert found.accuracy == pytest.approx(0.896)


def test_a_budget_below_the_fewest_bits_is_refused() -> None:
    with pytest.raises(InputError, match="which the fewest bits cost"):
        q_capsnets(LAYERS, bits_in_all, judged(dict.fromkeys(LAYERS, 0.0)), full=0.9, tolerance=0.01, budget=10.0)


# the stage


def design_and_bench() -> tuple[Design, Bench]:
    """A random classifier whose first layer matters much more than its second, and the data that it labels."""
    rng = np.random.default_rng(0)
    b = Builder()
    x = b.input("x", (12,))
    fine = rng.normal(size=(16, 12)) * np.exp(rng.uniform(-2, 2, (16, 12)))
    x = b.add(Relu(), b.add(Dense(), x, b.constant("w1", fine), b.constant("c1", np.zeros(16))), name="relu")
    x = b.add(Dense(), x, b.constant("w2", np.sign(rng.normal(size=(32, 16)))), b.constant("c2", np.zeros(32)))
    x = b.add(Dense(), x, b.constant("w3", rng.normal(size=(4, 32))), b.constant("c3", np.zeros(4)), name="logits")
    graph = b.graph(b.add(Softmax(), x))
    inputs = rng.normal(size=(300, 12)).astype(np.float32)
    labels = execute(graph, inputs).argmax(axis=-1).astype(np.int64)
    split = Split(codes=inputs, labels=labels)
    data = Dataset(name="d", train=split, validation=split, test=split, classes=tuple("abcd"))
    return Design(graph=graph, target=load_target("stm32l4r5")), Bench(data=data, seed=0, executor=execute)


@pytest.mark.parametrize("search", Search)
def test_the_memory_of_the_firmware_s_weights_is_within_the_budget(search: Search) -> None:
    design, bench = design_and_bench()
    stage = MixedPrecision(budget=720.0, search=search, tolerance=0.5)
    made = stage(design, bench)
    assert weight_bytes(made.graph) <= 720
    notes = made.trail[-1].notes
    assert notes["cost"] == weight_bytes(made.graph)
    assert {n: made.graph.types[made.graph.producers[n].inputs[1]].quant.bits for n in notes["bits"]} == notes["bits"]  # type: ignore[union-attr]


def test_bits_go_where_they_matter() -> None:
    design, bench = design_and_bench()
    bits = MixedPrecision(budget=720.0)(design, bench).trail[-1].notes["bits"]
    assert bits["dense2"] == 2  # its weights are ±1
    assert bits["dense1"] > 4


@pytest.mark.parametrize("resource", [Resource.LATENCY, Resource.ENERGY])
def test_few_bits_cost_more_instructions_so_that_a_tight_budget_of_time_takes_eight(resource: Resource) -> None:
    design, bench = design_and_bench()
    loose = MixedPrecision(budget=1.0, resource=resource)(design, bench).trail[-1].notes
    tight = MixedPrecision(budget=1.02 * loose["cost"], resource=resource)(design, bench).trail[-1].notes
    assert set(tight["bits"].values()) == {8}
    with pytest.raises(InputError, match="raise it"):
        MixedPrecision(budget=0.9 * loose["cost"], resource=resource)(design, bench)


STUDY = """
[network]
source = "lenet5"
[data]
source = "digits"
[target]
name = "stm32f769"
[[stage]]
use = "{use}"
[{table}]
budget = 5000.0
search = "q-capsnets"
samples = 10
"""


@pytest.mark.parametrize(("use", "key"), [("mixed-precision", ""), ("quantize-aware", ".mixed")])
def test_a_study_can_ask_for_it(use: str, key: str) -> None:
    text = STUDY.format(use=use, table=f"stage{key}") if key else STUDY.format(use=use, table="x").replace("[x]\n", "")
    (stage,) = parse_study(text, "study").recipe or ()
    mixed = stage.mixed if isinstance(stage, QuantizeAware) else stage
    assert mixed == MixedPrecision(budget=5000.0, search=Search.Q_CAPSNETS, samples=10)
    assert parse_study(study_text(parse_study(text, "study"), (stage,)), "again").recipe == (stage,)


def test_training_for_mixed_bits_keeps_the_bits_and_the_budget() -> None:
    design, bench = design_and_bench()
    mixed = MixedPrecision(budget=720.0)
    aware = QuantizeAware(mixed=mixed, training=Training(epochs=2, batch=50, rate=1e-3))
    made, started = aware(design, bench), mixed(design, bench)
    assert made.trail[-1].notes["bits"] == started.trail[-1].notes["bits"]
    assert weight_bytes(made.graph) == weight_bytes(started.graph) <= 720
    assert made.graph != started.graph


def test_integers_have_their_bits_already() -> None:
    design, bench = design_and_bench()
    made = MixedPrecision(budget=math.inf)(design, bench)
    with pytest.raises(GraphError, match="starts from a float network"):
        MixedPrecision()(made, bench)

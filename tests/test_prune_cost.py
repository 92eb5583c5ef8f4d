"""What a removal costs: the expressions of study files, and the amounts that they name."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crosslayer.core.design import weight_bytes
from crosslayer.core.errors import InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import layers, remove
from crosslayer.core.graph.graph import verify
from crosslayer.core.graph.ops import Concat, Softmax, Transpose
from crosslayer.core.plan import Plan, peak_bytes
from crosslayer.execute import reference
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.counts import predict
from crosslayer.networks.zoo import NETWORKS, network
from crosslayer.prune.cost import SAVED, Cost
from crosslayer.prune.savings import amounts, outline
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms
from crosslayer.testing.chance import Seeded, grown
from crosslayer.testing.graphs import float_graph

BOARD = load_target("stm32f769")
HALF = dict.fromkeys(SAVED, 0.5)
NO_DROP = 5e-5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("drop", 0.01 + NO_DROP),
        ("drop / parameters", (0.01 + NO_DROP) / 0.5),
        ("drop + 1 - 2 * 3 ** 2 / 4", 0.01 + NO_DROP + 1 - 4.5),
        ("-drop ** 2", -((0.01 + NO_DROP) ** 2)),
        ("2 ** 3 ** 2 + drop * 0", 512),
        ("  max(drop, 3, 1e-2) + min(macs, ram * 0.5)\n", 3.25),
        ("drop*0 + (((energy)))", 0.5),
        ("drop * 0 + +7", 7),
    ],
)
def test_an_expression_means_what_it_says(text: str, value: float) -> None:
    assert Cost(text)(0.01, HALF) == pytest.approx(value, rel=1e-12)


numbers = st.sampled_from(["1", "2.5", "0.1", "1e-3", "drop", *SAVED])
expressions = st.recursive(
    numbers,
    lambda part: st.one_of(
        st.tuples(st.just("("), part, st.sampled_from(["+", "-", "*", "/", "**"]), part, st.just(")")).map(" ".join),
        st.tuples(st.sampled_from(["min", "max"]), part, part).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        part.map("-{}".format),
    ),
    max_leaves=5,
)


@given(expressions, st.floats(-1, 1), st.lists(st.floats(-0.5, 1), min_size=6, max_size=6))
def test_every_expression_of_the_grammar_has_pythons_value(text: str, drop: float, shares: list[float]) -> None:
    names = dict(zip(SAVED, shares, strict=True))
    text = f"0 * drop + {text}"
    assume(has_value(text, dict.fromkeys(SAVED, 0.1) | {"drop": 0.01 + NO_DROP}) and len(text) <= 200)
    known = {name: max(share, 1e-6) for name, share in names.items()} | {"drop": max(drop, 0) + NO_DROP}
    expected = python_value(text, known) if has_value(text, known) else math.inf
    assert Cost(text)(drop, names) == pytest.approx(expected, rel=1e-9)


def has_value(text: str, known: dict[str, float]) -> bool:
    try:
        value = python_value(text, known)
    except (ArithmeticError, TypeError):
        return False
    return not isinstance(value, complex) and math.isfinite(value)


def python_value(text: str, known: dict[str, float]) -> float | complex:
    return eval(text, {"__builtins__": {"min": min, "max": max}}, known)  # noqa: S307  # text of this test's own


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "",
            "character 1: cannot be read; use drop, loss, parameters, macs, weights_bytes, ram, latency, energy,",
        ),
        ("drop /", "character 7: cannot be read"),
        ("drop / macs)", "character 12: cannot be read"),
        ("drop) + (macs", "character 5: cannot be read"),
        ("  drop $ 2", "character 8: cannot be read"),
        ("\n drop\n/ makros", "character 10: 'makros' is not known"),
        ("drop / makros", "character 8: 'makros' is not known; did you mean 'macs'?"),
        ("money", "character 1: 'money' is not known; known are: drop, loss, parameters"),
        ("macs", "says neither drop nor loss, the harm; write such as drop / macs"),
        ("drop * drop.real", "character 8: 'drop.real' is not allowed"),
        ("(drop + drop.real)", "character 9: 'drop.real' is not allowed"),
        ("drop + __import__('os')", "character 8: '__import__('os')' is not allowed"),
        ("drop + min(1)", "character 8: 'min(1)' is not allowed"),
        ("drop + min(*(1, 2), 3)", "'*(1, 2)' is not allowed"),
        ("drop + max(1, 2, key=abs)", "character 8: 'max(1, 2, key=abs)' is not allowed"),
        ("drop + abs(1, 2)", "character 8: 'abs(1, 2)' is not allowed"),
        ("drop + (lambda: 1)", "character 9: 'lambda: 1' is not allowed"),
        ("drop // 2", "character 1: 'drop // 2' is not allowed"),
        ("drop + 1j", "character 8: '1j' is not allowed"),
        ("drop + True", "character 8: 'True' is not allowed"),
        ("drop + 'ä' + x", "character 8: ''ä'' is not allowed"),
        ("drop + [0][0]", "character 8: '[0][0]' is not allowed"),
        ("drop if drop else 1", "character 1: 'drop if drop else 1' is not allowed"),
        ("drop < 1", "character 1: 'drop < 1' is not allowed"),
        ("(drop := 1)", "character 2: '(drop := 1)' is not allowed"),
        ("drop, 1", "character 1: '(drop, 1)' is not allowed"),
        ("drop; 1", "character 5: cannot be read"),
        ("drop + 1e999", "character 8: the number is too large"),
        ("drop \0", "cannot be read"),
        ("drop # is all", "character 6: '#' is not allowed"),
        ("drop + 9 ** 9 ** 9 ** 9", "has no finite value where the harm is 0.01 and all savings are 0.1"),
        ("drop / (macs - macs)", "has no finite value where"),
        ("(drop - 1) ** 0.5", "has no finite value where"),
        ("(" * 150 + "drop" + ")" * 40, "cannot be read"),
        ("drop" + " + 1" * 60, "has 244 characters; write at most 200"),
    ],
)
def test_anything_else_is_refused_and_the_place_named(text: str, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        Cost(text)
    assert says in str(refusal.value)
    assert str(refusal.value).startswith("cost ")
    assert "\n" not in str(refusal.value)


def test_a_cost_says_what_must_be_known() -> None:
    assert Cost("drop / max(macs, 2 * ram)").names == {"macs", "ram"}
    assert Cost("drop").names == set()


def test_of_removals_without_a_drop_the_one_that_saves_more_costs_less() -> None:
    cost = Cost("drop / macs")
    assert cost(0.0, {"macs": 0.2}) < cost(0.0, {"macs": 0.1})
    assert cost(-0.3, {"macs": 0.2}) == cost(0.0, {"macs": 0.2})
    assert cost(0.01, {"macs": 0.2}) < cost(0.02, {"macs": 0.2})


@pytest.mark.parametrize("share", [0.0, -0.1])
def test_a_removal_that_saves_nothing_costs_most(share: float) -> None:
    assert cost_of(share) > cost_of(1e-4) > cost_of(0.5)
    assert math.isfinite(cost_of(share))


def cost_of(share: float) -> float:
    return Cost("drop / energy")(0.01, {"energy": share})


def test_the_rise_of_the_loss_tells_apart_what_accuracy_does_not() -> None:
    cost = Cost("loss / macs")
    assert cost.names == {"macs"}
    assert cost(0.0, {"macs": 0.1}, 1e-4) < cost(0.0, {"macs": 0.1}, 2e-4)
    assert cost(0.5, {"macs": 0.1}, -1.0) == cost(0.0, {"macs": 0.1}, 0.0) > 0


def test_a_cost_without_a_finite_value_is_infinite() -> None:
    cost = Cost("drop / (macs - 0.5)")
    assert cost(0.1, {"macs": 0.5}) == math.inf
    assert Cost("(0.5 - macs) ** 0.5 + drop")(0.1, {"macs": 0.7}) == math.inf
    assert Cost("max((0.5 - macs) ** 0.5, drop)")(0.1, {"macs": 0.7}) == math.inf


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_float_network_takes_what_its_integer_form_will(name: str) -> None:
    """The integer form, nodes run one after the other: its weights, RAM and instructions to the unit
    (but those of kernels whose instructions are not known and that multiply nothing)."""
    graph = network(name, (12,) if name == "autoencoder" else (32, 32, 3) if name == "vgg11" else (12, 12, 2), 5, 1)
    x = Seeded(0).rng().normal(size=(2, *graph.types[graph.inputs[0]].shape)).astype("f4")
    slim = fuse_activations(fold_norms(graph))
    whole = quantize(slim, reference.calibrate(slim, [x], reference.evaluate), Rounding.DOUBLE)
    order = tuple(node.name for node in whole.nodes)
    found = amounts(graph, BOARD, SAVED)
    assert found["parameters"] == graph.parameters
    assert found["macs"] == sum(whole.macs.values())
    assert found["weights_bytes"] == weight_bytes(whole)
    assert found["ram"] == peak_bytes(whole, order)
    counted = predict(whole, Plan(order=order, offsets={}, arena_bytes=0, bound_bytes=0, exact=False), BOARD.core)
    assert counted is not None
    assert sum(whole.macs[name] for name, count in counted.by_step.items() if count is None) == 0
    instructions = counted.outside + sum(filter(None, counted.by_step.values()))
    cycles = instructions * BOARD.cycles_per_instruction.value
    assert found["latency"] == pytest.approx(cycles / BOARD.clock_hz)
    assert BOARD.active_power is not None
    assert found["energy"] == pytest.approx(cycles * BOARD.active_power.value)


@given(grown(float_graph))
def test_every_random_network_has_all_amounts(graph: object) -> None:
    found = amounts(graph, BOARD, SAVED)  # type: ignore[arg-type]  # a Graph
    assert set(found) == set(SAVED)
    assert found["ram"] > 0 and min(found.values()) >= 0


def test_an_outline_is_a_verified_network() -> None:
    verify(outline(network("resnet8", (12, 12, 2), 5, 1)))


def test_what_is_concatenated_with_shares_is_outlined_as_it_is_quantized() -> None:
    b = Builder()
    x = b.input("x", (2, 2, 4))
    y = b.add(Transpose(permutation=(0, 1, 2)), b.add(Softmax(), x))
    graph = b.graph(b.add(Concat(axis=2), y, x, y))
    found = outline(graph)
    verify(found)
    ranges = dict.fromkeys((*graph.inputs, *(node.name for node in graph.nodes)), (-1.0, 1.0))
    quantized = quantize(graph, ranges, Rounding.DOUBLE)
    kinds = [[type(node.op).__name__ for node in each.nodes] for each in (found, quantized)]
    assert kinds[0].count("Requantize") == 1
    assert set(kinds[0]) == set(kinds[1])


def test_fewer_channels_can_take_longer() -> None:
    """What multiply-accumulates do not say: kernels take four channels at once."""
    graph = network("mobilenet", (32, 32, 3), 5, 1)
    first = layers(graph)[0]
    before, after = (amounts(g, BOARD, SAVED) for g in (graph, remove(graph, first.channels[:1])))
    assert after["macs"] < before["macs"]
    assert after["latency"] > before["latency"]
    after = amounts(remove(graph, first.channels[:4]), BOARD, SAVED)
    assert after["latency"] < before["latency"]


def test_energy_needs_a_power_figure() -> None:
    board = replace(BOARD, active_power=None)
    graph = network("lenet5", (12, 12, 1), 5, 0)
    assert amounts(graph, board, ["latency"])["latency"] > 0
    with pytest.raises(InputError, match=r"no power figure of stm32f769 is known; write latency instead of energy"):
        amounts(graph, board, ["energy"])

"""Networks as data: what is well formed, what is equal, how one is written down and changed."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.edit import only_reader, rewire, with_nodes, without_unused
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import Op, Operand, TensorType
from crosslayer.core.graph.ops import (
    Add,
    Concat,
    Dense,
    MaxPool,
    Quantize,
    Relu,
    Relu6,
    Reshape,
    Softmax,
    Tanh,
    Windows,
)
from crosslayer.core.quant import Quant
from crosslayer.execute import reference
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.graphs import float_graph, integer_graph, operation_graph

CODE = Quant(bits=8, scale=(0.5,))
TAPS = Quant(bits=8, scale=(1.0, 2.0), axis=1)


def any_graph(chance: Chance) -> Graph:
    return integer_graph(chance, chance.one_of(tuple(Rounding))) if chance.rarely(2) else float_graph(chance)


def layer(rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """x (3,) → dense → relu."""
    b = Builder(rounding)
    x = b.input("x", (3,))
    w, c = b.constant("w", np.ones((2, 3))), b.constant("c", np.zeros(2))
    return b.graph(b.add(Relu(), b.add(Dense(), x, w, c, name="dense"), name="relu"))


def float32(*shape: int) -> TensorType:
    return TensorType(shape=shape)


def with_type(graph: Graph, name: str, kind: TensorType | None) -> Graph:
    types = {n: t for n, t in graph.types.items() if n != name}
    return replace(graph, types=types if kind is None else {**types, name: kind})


def with_inputs(graph: Graph, name: str, *inputs: str) -> Graph:
    return with_nodes(graph, {name: replace(graph.producers[name], inputs=inputs)})


MALFORMED: list[tuple[str, Graph, str]] = [
    ("no output", replace(layer(), outputs=()), "has no output; name one"),
    ("unknown output", replace(layer(), outputs=("y",)), "y: is a graph output that nothing computes"),
    ("input twice", replace(layer(), inputs=("x", "x")), "names that are used twice; rename one"),
    ("input is constant", replace(layer(), inputs=("x", "w")), "names that are used twice; rename one"),
    ("input without type", replace(layer(), inputs=("x", "z")), "z: has no type; add it"),
    ("node without type", with_type(layer(), "relu", None), r"relu \(Relu\): its result has no type"),
    (
        "wrong shape",
        with_type(layer(), "dense", float32(3)),
        r"dense \(Dense\): makes shape \[2\], its type says \[3\]",
    ),
    ("constant's shape", with_type(layer(), "w", float32(3, 2)), r"w: the constant is float32\[2, 3\], its type says"),
    ("constant's type", with_type(layer(), "w", TensorType(shape=(2, 3), quant=CODE)), "its type says int8"),
    ("no axis", with_type(layer(), "relu", float32()), r"relu: the shape \[\] is empty or too large"),
    ("empty", with_type(layer(), "x", float32(2, 0)), r"x: the shape \[2, 0\] is empty or too large"),
    ("negative", with_type(layer(), "x", float32(-3)), r"x: the shape \[-3\] is empty or too large"),
    ("huge", with_type(layer(), "x", float32(2**40, 2**40)), "x: the shape .* is empty or too large"),
    ("scales", with_type(layer(), "w", TensorType(shape=(2, 3), quant=TAPS)), "w: 2 scales along axis 1 do not fit"),
    ("order", replace(layer(), nodes=layer().nodes[::-1]), r"relu \(Relu\): reads 'dense', .* reorder the nodes"),
    ("loop", with_inputs(layer(), "dense", "relu", "w", "c"), "reads 'relu', which is not computed before it"),
    ("twice", replace(layer(), nodes=layer().nodes * 2), r"dense \(Dense\): the name is used twice; rename one"),
    ("name of an input", with_inputs(replace(layer(), inputs=("x", "relu")), "relu", "x"), "the name is used twice"),
    ("too few", with_inputs(layer(), "dense", "x", "w"), r"takes 3 operands \(x, weight, bias\), got 2"),
    ("too many", with_inputs(layer(), "relu", "x", "dense"), r"takes 1 operands \(x\), got 2"),
    ("computed weight", with_inputs(layer(), "dense", "x", "x", "c"), "'weight' must be a constant, but 'x' is"),
    ("operation's rule", with_inputs(layer(), "dense", "x", "w", "w"), r"dense \(Dense\): expects weight"),
]


@pytest.mark.parametrize(("graph", "complaint"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_malformed_network_is_told_where_and_what(graph: Graph, complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        verify(graph)


def test_a_forced_number_code_is_checked() -> None:
    b = Builder()
    pool = MaxPool(windows=Windows(kernel=(2, 2)))
    good = b.graph(b.add(pool, b.input("x", (4, 4, 1), CODE), name="pool"))
    assert good.types["pool"].quant == CODE
    bad = with_type(good, "pool", replace(good.types["pool"], quant=Quant(bits=8, scale=(0.25,))))
    with pytest.raises(GraphError, match=r"pool \(MaxPool\): keeps or fixes its number code"):
        verify(bad)


def test_scales_along_another_axis_than_the_output_channels_are_refused() -> None:
    graph = operation_graph(Seeded(0), Dense, Rounding.DOUBLE)
    (dense,) = graph.nodes
    kind = graph.types[dense.inputs[1]]
    taps = Quant(bits=8, scale=(1.0,) * kind.shape[1], axis=1)
    with pytest.raises(GraphError, match=r"\(Dense\): its weight has scales along axis 1, not 0"):
        verify(with_type(graph, dense.inputs[1], replace(kind, quant=taps)))


def test_an_operation_without_any_operand_is_refused() -> None:
    with pytest.raises(GraphError, match="takes 1 operands"):
        verify(with_inputs(layer(), "relu"))


@settings(max_examples=50, deadline=None)
@given(grown(any_graph))
def test_random_networks_are_well_formed_and_equal_to_themselves_alone(graph: Graph) -> None:
    assert verify(graph) is graph
    again = copied(graph)
    assert (again, hash(again)) == (graph, hash(graph))
    for changed in neighbours(graph):
        assert changed != graph
        assert changed.digest != graph.digest


def copied(graph: Graph) -> Graph:
    """The same description in other objects, types in another order."""
    return Graph(
        inputs=graph.inputs,
        outputs=graph.outputs,
        nodes=graph.nodes,
        types=dict(reversed(list(graph.types.items()))),
        constants={name: value.copy() for name, value in graph.constants.items()},
        rounding=graph.rounding,
    )


def neighbours(graph: Graph) -> list[Graph]:
    """Networks that differ in one thing."""
    others = [r for r in Rounding if r is not graph.rounding]
    found = [replace(graph, rounding=others[0]), replace(graph, outputs=(*graph.outputs, graph.inputs[0]))]
    for name, value in list(graph.constants.items())[:1]:
        bits = value.copy().view(np.uint8)
        bits[(0,) * bits.ndim] ^= 1
        found.append(replace(graph, constants={**graph.constants, name: bits.view(value.dtype)}))
    name, kind = next(iter(graph.types.items()))
    return [*found, with_type(graph, name, replace(kind, shape=(*kind.shape, 1)))]


def test_a_graph_cannot_be_changed_in_place() -> None:
    weight = np.ones((2, 3), np.float32)
    graph = replace(layer(), constants={"w": weight, "c": np.zeros(2, np.float32)})
    weight[0, 0] = 7
    assert graph.constants["w"][0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["w"][0, 0] = 7
    with pytest.raises(TypeError):
        graph.constants["w"] = weight  # type: ignore[index]  # this is the test
    with pytest.raises(TypeError):
        graph.types["x"] = float32(1)  # type: ignore[index]  # this is the test
    with pytest.raises(FrozenInstanceError):
        graph.outputs = ()  # type: ignore[misc]  # this is the test


def test_producers_readers_and_activations() -> None:
    graph = layer()
    dense, relu = graph.nodes
    assert graph.producers == {"dense": dense, "relu": relu}
    assert {name: [n.name for n in nodes] for name, nodes in graph.users.items()} == {
        "x": ["dense"],
        "w": ["dense"],
        "c": ["dense"],
        "dense": ["relu"],
        "relu": [],
    }
    assert graph.activations(dense) == ("x",)
    assert (graph.parameters, dict(graph.macs)) == (8, {"dense": 6, "relu": 0})


def test_only_networks_with_codes_are_integer() -> None:
    for seed in range(20):
        assert not float_graph(Seeded(seed)).is_integer
        assert integer_graph(Seeded(seed), Rounding.DOUBLE).is_integer
    b = Builder()
    assert not b.graph(b.input("x", (2,), CODE)).is_integer


def test_lowering_names_the_node_that_has_no_integers() -> None:
    b = Builder()
    x = b.add(Quantize(), b.input("x", (2,)), quant=CODE)
    graph = b.graph(b.add(Tanh(), x, name="curve"))
    with pytest.raises(GraphError, match=r"curve \(Tanh\): has a float operand where integers"):
        _ = graph.lowered


def test_operands_say_what_they_lack() -> None:
    with pytest.raises(GraphError, match="float operand"):
        Operand(type=float32(1)).code()
    with pytest.raises(GraphError, match="expects constant weights"):
        Operand(type=float32(1)).constant()


def test_the_builder_numbers_names_and_refuses_one_twice() -> None:
    b = Builder()
    x = b.input("x", (2,))
    assert [b.add(Relu(), x), b.add(Relu(), x), b.add(Tanh(), x)] == ["relu1", "relu2", "tanh1"]
    for again in (
        lambda: b.input("x", (2,)),
        lambda: b.constant("x", np.zeros(1)),
        lambda: b.add(Relu(), x, name="relu1"),
    ):
        with pytest.raises(GraphError, match="the name is used twice; rename one"):
            again()
    with pytest.raises(GraphError, match=r"wide \(Dense\): expects a vector"):
        b.add(Dense(), b.input("image", (2, 2, 1)), x, x, name="wide")


def test_the_builder_fills_in_codes_that_an_operation_forces() -> None:
    b = Builder()
    y = b.add(Softmax(), b.add(Reshape(shape=(4,)), b.input("x", (2, 2), CODE), name="flat"))
    graph = b.graph(y)
    assert graph.types["flat"].quant == CODE
    assert graph.types[y].quant == Quant(bits=8, scale=(1 / 256,), zero=(-128,))


def test_constants_are_stored_in_their_codes_type() -> None:
    b = Builder()
    rows = {"f": None, "i": CODE, "s": replace(CODE, bits=12), "w": replace(CODE, bits=32)}
    for name, quant in rows.items():
        b.constant(name, np.ones(3), quant)
    graph = b.graph(b.input("x", (1,)))
    stored = [graph.constants[name].dtype.name for name in rows]
    assert stored == ["float32", "int8", "int16", "int32"]


@pytest.mark.parametrize("op", [Add(), Concat()])
def test_a_constant_where_a_value_is_computed_is_refused(op: Op) -> None:
    """It has no batch axis; only weights are constants."""
    b = Builder()
    x, k = b.input("x", (2,)), b.constant("k", np.ones(2))
    with pytest.raises(GraphError, match=r"sum \(\w+\): '\w+' must be computed, but 'k' is a constant"):
        b.graph(b.add(op, x, k, name="sum"))


def test_editing_makes_another_graph() -> None:
    graph = layer()
    assert only_reader(graph, "dense") is graph.nodes[1]
    assert only_reader(graph, "relu") is None
    assert only_reader(replace(graph, outputs=("dense", "relu")), "dense") is None
    swapped = with_nodes(graph, {"relu": Node(name="relu", op=Relu6(), inputs=("dense",))})
    assert isinstance(verify(swapped).nodes[1].op, Relu6)
    short = rewire(with_nodes(graph, {"relu": None}), {"relu": "dense"})
    assert short.outputs == ("dense",)
    assert "relu" in short.types
    assert set(without_unused(short).types) == {"x", "w", "c", "dense"}
    chained = rewire(graph, {"relu": "middle", "middle": "dense"})
    assert chained.outputs == ("dense",)
    assert graph == layer()


@settings(max_examples=40, deadline=None)
@given(grown(float_graph))
def test_dropping_what_no_output_needs_changes_no_output(graph: Graph) -> None:
    slim = verify(without_unused(graph))
    x = np.random.default_rng(0).normal(size=(3, *graph.types["x"].shape)).astype(np.float32)
    assert np.array_equal(reference.run(slim, x), reference.run(graph, x))
    assert without_unused(slim) == slim
    read = {n for node in slim.nodes for n in node.inputs} | set(slim.outputs)
    assert set(slim.constants) | set(slim.producers) <= read


def test_an_input_of_another_shape_is_refused() -> None:
    with pytest.raises(GraphError, match=r"takes samples of shape \[3\], got \[4\]"):
        reference.run(layer(), np.zeros((2, 4)))


def test_float_inputs_of_an_integer_network_are_encoded_and_codes_are_taken_as_they_are() -> None:
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", (3,), CODE), quant=CODE))
    real = np.array([[-1.0, 0.26, 99.0]], np.float32)
    assert reference.run(graph, real).tolist() == [[0, 1, 127]]
    assert reference.run(graph, CODE.encode(real).astype(np.int64)).tolist() == [[0, 1, 127]]

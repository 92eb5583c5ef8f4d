"""Transpositions and constants: what they do to channels, firmware and training, and folding transpositions away."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import layers, remove
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Add, Concat, Constant, Conv2d, Dense, Mul, Reshape, Transpose, Windows
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant, affine
from crosslayer.execute import exact, reference
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.transposes import fold_transposes
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import check_exact, random_inputs
from crosslayer.testing.graphs import float_graph, integer_graph

POINT = Windows(kernel=(1, 1))


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


def inputs(graph: Graph) -> Array:
    return np.random.default_rng(0).normal(size=(4, *graph.types["x"].shape)).astype(np.float32)


def quantized(graph: Graph) -> Graph:
    return quantize(graph, reference.calibrate(graph, [inputs(graph)], exact.evaluate), Rounding.DOUBLE)


@pytest.mark.parametrize("permutation", [(0, 0), (1, 2), (0, 2), tuple(range(9))])
def test_a_permutation_names_each_axis_once(permutation: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"does not order axes 0, 1, … of at most 8 axes"):
        Transpose(permutation=permutation)


def test_a_transposition_is_that_of_numpy_in_floats_and_codes() -> None:
    for permutation in itertools.permutations(range(4)):
        b = Builder()
        code = Quant(bits=8, scale=(1.0,))
        graph = b.graph(b.add(Transpose(permutation=permutation), b.input("x", (2, 3, 4, 5), code)))
        x = random_inputs(graph, Seeded(0), 3)
        expected = x.transpose(0, *(axis + 1 for axis in permutation))
        np.testing.assert_array_equal(reference.run(graph, x), expected)
        op = graph.nodes[0].op
        np.testing.assert_array_equal(op.real(np, x.astype(np.float32)), expected.astype(np.float32))


def conv(b: Builder, x: str, out: int, inside: int, name: str) -> str:
    rng = np.random.default_rng(len(name))
    weight = b.constant(f"{name}.w", rng.normal(size=(out, 1, 1, inside)))
    return b.add(Conv2d(windows=POINT), x, weight, b.constant(f"{name}.b", rng.normal(size=out)), name=name)


def dense(b: Builder, x: str, out: int, name: str) -> str:
    rng = np.random.default_rng(len(name))
    weight = b.constant(f"{name}.w", rng.normal(size=(out, b.shape(x)[0])))
    return b.add(Dense(), x, weight, b.constant(f"{name}.b", rng.normal(size=out)), name=name)


@pytest.mark.parametrize(("permutation", "removable"), [((1, 0, 2), 6), ((2, 0, 1), 0)])
def test_channels_can_go_where_they_stay_the_last_axis(permutation: tuple[int, ...], removable: int) -> None:
    b = Builder()
    y = b.add(Transpose(permutation=permutation), conv(b, b.input("x", (4, 5, 3)), 6, 3, "first"))
    graph = b.graph(conv(b, y, 2, b.shape(y)[-1], "last"))
    found = {name: layer for layer in layers(graph) for name in layer.nodes}
    assert len(found["first"].channels if removable else ()) == removable
    if removable:
        smaller = remove(graph, found["first"].channels[:2])
        assert smaller.types["transpose1"].shape[-1] == 4
        reference.run(smaller, inputs(smaller))
    else:
        assert "first" not in found


def with_constants() -> Graph:
    """A constant added, multiplied and joined."""
    rng, b = np.random.default_rng(0), Builder()
    y = conv(b, b.input("x", (4, 5, 3)), 6, 3, "first")
    made = [b.add(Constant(), b.constant(f"c{i}", rng.normal(size=(4, 5, 6)))) for i in range(3)]
    y = b.add(Concat(), b.add(Mul(), b.add(Add(), y, made[0]), made[1]), made[2])
    return b.graph(conv(b, y, 2, 12, "last"))


def test_channels_of_a_constant_go_with_those_that_it_is_added_to() -> None:
    graph = with_constants()
    (first,) = [layer for layer in layers(graph) if "first" in layer.nodes]
    smaller = remove(graph, first.channels[:4])
    assert [smaller.constants[f"c{i}"].shape[-1] for i in range(3)] == [2, 2, 6]
    reference.run(smaller, inputs(smaller))


def test_constants_are_the_same_in_every_executor() -> None:
    graph = quantized(with_constants())
    x = random_inputs(graph, Seeded(0), 7)
    check_exact(graph, x)
    real = reference.run(with_constants(), inputs(with_constants()))
    codes = reference.run(graph, inputs(graph))
    quant = graph.types[graph.outputs[0]].quant
    assert quant is not None
    assert np.abs(quant.decode(codes) - real).max() < 6 * quant.scale[0]


def test_a_constant_and_its_result_have_one_code() -> None:
    b = Builder()
    name = b.constant("c", np.zeros(3), affine(-1.0, 1.0))
    graph = b.graph(b.add(Constant(), name, quant=affine(-1.0, 2.0)))
    with pytest.raises(GraphError, match="has another number code than its result; give both one code"):
        _ = graph.lowered


# folding


def image_to_dense(*, shared: bool = False) -> Graph:
    """An image flattened channels first, as exporters do, before one or two dense layers."""
    b = Builder()
    y = b.add(Transpose(permutation=(2, 0, 1)), b.input("x", (4, 5, 3)))
    y = b.add(Reshape(shape=(60,)), y)
    if not shared:
        return b.graph(dense(b, y, 7, "head"))
    rng = np.random.default_rng(0)
    constants = b.constant("w", rng.normal(size=(7, 60))), b.constant("c", rng.normal(size=7))
    return b.graph(b.add(Add(), *(b.add(Dense(), y, *constants) for _ in range(2))))


@pytest.mark.parametrize("graph", [image_to_dense(), image_to_dense(shared=True)], ids=["own", "shared"])
def test_a_transposition_before_a_dense_layer_becomes_an_order_of_its_columns(graph: Graph) -> None:
    folded = fold_transposes(graph)
    assert "Transpose" not in kinds(folded)
    np.testing.assert_allclose(
        reference.run(folded, inputs(graph)), reference.run(graph, inputs(graph)), rtol=1e-4, atol=1e-5
    )
    integer = quantized(graph)
    x = random_inputs(integer, Seeded(0), 5)
    folded = fold_transposes(integer)
    assert "Transpose" not in kinds(folded)
    np.testing.assert_array_equal(reference.run(folded, x), reference.run(integer, x))


def test_transpositions_that_cancel_or_move_nothing_are_gone() -> None:
    b = Builder()
    y = b.add(Transpose(permutation=(1, 2, 0)), b.input("x", (2, 3, 4)))
    y = b.add(Transpose(permutation=(2, 0, 1)), y)
    y = b.add(Reshape(shape=(1, 2, 12)), b.add(Reshape(shape=(24,)), y))
    y = b.add(Transpose(permutation=(1, 0, 2)), y)
    graph = b.graph(b.add(Reshape(shape=(2, 3, 4)), y))
    folded = fold_transposes(graph)
    assert (kinds(folded), folded.outputs) == ([], ("x",))


def test_a_transposition_that_something_else_reads_stays() -> None:
    b = Builder()
    y = b.add(Transpose(permutation=(2, 0, 1)), b.input("x", (4, 5, 3)))
    head = dense(b, b.add(Reshape(shape=(60,)), y), 7, "head")
    graph = b.graph(head, y)
    assert fold_transposes(graph) == graph


def turned(chance: Chance) -> Graph:
    """A random network, of floats or integers, after which the axes are turned around and reshaped at random."""
    rounding = chance.one_of((None, *Rounding))
    graph = float_graph(chance) if rounding is None else integer_graph(chance, rounding)
    b = Builder(graph.rounding)
    names = {name: b.input(name, graph.types[name].shape, graph.types[name].quant) for name in graph.inputs}
    for name, value in graph.constants.items():
        names[name] = b.constant(name, value, graph.types[name].quant)
    for node in graph.nodes:
        names[node.name] = b.add(
            node.op, *(names[n] for n in node.inputs), name=node.name, quant=graph.types[node.name].quant
        )
    y = names[graph.outputs[0]]
    for _ in range(chance.integer(1, 4)):
        shape = b.shape(y)
        if chance.rarely(2):
            order = chance.rng().permutation(len(shape)).tolist()
            y = b.add(Transpose(permutation=tuple(order)), y)
        else:
            size = math.prod(shape)
            side = chance.one_of([d for d in range(1, size + 1) if size % d == 0])
            y = b.add(Reshape(shape=chance.one_of(((size,), (side, size // side), (1, size // side, side)))), y)
    return b.graph(y)


@settings(max_examples=60, deadline=None)
@given(grown(turned))
def test_folding_keeps_every_byte(graph: Graph) -> None:
    x = random_inputs(graph, Seeded(0), 4)
    folded = fold_transposes(graph)
    with np.errstate(all="ignore"):  # the inputs hold infinities
        found, expected = reference.run(folded, x), reference.run(graph, x)
    assert len(folded.nodes) <= len(graph.nodes)
    if graph.is_integer:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_convolution_of_a_transposed_value_reads_it_in_its_new_order() -> None:
    """The result of a transposition lies in memory in its old order, which the fast executor must not trust."""
    rng, b = np.random.default_rng(0), Builder()
    code = Quant(bits=8, scale=(0.1,))
    x = b.add(Transpose(permutation=(2, 1, 0)), b.input("x", (3, 9, 7), code))
    taps = Quant(bits=8, scale=(0.01,))
    w = b.constant("w", rng.integers(-127, 128, (4, 3, 3, 3)), taps)
    c = b.constant("c", np.zeros(4), bias_code(code, taps))
    windows = Windows(kernel=(3, 3), padding=(1, 1, 1, 1))
    graph = b.graph(b.add(Conv2d(windows=windows), x, w, c, quant=Quant(bits=8, scale=(0.3,))))
    for count in (1, 5):
        codes = rng.integers(-128, 128, (count, 3, 9, 7)).astype(np.int8)
        assert np.array_equal(exact.run(graph, codes), reference.run(graph, codes))

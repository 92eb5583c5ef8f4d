"""Graphs as ONNX files: valid, the same function in ONNX Runtime, and the same codes when they are read back."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import OPS, AveragePool, BatchNorm, Constant, MaxPool, Relu
from crosslayer.core.quant import Array, Quant, affine
from crosslayer.execute import exact, reference
from crosslayer.networks.zoo import NETWORKS, network
from crosslayer.quantize.affine import quantize
from crosslayer.read.onnx import onnx_reading, read_onnx
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms
from crosslayer.testing.chance import Seeded
from crosslayer.testing.graphs import float_graph, has_integers, integer_graph, operation_graph
from crosslayer.write.onnx import write_onnx


def first(x: Array) -> Array:
    """Samples (batch, height, width, channels) with their channels first; any others as they are."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def runtime(raw: bytes, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(raw, options)
    return session.run(None, {session.get_inputs()[0].name: first(x)})[0]


def inputs(graph: Graph, seed: int) -> Array:
    kind, rng = graph.types[graph.inputs[0]], np.random.default_rng(seed)
    real = rng.normal(size=(5, *kind.shape)).astype(np.float32)
    return real if kind.quant is None else kind.quant.encode(real * kind.quant.scale[0] * 60)


def runs(graph: Graph) -> bool:
    """ONNX Runtime refuses pools whose padding is as large as their kernel, which ONNX allows."""
    windows = [node.op.windows for node in graph.nodes if isinstance(node.op, (AveragePool, MaxPool))]
    return all(max(w.padding[:2]) < w.kernel[0] and max(w.padding[2:]) < w.kernel[1] for w in windows)


def varies(graph: Graph) -> bool:
    """Whether the output depends on the input; else it has no batch axis when it is read back."""
    reached = set(graph.inputs)
    for node in graph.nodes:
        if reached.intersection(node.inputs):
            reached.add(node.name)
    return graph.outputs[0] in reached


def read_back(raw: bytes, graph: Graph, x: Array) -> Array:
    onnx.checker.check_model(onnx.load_model_from_string(raw), full_check=True)
    reading = onnx_reading(raw, graph.rounding)
    return reading.results[0].tensor(reference.run(reading.graph, reading.source.stored(first(x))))


def short_bias(graph: Graph, node: Node) -> bool:
    """Whether a layer on 16 bits has a bias of 32: ONNX cannot say by which of two rules it rounds."""
    codes = [graph.types[name].quant for name in node.inputs]
    return node.op.channel_axis is not None and [q.bits for q in (codes[0], codes[2]) if q is not None] == [16, 32]


def written(graphs: Iterator[Graph], count: int) -> Iterator[tuple[Graph, bytes]]:
    """The first graphs whose codes ONNX can say and whose output depends on the input."""
    for graph in graphs:
        if count == 0:
            return
        try:
            raw = write_onnx(graph)
        except GraphError:
            continue
        if varies(graph):
            yield graph, raw
            count -= 1


def close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))


def test_random_float_networks_compute_the_same_in_onnx_runtime_and_when_read_back() -> None:
    for seed in range(40):
        graph = float_graph(Seeded(seed))
        x, raw = inputs(graph, seed), write_onnx(graph)
        expected = first(reference.run(graph, x))
        if varies(graph):
            close(read_back(raw, graph, x), expected)
        if runs(graph):
            close(runtime(raw, x), expected)


def test_random_integer_networks_have_the_same_codes_when_read_back() -> None:
    graphs = (integer_graph(Seeded(seed), tuple(Rounding)[seed % 3]) for seed in range(1000))
    usual = (graph for graph in graphs if not any(short_bias(graph, node) for node in graph.nodes))
    for i, (graph, raw) in enumerate(written(usual, 25)):
        x = inputs(graph, i)
        expected = first(reference.run(graph, x))
        found = read_back(raw, graph, x)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("op", [op for op in OPS if has_integers(op) and op is not Constant])
def test_an_operation_is_at_most_one_code_away_from_onnx_runtime(op: type[Op]) -> None:
    graphs = (operation_graph(Seeded(seed), op, Rounding.DOUBLE) for seed in range(400))
    alone = (graph for graph in graphs if sum(not n.op.is_view for n in graph.nodes) <= 1)
    for i, (graph, raw) in enumerate(written(alone, 6)):
        if runs(graph):
            x = inputs(graph, i)
            away = runtime(raw, x).astype(np.float64) - first(reference.run(graph, x)).astype(np.float64)
            steps = 1 if graph.types[graph.outputs[0]].quant is not None else 1e-6
            assert np.abs(away).max() <= steps, graph.nodes


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_quantized_network_has_the_same_bytes_when_read_back_and_nearly_in_onnx_runtime(name: str) -> None:
    graph = network(name, (12,) if name == "autoencoder" else (32, 32, 3), 3, 0)
    slim = fuse_activations(fold_norms(graph))
    x = np.random.default_rng(0).normal(size=(8, *graph.types["input"].shape)).astype(np.float32)
    integer = quantize(slim, reference.calibrate(slim, [x], exact.evaluate), Rounding.DOUBLE)
    raw = write_onnx(integer)
    codes = reference.encode_input(integer, x)
    expected = exact.run(integer, codes)
    assert len(read_onnx(raw).nodes) == len(integer.nodes)
    np.testing.assert_array_equal(exact.run(read_onnx(raw), codes), expected)
    away = runtime(raw, codes).astype(int) - first(expected)
    assert np.abs(away).max() <= 4  # of layers, each at most one code away


def test_a_normalization_of_a_sequence_is_written_along_its_last_axis() -> None:
    b = Builder()
    rng = np.random.default_rng(0)
    constants = [b.constant(n, v) for n, v in zip("gbmv", rng.uniform(1, 2, (4, 3)), strict=True)]
    graph = b.graph(b.add(BatchNorm(), b.input("x", (5, 3)), *constants))
    x = inputs(graph, 0)
    close(runtime(write_onnx(graph), x), reference.run(graph, x))


def test_codes_that_onnx_lacks_are_refused() -> None:
    b = Builder()
    code = Quant(bits=5, scale=(1.0,))
    graph = b.graph(b.add(Relu(), b.input("x", (3,), code), quant=code))
    with pytest.raises(GraphError, match=r"relu1 \(Relu\): has activations of 5 bits; ONNX has 8 and 16"):
        write_onnx(graph)


def test_the_same_graph_gives_the_same_bytes() -> None:
    b = Builder()
    code = affine(-1.0, 2.0)
    graph = b.graph(b.add(Relu(), b.input("x", (3,), code), quant=code))
    assert write_onnx(graph) == write_onnx(graph)

"""Accuracy and loss of variants of a network, with what they have in common computed once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import layers, remove, together
from crosslayer.core.graph.edit import between
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Softmax
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.networks.zoo import network
from crosslayer.prune.variants import Quality, qualities
from crosslayer.testing.chance import Seeded
from crosslayer.testing.datasets import small_dataset
from crosslayer.testing.graphs import float_graph

NETWORKS = {"lenet5": (12, 12, 1), "resnet8": (12, 12, 1), "mobilenet": (12, 12, 1), "vgg11": (32, 32, 1)}


def bench(cache: Path | None = None) -> Bench:
    return Bench(data=small_dataset(side=8, channels=1), seed=0, executor=reference.run, cache=cache)


def samples(graph: Graph, count: int) -> Split:
    rng = np.random.default_rng(1)
    shape = graph.types[graph.inputs[0]].shape
    classes = graph.types[graph.outputs[0]].size
    return Split(codes=rng.normal(size=(count, *shape)).astype(np.float32), labels=rng.integers(0, classes, count))


def without_one(graph: Graph) -> list[Graph]:
    """A channel of each layer removed."""
    return [remove(graph, some) for layer in layers(graph) if (some := together(graph, layer.channels[:1]))]


def one_by_one(graph: Graph, variants: Sequence[Graph], split: Split) -> list[tuple[float, float]]:
    """Accuracy and cross-entropy, the latter by PyTorch's own function of logarithms."""
    return [(bench().accuracy(each, split), cross_entropy(each, split)) for each in (graph, *variants)]


def cross_entropy(graph: Graph, split: Split) -> float:
    outputs = torch.from_numpy(reference.run(graph, split.real()).astype(np.float64))
    labels = torch.from_numpy(split.labels)
    if isinstance(graph.producers[graph.outputs[0]].op, Softmax):
        return float(F.nll_loss(outputs.clamp(min=1e-12).log(), labels))
    return float(F.cross_entropy(outputs, labels))


def assert_equal(found: Sequence[Quality], wanted: Sequence[tuple[float, float]]) -> None:
    assert [one.accuracy for one in found] == [accuracy for accuracy, _ in wanted]
    assert [one.loss for one in found] == pytest.approx([loss for _, loss in wanted], rel=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_variants_are_as_accurate_as_when_run_alone(name: str) -> None:
    graph = network(name, NETWORKS[name], 5, 0)
    split = samples(graph, 20)
    variants = without_one(graph)
    first = next(node for node in graph.nodes if node.op.channel_axis is not None).inputs[1]
    changed = replace(graph, constants={**graph.constants, first: -graph.constants[first]})
    variants = [*variants, changed, graph]
    assert_equal(qualities(graph, variants, split, bench()), one_by_one(graph, variants, split))


def test_variants_of_random_networks_too() -> None:
    tried = 0
    for seed in range(40):
        graph = float_graph(Seeded(seed))
        if len(graph.types[graph.outputs[0]].shape) == 1 and (variants := without_one(graph)):
            split = samples(graph, 6)
            assert_equal(qualities(graph, variants, split, bench()), one_by_one(graph, variants, split))
            tried += 1
    assert tried > 10


class Counting:
    """An executor that knows how many nodes it has run."""

    def __init__(self) -> None:
        self.nodes = 0

    def __call__(self, graph: Graph, x: Array) -> Array:
        self.nodes += len(graph.nodes)
        return reference.run(graph, x)


def test_what_comes_before_a_change_is_computed_once() -> None:
    graph = network("lenet5", NETWORKS["lenet5"], 5, 0)
    variants = without_one(graph)
    counting = Counting()
    qualities(graph, variants, samples(graph, 8), replace(bench(), executor=counting))
    assert counting.nodes < 0.75 * len(graph.nodes) * (len(variants) + 1)


def test_processes_and_the_cache_change_nothing(tmp_path: Path) -> None:
    graph = network("lenet5", NETWORKS["lenet5"], 5, 0)
    variants, split = without_one(graph), samples(graph, 600)
    alone = qualities(graph, variants, split, bench())
    with joblib.parallel_config(n_jobs=2):
        assert qualities(graph, variants, split, bench(tmp_path)) == alone
    assert len(list(tmp_path.iterdir())) == 3
    counting = Counting()
    assert qualities(graph, variants, split, replace(bench(tmp_path), executor=counting)) == alone
    assert counting.nodes == 0
    next(tmp_path.iterdir()).write_text("[[1, 2]]")
    assert qualities(graph, variants, split, replace(bench(tmp_path), executor=counting)) == alone
    assert counting.nodes > 0


def test_between_computes_what_lies_between() -> None:
    graph = network("lenet5", NETWORKS["lenet5"], 5, 0)
    x = samples(graph, 3).real()
    values = reference.trace(graph, x)
    names = [graph.inputs[0], *(node.name for node in graph.nodes)]
    for start, end in ((0, 3), (2, 6), (4, len(names) - 1)):
        part = between(graph, names[start], names[end])
        assert np.array_equal(reference.run(part, values[names[start]]), values[names[end]])

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.channels import layers
from crosslayer.core.score import wilson
from crosslayer.execute.torch import run
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.prune.channels import PruneChannels
from crosslayer.prune.cost import Cost
from crosslayer.prune.importance import magnitude


def blobs(seed: int, count: int) -> Split:
    """Four classes of 8×8 images: a bright quadrant in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.normal(0, 0.5, (count, 8, 8, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 1
    return Split(codes=images, labels=labels.astype(np.int64))


@pytest.fixture(scope="module")
def bench() -> Bench:
    data = Dataset(
        name="blobs", train=blobs(0, 512), validation=blobs(1, 256), test=blobs(2, 64), classes=("a", "b", "c", "d")
    )
    return Bench(data=data, seed=3, executor=run)


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Design:
    fresh = Design(graph=network("lenet5", bench.data.shape, 4, 0), target=load_target("stm32f769"))
    return Train(epochs=4, batch=32)(fresh, bench)


def test_pruning_keeps_the_accuracy_constraint_and_tells_every_step(bench: Bench, trained: Design) -> None:
    stage = PruneChannels(step=0.3, drop=0.02, keep=0.2, samples=128, batch=32)
    pruned = stage(trained, bench)
    steps = pruned.trail[-1].notes["trajectory"]
    limit = bench.accuracy(trained.graph, bench.data.validation) - 0.02
    assert bench.accuracy(pruned.graph, bench.data.validation) >= limit
    assert 0.2 * trained.graph.parameters <= pruned.graph.parameters < 0.8 * trained.graph.parameters
    kept = [step for step in steps if step["kept"]]
    assert [s["parameters"] for s in kept] == sorted((s["parameters"] for s in kept), reverse=True)
    assert kept[-1]["parameters"] == pruned.graph.parameters
    assert all((step["accuracy"] >= limit) == step["kept"] for step in steps)


def test_pruning_twice_with_one_seed_gives_one_result(bench: Bench, trained: Design) -> None:
    stage = PruneChannels(step=0.4, keep=0.4, samples=64, batch=32)
    assert stage(trained, bench).graph == stage(trained, bench).graph


def test_an_interrupted_pruning_goes_on_where_it_stopped(bench: Bench, trained: Design, tmp_path: Path) -> None:
    stage = PruneChannels(step=0.4, keep=0.4, samples=64, batch=32)
    whole = stage(trained, bench)
    saved = replace(bench, scratch=tmp_path)
    assert stage(trained, saved).graph == whole.graph
    resumed = stage(trained, saved)  # takes the last step from its scratch folder
    assert resumed.graph == whole.graph
    assert resumed.trail[-1].notes == whole.trail[-1].notes


def test_a_step_that_breaks_the_constraint_is_taken_back(bench: Bench, trained: Design) -> None:
    stage = PruneChannels(step=0.97, epochs=0, drop=0.0, keep=0.001, samples=64, patience=2)
    pruned = stage(trained, bench)
    undone = [step for step in pruned.trail[-1].notes["trajectory"] if not step["kept"]]
    assert undone
    assert len({step["layer"] for step in undone}) == len(undone)
    assert bench.accuracy(pruned.graph, bench.data.validation) >= bench.accuracy(trained.graph, bench.data.validation)


def test_costs_prefer_what_saves_more_at_equal_drop(trained: Design) -> None:
    big = network("lenet5", (8, 8, 1), 4, 0)
    small = network("lenet5", (8, 8, 1), 3, 0)
    assert Cost.ACCURACY(big, small, 0.25) == 0.25
    for cost in (Cost.PARAMETERS, Cost.MACS):
        assert cost(big, small, 0.01) < cost(big, big, 0.01)
        assert cost(big, small, 0.01) < cost(big, small, 0.02)


def test_the_channel_of_the_smallest_weights_matters_least(trained: Design) -> None:
    graph = trained.graph
    layer = layers(graph)[0]
    weight = graph.constants["conv1.weight"].copy()
    weight[3] *= 1e-3
    changed = replace(graph, constants={**graph.constants, "conv1.weight": weight})
    assert int(np.argmin(magnitude(changed, layer))) == 3


def test_integers_are_not_pruned(bench: Bench, trained: Design) -> None:
    from crosslayer.quantize.affine import QuantizeAffine

    with pytest.raises(GraphError, match="before quantization"):
        PruneChannels()(QuantizeAffine(samples=32)(trained, bench), bench)


def test_the_wilson_interval_holds_the_share() -> None:
    low, high = wilson(990, 1000)
    assert 0.98 < low < 0.99 < high < 0.995
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0

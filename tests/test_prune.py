from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.channels import layers, remove
from crosslayer.core.graph.ops import Add, Concat, Conv2d, Dense, Reshape, Windows
from crosslayer.core.score import wilson
from crosslayer.execute.torch import run
from crosslayer.execute.training import Training
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.prune.channels import PruneChannels, Schedule
from crosslayer.prune.importance import Importance
from crosslayer.prune.search import SearchPruning

UNTUNED = Training(epochs=0)
TUNED = Training(epochs=1, batch=32, rate=1e-3, decay=0.0)


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
    stage = PruneChannels(step=0.3, drop=0.02, keep=0.2, samples=128, tuning=TUNED)
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
    stage = PruneChannels(step=0.4, keep=0.4, samples=64, tuning=TUNED)
    assert stage(trained, bench).graph == stage(trained, bench).graph


def test_an_interrupted_pruning_goes_on_where_it_stopped(bench: Bench, trained: Design, tmp_path: Path) -> None:
    stage = PruneChannels(step=0.4, keep=0.4, samples=64, tuning=TUNED)
    whole = stage(trained, bench)
    saved = replace(bench, scratch=tmp_path)
    assert stage(trained, saved).graph == whole.graph
    resumed = stage(trained, saved)  # takes the last step from its scratch folder
    assert resumed.graph == whole.graph
    assert resumed.trail[-1].notes == whole.trail[-1].notes


def test_a_step_that_breaks_the_constraint_is_taken_back(bench: Bench, trained: Design) -> None:
    stage = PruneChannels(step=0.97, tuning=UNTUNED, drop=0.0, keep=0.001, samples=64, patience=2)
    pruned = stage(trained, bench)
    undone = [step for step in pruned.trail[-1].notes["trajectory"] if not step["kept"]]
    assert undone
    assert len({step["layer"] for step in undone}) == len(undone)
    assert bench.accuracy(pruned.graph, bench.data.validation) >= bench.accuracy(trained.graph, bench.data.validation)


@pytest.mark.parametrize("importance", [i for i in Importance if i is not Importance.BATCH_NORM])
def test_every_importance_prunes(bench: Bench, trained: Design, importance: Importance) -> None:
    stage = PruneChannels(step=0.5, tuning=UNTUNED, drop=1.0, keep=0.3, importance=importance, evidence=40, samples=64)
    pruned = stage(trained, bench)
    assert pruned.graph.parameters < 0.8 * trained.graph.parameters
    assert stage(trained, bench).graph == pruned.graph


@pytest.mark.parametrize(
    "importance", [Importance.TAYLOR, Importance.FISHER, Importance.ACTIVATION, Importance.ATTRIBUTION]
)
def test_what_matters_least_is_missed_least(bench: Bench, trained: Design, importance: Importance) -> None:
    """Half the channels of every layer, the least or the most important ones, without learning afterwards."""
    graph = trained.graph
    found = layers(graph)
    scores = importance(graph, found, bench.data.train.take(slice(0, 200)))
    reached: list[float] = []
    for sign in (1, -1):
        order = [np.argsort(sign * s, kind="stable")[: len(s) // 2] for s in scores]
        doomed = [layer.channels[i] for layer, some in zip(found, order, strict=True) for i in some]
        reached.append(bench.accuracy(remove(graph, doomed), bench.data.validation))
    assert reached[0] > reached[1] + 0.1


def test_scales_of_norms_prune_what_has_norms_and_nothing_else(bench: Bench, trained: Design) -> None:
    stage = PruneChannels(step=0.5, tuning=UNTUNED, drop=1.0, keep=0.9, importance=Importance.BATCH_NORM, samples=16)
    with pytest.raises(GraphError, match=r"no batch normalization .* choose other importance"):
        stage(trained, bench)
    normed = replace(trained, graph=network("dscnn", bench.data.shape, 4, 0))
    assert stage(normed, bench).graph.parameters < normed.graph.parameters


def test_the_cost_decides_which_layer_goes_first(bench: Bench, trained: Design) -> None:
    """Convolutions hold the work and the largest values, the first dense layer the weights."""
    first: dict[str, str] = {}
    for cost in ("0 * drop - parameters", "0 * drop - macs", "0 * drop - ram"):
        stage = PruneChannels(step=0.3, tuning=UNTUNED, drop=1.0, keep=0.7, samples=16, cost=cost)
        _, step, *_ = stage(trained, bench).trail[-1].notes["trajectory"]
        first[cost.split()[-1]] = step["layer"]
    assert first == {"parameters": "fc1", "macs": "conv1", "ram": "conv1"}


def test_energy_as_a_cost_needs_a_target_with_a_power_figure(bench: Bench, trained: Design) -> None:
    board = replace(trained, target=replace(trained.target, active_power=None))
    with pytest.raises(InputError, match="no power figure of stm32f769 is known"):
        PruneChannels(cost="drop / energy")(board, bench)


def test_a_layer_whose_parts_are_joined_never_loses_one_of_them(bench: Bench) -> None:
    """A one-channel part is spared, however little it matters."""
    b = Builder()
    x = b.input("x", bench.data.shape)
    parts = [conv(b, "a", x, 1, 0.0), conv(b, "b", x, 5, 1.0)]
    y = b.add(Add(), conv(b, "c", x, 6, 1.0), b.add(Concat(), *parts))
    flat = b.add(Reshape(shape=(8 * 8 * 6,)), y)
    graph = b.graph(b.add(Dense(), flat, b.constant("w", np.ones((4, 8 * 8 * 6))), b.constant("v", np.zeros(4))))
    design = Design(graph=graph, target=load_target("stm32f769"))
    pruned = PruneChannels(step=0.5, tuning=UNTUNED, drop=1.0, keep=0.1, samples=16)(design, bench)
    assert [pruned.graph.types[name].shape[-1] for name in "abc"] == [1, 1, 2]


def conv(b: Builder, name: str, x: str, out: int, weight: float) -> str:
    w = b.constant(f"{name}.w", np.full((out, 1, 1, 1), weight))
    return b.add(Conv2d(windows=Windows(kernel=(1, 1))), x, w, b.constant(f"{name}.b", np.zeros(out)), name=name)


@pytest.mark.parametrize("schedule", [Schedule.GRADUAL, Schedule.ONE_SHOT])
def test_rounds_follow_their_curve_and_tune_between(bench: Bench, trained: Design, schedule: Schedule) -> None:
    stage = PruneChannels(
        schedule=schedule, rounds=3, step=0.1, drop=1.0, keep=0.3, of="macs", samples=64, tuning=TUNED
    )
    pruned = stage(trained, bench)
    goals = [entry["goal"] for entry in pruned.trail[-1].notes["trajectory"][1:]]
    expected = {Schedule.GRADUAL: [0.3 + 0.7 * (2 / 3) ** 3, 0.3 + 0.7 / 27, 0.3], Schedule.ONE_SHOT: [0.3]}
    assert goals == pytest.approx(expected[schedule])
    share = sum(pruned.graph.macs.values()) / sum(trained.graph.macs.values())
    assert 0.3 <= share < 0.36
    untuned = replace(stage, tuning=UNTUNED)(trained, bench)
    reached = [bench.accuracy(design.graph, bench.data.validation) for design in (pruned, untuned)]
    assert reached[0] > reached[1]


@pytest.mark.parametrize("schedule", [Schedule.GRADUAL, Schedule.ONE_SHOT])
def test_a_round_that_breaks_the_constraint_is_tried_half_as_far(
    bench: Bench, trained: Design, schedule: Schedule
) -> None:
    stage = PruneChannels(schedule=schedule, rounds=2, drop=0.01, keep=0.01, patience=3, samples=64, tuning=UNTUNED)
    pruned = stage(trained, bench)
    notes = pruned.trail[-1].notes
    first, second, *_ = [entry for entry in notes["trajectory"] if not entry["kept"]]
    held = [
        e.get("goal", 1.0)
        for e in notes["trajectory"]
        if e["kept"] and notes["trajectory"].index(e) < notes["trajectory"].index(second)
    ]
    assert second["goal"] == pytest.approx((first["goal"] + held[-1]) / 2)
    assert bench.accuracy(pruned.graph, bench.data.validation) >= notes["limit"]


def test_an_interrupted_round_goes_on_where_it_stopped(bench: Bench, trained: Design, tmp_path: Path) -> None:
    stage = PruneChannels(schedule=Schedule.GRADUAL, rounds=2, step=0.3, drop=1.0, keep=0.4, samples=64, tuning=TUNED)
    whole = stage(trained, bench)
    saved = replace(bench, scratch=tmp_path / "scratch", cache=tmp_path / "cache")
    (tmp_path / "scratch").mkdir()
    assert stage(trained, saved) == whole
    assert stage(trained, saved) == whole


def test_layers_keep_what_kernels_take_at_once(bench: Bench, trained: Design) -> None:
    stage = PruneChannels(step=0.2, drop=1.0, keep=0.3, multiple=0, samples=64, tuning=UNTUNED)
    pruned = stage(trained, bench)
    for name in ("conv1", "conv2", "fc1", "fc2"):
        before, after = (design.graph.types[name].shape[-1] for design in (trained, pruned))
        assert after in (before, *range(4, before, 4), *range(1, 4))
    assert pruned.graph.parameters < trained.graph.parameters


def test_a_pruned_network_learns_from_the_one_before(bench: Bench, trained: Design) -> None:
    alone = PruneChannels(step=0.5, drop=1.0, keep=0.5, samples=64, tuning=TUNED)
    taught = replace(alone, tuning=replace(TUNED, distill=1.0))
    x = bench.data.validation.real()
    wanted = np.log(run(trained.graph, x) + 1e-9)
    apart = [np.abs(np.log(run(stage(trained, bench).graph, x) + 1e-9) - wanted).mean() for stage in (alone, taught)]
    assert apart[1] < apart[0]


def test_the_search_keeps_the_smallest_network_that_holds(bench: Bench, trained: Design, tmp_path: Path) -> None:
    pruning = PruneChannels(drop=0.02, keep=0.2, samples=64, tuning=TUNED)
    stage = SearchPruning(pruning=pruning, steps=(0.2, 0.4), epochs=(0, 1), least="macs")
    pruned = stage(trained, replace(bench, scratch=tmp_path))
    notes = pruned.trail[-1].notes
    assert len(notes["trials"]) == 4
    macs = sum(pruned.graph.macs.values())
    assert notes["trials"][notes["chosen"]]["macs"] == macs == min(trial["macs"] for trial in notes["trials"])
    assert bench.accuracy(pruned.graph, bench.data.validation) >= notes["limit"]
    again = stage(trained, replace(bench, scratch=tmp_path))  # from what each trial left there
    assert again == pruned


def test_integers_are_not_pruned(bench: Bench, trained: Design) -> None:
    from crosslayer.quantize.affine import QuantizeAffine

    with pytest.raises(GraphError, match="before quantization"):
        PruneChannels()(QuantizeAffine(samples=32)(trained, bench), bench)


def test_the_wilson_interval_holds_the_share() -> None:
    low, high = wilson(990, 1000)
    assert 0.98 < low < 0.99 < high < 0.995
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0

"""Single weights that are zero, and stay it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, save_design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.stage import Stage
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import FineTune
from crosslayer.networks.zoo import network
from crosslayer.prune.weights import PruneWeights
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.equalize import Equalize
from crosslayer.quantize.precision import Precision
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms
from crosslayer.testing.stages import small_bench

UNTUNED = Training(epochs=0)
ONCE = Training(epochs=1, batch=32, rate=1e-3, decay=0.0)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return small_bench()


def fresh(bench: Bench, name: str = "dscnn") -> Design:
    return Design(graph=network(name, bench.data.shape, 4, 0), target=load_target("stm32f769"))


def weights(graph: Graph) -> dict[str, Array]:
    """By node, each (output channels, the rest)."""
    found: dict[str, Array] = {}
    for node in graph.nodes:
        axis = node.op.channel_axis
        if axis is not None:
            value = graph.constants[node.inputs[1]]
            found[node.name] = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
    return found


@pytest.mark.parametrize("name", ["dscnn", "lenet5"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_smallest_weights_of_all_layers_go(bench: Bench, name: str, share: float) -> None:
    before = fresh(bench, name)
    after = PruneWeights(zeros=share, rounds=1, drop=1.0, tuning=UNTUNED)(before, bench)
    old = np.concatenate([rows.ravel() for rows in weights(before.graph).values()])
    new = np.concatenate([rows.ravel() for rows in weights(after.graph).values()])
    gone = new == 0
    assert gone.mean() == pytest.approx(share, abs=1e-3)
    assert np.array_equal(new[~gone], old[~gone])
    assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()


@pytest.mark.parametrize(("pattern", "keep", "every"), [("2:4", 2, 4), ("1:8", 1, 8), ("3:5", 3, 5)])
def test_of_every_few_weights_the_largest_stay(bench: Bench, pattern: str, keep: int, every: int) -> None:
    before = fresh(bench)
    after = PruneWeights(pattern=pattern, drop=1.0, tuning=ONCE)(before, bench)
    untuned = PruneWeights(pattern=pattern, drop=1.0, tuning=UNTUNED)(before, bench)
    for name, rows in weights(untuned.graph).items():
        assert np.array_equal(weights(after.graph)[name] != 0, rows != 0)
        for start in range(0, rows.shape[1], every):
            old, new = weights(before.graph)[name][:, start : start + every], rows[:, start : start + every]
            assert ((new != 0).sum(1) == min(keep, new.shape[1])).all()
            assert np.allclose(np.sort(np.abs(old))[:, -keep:].sum(1), np.abs(new).sum(1))


def test_no_layer_loses_all_weights(bench: Bench) -> None:
    design = fresh(bench)
    constants = {n: v * (1e-6 if n == "block2_point.weight" else 1) for n, v in design.graph.constants.items()}
    design = replace(design, graph=replace(design.graph, constants=constants))
    after = PruneWeights(zeros=0.9, rounds=1, drop=1.0, tuning=UNTUNED)(design, bench)
    assert all(rows.any() for rows in weights(after.graph).values())


def test_rounds_end_before_the_one_that_costs_too_much(bench: Bench) -> None:
    trained = fit(
        fresh(bench, "lenet5").graph, bench.data.train, replace(ONCE, epochs=4), seed=0, progress=bench.progress
    )
    design = replace(fresh(bench), graph=trained)
    after = PruneWeights(zeros=0.999, rounds=4, drop=0.02, tuning=UNTUNED)(design, bench)
    notes = after.trail[-1].notes
    *kept, last = notes["trajectory"]
    assert all(entry["kept"] for entry in kept)
    assert not last["kept"]
    assert (
        bench.accuracy(after.graph, bench.data.validation) == kept[-1]["accuracy"] >= notes["limit"] > last["accuracy"]
    )


def test_a_killed_run_goes_on_after_its_last_round(bench: Bench, tmp_path: Path) -> None:
    stage = PruneWeights(zeros=0.5, rounds=2, drop=1.0, tuning=ONCE)
    whole = stage(fresh(bench), bench)
    saved = replace(bench, scratch=tmp_path)
    assert stage(fresh(bench), saved) == whole
    assert stage(fresh(bench), saved) == whole


FLOAT: tuple[Stage, ...] = (FoldNorms(), FuseActivations())
LATER: dict[str, tuple[Stage, ...]] = {
    "tuned": (FineTune(epochs=1, batch=32),),
    "simplified": FLOAT,
    "equalized": (*FLOAT, Equalize()),
    "quantized": (*FLOAT, QuantizeAffine(samples=32)),
    "4 bits": (*FLOAT, QuantizeAffine(samples=32, precision=Precision(weights=4), correct_biases=True)),
    "rounding learned": (*FLOAT, QuantizeAffine(samples=32, precision=Precision(weights=3), learn_rounding=True)),
    "trained for it": (*FLOAT, QuantizeAware(start=QuantizeAffine(samples=32), training=ONCE)),
}


@pytest.mark.parametrize("later", LATER)
def test_what_is_pruned_stays_so(bench: Bench, later: str) -> None:
    pruned = PruneWeights(zeros=0.7, rounds=1, drop=1.0, tuning=ONCE)(fresh(bench), bench)
    design = pruned
    for stage in LATER[later]:
        design = stage(design, bench)
    after = weights(design.graph)
    for name, rows in weights(pruned.graph).items():
        assert not after[name][rows == 0].any(), name


def test_weights_that_are_all_zero_are_learned(bench: Bench) -> None:
    graph = fresh(bench, "lenet5").graph
    graph = replace(graph, constants={**graph.constants, "logits.weight": graph.constants["logits.weight"] * 0})
    tuned = fit(graph, bench.data.train, ONCE, seed=0, progress=bench.progress)
    assert (tuned.constants["logits.weight"] != 0).mean() > 0.5  # others come from channels that are dark


def test_integers_are_not_pruned(bench: Bench) -> None:
    design: Any = fresh(bench, "lenet5")
    for stage in (*FLOAT, QuantizeAffine(samples=32)):
        design = stage(design, bench)
    with pytest.raises(GraphError, match="before quantization"):
        PruneWeights()(design, bench)


def test_a_tuned_network_learns_from_the_folder_of_another(bench: Bench, tmp_path: Path) -> None:
    """Though all labels that it is given are one class."""
    design = fresh(bench, "lenet5")
    training = Training(epochs=8, batch=16, rate=2e-3, decay=0.0)
    taught = fit(design.graph, bench.data.train, training, seed=0, progress=bench.progress)
    save_design(replace(design, graph=taught), tmp_path / "teacher")
    wrong = replace(bench.data.train, labels=np.zeros_like(bench.data.train.labels))
    blind = replace(bench, data=replace(bench.data, train=wrong))
    stage = FineTune(epochs=8, batch=16, rate=2e-3, distill=1.0, teacher=str(tmp_path / "teacher"))
    student, before = (
        bench.accuracy(graph, bench.data.validation) for graph in (stage(design, blind).graph, design.graph)
    )
    assert student > before + 0.2


def test_a_teacher_of_another_task_is_refused(bench: Bench, tmp_path: Path) -> None:
    other = Design(graph=network("lenet5", bench.data.shape, 7, 0), target=load_target("stm32f769"))
    save_design(other, tmp_path / "teacher")
    stage = FineTune(epochs=1, batch=32, distill=0.5, teacher=str(tmp_path / "teacher"))
    with pytest.raises(GraphError, match="same inputs and classes"):
        stage(fresh(bench, "lenet5"), bench)


def test_tuning_that_harms_is_taken_back(bench: Bench) -> None:
    """A network that was taught well meets labels that are all one class."""
    design = fresh(bench, "lenet5")
    training = Training(epochs=8, batch=16, rate=2e-3, decay=0.0)
    taught = replace(design, graph=fit(design.graph, bench.data.train, training, seed=0, progress=bench.progress))
    wrong = replace(bench.data.train, labels=np.zeros_like(bench.data.train.labels))
    after = FineTune(epochs=4, batch=16, rate=2e-3)(taught, replace(bench, data=replace(bench.data, train=wrong)))
    assert after.trail[-1].notes["kept"] is False
    assert after.graph == taught.graph
    assert FineTune(epochs=4, batch=16)(design, bench).trail[-1].notes["kept"] is True

"""Training against attacks and with interval bounds does what it says, on any network and in integers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Split
from crosslayer.core.design import Design
from crosslayer.core.errors import DataError, GraphError, InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import OPS, BatchNorm, HardSwish, LeakyRelu, Softmax
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.execute.adversary import Adversary, Method
from crosslayer.execute.straight import StraightThrough
from crosslayer.execute.torch import GraphModule, Learner, Tensor, to_torch
from crosslayer.execute.torch_intervals import certified_accuracy, certified_loss, interval
from crosslayer.execute.torch_robust import (
    Reach,
    adversarial_loss,
    attackable,
    climb,
    collapsed,
    one_hot,
    robust_accuracy,
)
from crosslayer.execute.torch_training import train
from crosslayer.execute.training import Training
from crosslayer.flow import RECIPE, rehearse
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.adversarial import TrainRobust
from crosslayer.learn.certified import TrainCertified
from crosslayer.learn.train import Train
from crosslayer.networks.sketch import Sketch
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import QuantizeAffine, quantize
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms
from crosslayer.testing.chance import Seeded
from crosslayer.testing.graphs import float_graph, operation_graph
from crosslayer.testing.stages import small_bench

EPSILON = 0.08
LONG: dict[str, Any] = {"epochs": 60, "batch": 16, "rate": 1e-2}
SHORT = Training(epochs=4, batch=16)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return small_bench()


@pytest.fixture(scope="module")
def plain(bench: Bench) -> Design:
    return Train(**LONG)(fresh(), bench)


def fresh(name: str = "") -> Design:
    """A network of the zoo, or else one of two dense layers."""
    net = Sketch((8, 8, 1), 0)
    graph = network(name, (8, 8, 1), 4, 0) if name else net.classifier(net.relu(net.dense("fc", net.input, 16)), 4)
    return Design(graph=graph, target=load_target("stm32f769"))


def reach(bench: Bench, epsilon: float = EPSILON) -> Reach:
    return Reach.of(epsilon, bench.data.train)


def some(bench: Bench, count: int = 32) -> tuple[Tensor, Tensor]:
    part = bench.data.train.take(slice(0, count))
    return torch.from_numpy(part.real()), torch.from_numpy(part.labels)


def attacked(module: Any, x: Tensor, y: Tensor, ends: tuple[Array, Array], step: float, steps: int) -> Tensor:
    network, wanted = attackable(module), one_hot(module.graph, y.numpy())
    return torch.from_numpy(climb(network, x.numpy(), wanted, ends, step, steps, np.random.default_rng(0)))


def loss_of(module: Learner, x: Tensor, y: Tensor) -> float:
    return F.cross_entropy(module(x, upto=logits_of(module.graph)), y).item()


# attacks inside the loop


def test_an_attack_stays_within_epsilon_and_the_range_and_raises_the_loss(plain: Design, bench: Bench) -> None:
    module, (x, y), far = to_torch(plain.graph), some(bench), reach(bench)
    for steps, step in ((1, 1.25), (5, 0.5)):
        moved = attacked(module, x, y, far.ends(x.numpy()), step * far.epsilon, steps)
        assert ((moved - x).abs() <= far.epsilon + 1e-6).all()
        assert far.low - 1e-6 <= float(moved.min()) and float(moved.max()) <= far.high + 1e-6
        assert loss_of(module, moved, y) > 1.5 * loss_of(module, x, y)
    assert far.epsilon == pytest.approx(EPSILON * (far.high - far.low))


@pytest.mark.parametrize(("method", "bfloat16"), [*((method, False) for method in Method), (Method.PGD, True)])
def test_training_against_attacks_makes_networks_robust(
    plain: Design, bench: Bench, method: Method, bfloat16: bool
) -> None:
    stage = TrainRobust(epsilon=EPSILON, method=method, steps=4, step=0.5, beta=3.0, bfloat16=bfloat16, **LONG)
    robust = stage(fresh(), bench)
    before, after = (robust_accuracy(to_torch(d.graph), bench.data.test, reach(bench), 0) for d in (plain, robust))
    assert before < 0.5 and after > 0.8
    notes, far = robust.trail[-1].notes, reach(bench)
    assert notes["robust_samples"] == len(bench.data.validation)
    again = robust_accuracy(to_torch(robust.graph), bench.data.validation, far, bench.stage_seed())
    assert notes["robust_accuracy"] == again


def test_the_fast_method_keeps_training_samples_out_and_watches_them(bench: Bench) -> None:
    notes = TrainRobust(epsilon=EPSILON, method=Method.FAST, epochs=3, batch=16)(fresh(), bench).trail[-1].notes
    assert notes["trained"] == len(bench.data.train) - round(0.1 * len(bench.data.train))
    assert len(notes["held_out"]) == 3
    assert notes["catastrophic_overfitting"] == collapsed(notes["held_out"])
    assert Adversary(epsilon=0.1, method=Method.FAST).moves == (1, 1.25)


@pytest.mark.parametrize(
    ("seen", "fell"),
    [([0.1, 0.5, 0.6], False), ([0.6, 0.31, 0.5], False), ([0.2, 0.6, 0.29, 0.6], True), ([0.5], False)],
)
def test_robust_accuracy_that_falls_below_half_of_its_best_is_catastrophic_overfitting(
    seen: list[float], fell: bool
) -> None:
    assert collapsed(seen) is fell


def test_epsilon_grows_over_the_ramp(bench: Bench) -> None:
    module, (x, y) = to_torch(fresh().graph), some(bench)
    loss = adversarial_loss(module, Adversary(epsilon=0.3, ramp=0.5), reach(bench, 0.3))
    seen = [loss(x, y, done, np.random.default_rng(0)).item() for done in (0.0, 0.1, 0.25, 0.5, 0.9)]
    assert seen[0] == pytest.approx(loss_of(module, x, y))
    assert seen[0] < seen[1] < seen[2] < seen[3] == seen[4]


def test_trades_is_the_clean_loss_and_beta_times_how_far_shares_move(bench: Bench) -> None:
    module, (x, y) = to_torch(fresh().graph), some(bench)

    def value(beta: float) -> float:
        adversary = Adversary(epsilon=0.2, method=Method.TRADES, beta=beta, ramp=0.0)
        return adversarial_loss(module, adversary, reach(bench, 0.2))(x, y, 0.0, np.random.default_rng(0)).item()

    clean, once, twice = loss_of(module, x, y), value(1.0), value(2.0)
    assert once > clean
    assert twice - once == pytest.approx(once - clean, rel=1e-3)


def test_attacks_leave_running_statistics_alone(bench: Bench) -> None:
    module, (x, y) = to_torch(fresh("dscnn").graph).train(), some(bench)
    before = {name: value.clone() for name, value in module.named_buffers()}
    robust_accuracy(module, bench.data.validation, reach(bench), 0, steps=2)
    assert module.training and all(torch.equal(value, before[name]) for name, value in module.named_buffers())
    adversarial_loss(module, Adversary(epsilon=0.1), reach(bench))(x, y, 1.0, np.random.default_rng(0))
    assert not all(torch.equal(value, before[name]) for name, value in module.named_buffers())


def stopping(after: int) -> Any:
    """A display of progress that ends the run in the epoch after so many."""

    def watch(items: Iterator[int], title: str, total: int) -> Iterator[int]:
        if title.startswith(f"epoch {after + 1}/"):
            raise KeyboardInterrupt
        return items

    return watch


def test_an_interrupted_training_goes_on_with_the_same_weights_and_judgements(bench: Bench, tmp_path: Path) -> None:
    adversary = Adversary(epsilon=EPSILON, steps=2)

    def trained(watch: Any, checkpoint: Path | None) -> tuple[GraphModule, list[float]]:
        module = to_torch(fresh().graph).train()
        loss = adversarial_loss(module, adversary, reach(bench))
        return module, train(
            module,
            bench.data.train,
            SHORT,
            seed=5,
            progress=watch,
            checkpoint=checkpoint,
            loss=loss,
            judge=lambda: robust_accuracy(module, bench.data.validation, reach(bench), 5, steps=3),
        )

    whole, seen = trained(stopping(99), None)
    with pytest.raises(KeyboardInterrupt):
        trained(stopping(2), tmp_path / "checkpoint")
    again, same = trained(stopping(99), tmp_path / "checkpoint")
    assert len(seen) == SHORT.epochs and same == seen
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_an_attack_sees_past_what_a_clamp_hides(bench: Bench) -> None:
    """Where a threshold is flat everywhere within reach of the start, the true slope is 0."""
    net = Sketch((8, 8, 1), 0)
    module = to_torch(net.classifier(net.threshold(net.input, 0.8, 0.9), 4)).eval()
    x, y = torch.full((4, 8, 8, 1), 0.7), torch.arange(4)

    seen = x.clone().requires_grad_()
    assert not torch.autograd.grad(F.cross_entropy(module(seen, upto="logits"), y), seen)[0].any()
    moved = attacked(module, x, y, (x.numpy() - 0.3, x.numpy() + 0.3), 0.3, 4)
    assert loss_of(module, moved, y) > loss_of(module, x, y) + 0.1


# through the integers


def integer_module(design: Design, bench: Bench) -> StraightThrough:
    return StraightThrough(design.graph, QuantizeAffine()(design, bench).graph, learn_steps=False)


def test_integers_are_trained_against_attacks_through_themselves(plain: Design, bench: Bench) -> None:
    design, far = FuseActivations()(plain, bench), reach(bench)
    adversary = Adversary(epsilon=EPSILON, steps=4, step=0.5, ramp=0.0)
    stage = QuantizeAware(training=Training(epochs=30, batch=16, rate=1e-2), against=adversary)
    before = robust_accuracy(integer_module(design, bench), bench.data.validation, far, 0)
    robust = stage(design, bench)
    assert robust.graph.is_integer
    assert before < 0.5 and robust.trail[-1].notes["robust_accuracy"] > 0.75


def test_an_attack_through_the_integers_runs_on_the_firmware_to_the_bit(plain: Design, bench: Bench) -> None:
    design = FuseActivations()(plain, bench)
    module, (x, y) = integer_module(design, bench), some(bench)
    whole = module.convert()
    quant = whole.types["logits"].quant
    assert quant is not None
    moved = attacked(module, x, y, reach(bench).ends(x.numpy()), 0.02, 4)
    truth = quant.decode(reference.trace(whole, moved.numpy())["logits"])
    assert np.array_equal(module(moved, upto="logits").detach().numpy(), truth)
    assert loss_of(module, moved, y) > loss_of(module, x, y)


# interval bounds


def check_interval(graph: Graph, seed: int) -> None:
    module, rng = to_torch(graph).eval(), np.random.default_rng(seed)
    shape = 6, *graph.types[graph.inputs[0]].shape
    middle, far = rng.normal(size=shape), rng.exponential(0.3, shape) * (rng.random((6, *(1 for _ in shape[1:]))) < 0.8)
    low, high = (torch.from_numpy(end.astype(np.float32)) for end in (middle - far, middle + far))
    with torch.no_grad():
        below, above = interval(module, low, high)
        slack = 1e-4 * (1 + below.abs().max() + above.abs().max())
        for _ in range(30):
            share = torch.from_numpy(rng.random(shape, np.float32)).mul(3).sub(1).clamp(0, 1)
            found = module(low + share * (high - low), upto=logits_of(graph))
            assert (found >= below - slack).all() and (found <= above + slack).all()


FALLING = (BatchNorm, HardSwish, Softmax)


@pytest.mark.parametrize("op", [op for op in OPS if op not in FALLING])
def test_no_result_of_an_operation_leaves_its_interval(op: type[Op]) -> None:
    for seed in range(8):
        graph = operation_graph(Seeded(seed), op, None)
        if not any(isinstance(node.op, LeakyRelu) and node.op.slope < 0 for node in graph.nodes):
            check_interval(graph, seed)


def test_no_logit_of_a_random_network_leaves_its_interval() -> None:
    graphs = [float_graph(Seeded(seed)) for seed in range(60)]
    chosen = [g for g in graphs if not any(isinstance(n.op, FALLING) for n in g.nodes[:-1])]
    for seed, graph in enumerate(chosen):
        check_interval(graph, seed)
    assert len(chosen) > 15


def test_certified_training_makes_more_provable_than_plain_training(plain: Design, bench: Bench) -> None:
    certified, far = TrainCertified(epsilon=EPSILON, **LONG)(fresh(), bench), reach(bench)
    before, after = (certified_accuracy(to_torch(d.graph), bench.data.test, far) for d in (plain, certified))
    assert before == 0 and after > 0.25
    assert after <= robust_accuracy(to_torch(certified.graph), bench.data.test, far, 0)
    noted = certified.trail[-1].notes["certified_accuracy"]
    assert noted == certified_accuracy(to_torch(certified.graph), bench.data.validation, far)


def test_the_weight_of_clean_samples_falls_to_kappa_while_epsilon_grows(bench: Bench) -> None:
    module, (x, y), far = to_torch(fresh().graph), some(bench), reach(bench, 0.02)
    clean = loss_of(module, x, y)
    own = y[:, None]

    def worst(share: float) -> float:
        low, high = interval(module, *(torch.from_numpy(end) for end in far.ends(x.numpy(), share)))
        return F.cross_entropy(high.scatter(1, own, low.gather(1, own)), y).item()

    loss = certified_loss(module, far, kappa=0.25, warm=0.2, ramp=0.4)
    seen = [loss(x, y, done, np.random.default_rng(0)).item() for done in (0.0, 0.2, 0.4, 0.6, 1.0)]
    wanted = [clean, clean, 0.625 * clean + 0.375 * worst(0.5), *[0.25 * clean + 0.75 * worst(1.0)] * 2]
    assert seen == pytest.approx(wanted, rel=1e-4)
    assert clean < worst(0.5) < worst(1.0)


# what is refused


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: TrainRobust(epsilon=0.0), "epsilon must be above 0"),
        (lambda: TrainRobust(epsilon=0.1, steps=0), "steps must be at least 1"),
        (lambda: TrainRobust(epsilon=0.1, epochs=0), "epochs must be at least 1"),
        (lambda: TrainRobust(epsilon=0.1, rate=0.0), "rate must be a finite number above 0"),
        (lambda: Adversary(epsilon=0.1, step=0.0), "step must be above 0"),
        (lambda: Adversary(epsilon=0.1, beta=float("nan")), "beta must be above 0"),
        (lambda: Adversary(epsilon=0.1, ramp=1.5), "ramp must lie in 0…1"),
        (lambda: TrainCertified(epsilon=2.0), "epsilon must be above 0 and at most 1"),
        (lambda: TrainCertified(epsilon=0.1, kappa=-0.1), "kappa must lie in 0…1"),
        (lambda: TrainCertified(epsilon=0.1, warm=0.6, ramp=0.6), "warm [+] ramp at most 1"),
        (
            lambda: QuantizeAware(against=Adversary(epsilon=0.1), training=Training(epochs=1, distill=0.5)),
            "against and training.distill exclude each other",
        ),
        (lambda: QuantizeAware(training=Training(epochs=1, bfloat16=True)), "bfloat16 is for float networks"),
    ],
)
def test_a_parameter_out_of_range_is_refused(made: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        made()


ROBUST, CERTIFIED = TrainRobust(epsilon=0.1, epochs=1), TrainCertified(epsilon=0.1, epochs=1)


@pytest.mark.parametrize("stage", [ROBUST, CERTIFIED])
def test_integers_and_networks_without_classes_are_refused(stage: Any, bench: Bench) -> None:
    design = fresh()
    seen = reference.calibrate(design.graph, [bench.data.train.real()], reference.evaluate)
    with pytest.raises(GraphError, match="cannot train integer weights"):
        stage(replace(design, graph=quantize(design.graph, seen, design.graph.rounding)), bench)
    with pytest.raises(GraphError, match="needs a classifier"):
        stage(replace(design, graph=network("autoencoder", (8, 8, 1), 4, 0)), bench)


def test_normalizations_are_to_be_folded_before_certified_training(bench: Bench) -> None:
    stage = TrainCertified(epsilon=0.01, epochs=1, warm=0.0, ramp=0.0)
    with pytest.raises(GraphError, match=r"norm \(BatchNorm\): has no rule for interval bounds; put fold-norms before"):
        stage(fresh("dscnn"), bench)
    stage(FoldNorms()(fresh("dscnn"), bench), bench)


@pytest.mark.parametrize("stage", [ROBUST, CERTIFIED])
def test_data_without_a_range_are_refused(stage: Any, bench: Bench) -> None:
    flat = Split(codes=np.full((32, 8, 8, 1), 7, np.uint8), labels=np.arange(32) % 4)
    with pytest.raises(DataError, match="all values of the training samples are equal"):
        stage(fresh(), replace(bench, data=replace(bench.data, train=flat)))


@pytest.mark.parametrize("stage", [ROBUST, CERTIFIED])
def test_a_recipe_may_begin_with_robust_training_but_not_after_integers(stage: Any, bench: Bench) -> None:
    rehearse((stage, *RECIPE[3:]), fresh(), bench.data)
    with pytest.raises(GraphError, match=f"stage 4 .{stage.name()}.: cannot train integer weights"):
        rehearse((*RECIPE[3:6], stage, *RECIPE[6:]), fresh(), bench.data)

"""Quantization-aware training: the forward is the firmware to the bit, the gradients are those of the real network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph, verify
from crosslayer.core.graph.ops import OPS, Activation, BatchNorm, Dense, Quantize
from crosslayer.core.quant import Array, Quant
from crosslayer.execute import exact, reference
from crosslayer.execute.straight import StraightThrough
from crosslayer.execute.torch import evaluate, to_torch
from crosslayer.execute.torch_training import train
from crosslayer.execute.training import Training
from crosslayer.flow import RECIPE, rehearse
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.quantize.affine import QuantizeAffine, quantize
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.precision import Bits, Precision
from crosslayer.simplify.activations import FuseActivations, fuse_activations
from crosslayer.simplify.norms import FoldNorms, fold_norms
from crosslayer.testing.chance import Seeded
from crosslayer.testing.datasets import small_dataset
from crosslayer.testing.graphs import float_graph, has_integers, operation_graph
from crosslayer.testing.stages import small_bench

DATA = small_dataset().train
TRAINING = Training(epochs=3, batch=16, rate=1e-3, decay=1e-4, shift=1, flip=True)


def quietly(items: Any, title: str, total: int) -> Any:
    return items


def simple(name: str = "resnet8", classes: int = 4) -> Graph:
    return fuse_activations(fold_norms(network(name, (8, 8, 1), classes, 0)))


def quantized(graph: Graph, x: Array, precision: Precision, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    return quantize(graph, reference.calibrate(graph, [x], exact.evaluate), rounding, precision)


def module_of(graph: Graph, x: Array, precision: Precision, rounding: Rounding = Rounding.DOUBLE) -> StraightThrough:
    integer = quantized(graph, x, precision, rounding)
    return StraightThrough(graph, integer, learn_steps=True, power_of_two=precision.power_of_two)


def code_of(graph: Graph, name: str) -> Quant:
    quant = graph.types[name].quant
    assert quant is not None
    return quant


def assert_is_firmware(module: StraightThrough, x: Array) -> Graph:
    """Every value of the module is that of the converted network, which the judge ran."""
    whole = module.convert()
    truth = reference.trace(whole, x)
    with torch.no_grad():
        for name, codes in truth.items():
            found = module(torch.from_numpy(x), upto=name).numpy()
            assert np.array_equal(found, code_of(whole, name).decode(codes)), name
    return whole


def stir(module: StraightThrough, x: Array, steps: int, rate: float = 1e-2) -> None:
    """A few large steps of training, on labels that mean nothing."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    labels = torch.from_numpy(np.arange(len(x)) % 4)
    for _ in range(steps):
        optimizer.zero_grad()
        y = module(torch.from_numpy(x)).flatten(1)
        F.cross_entropy(y * 8, labels % y.shape[1]).backward()
        optimizer.step()


PRECISIONS = (
    Precision(),
    Precision(weights=1),
    Precision(weights=2, activations=4),
    Precision(weights=3, activations=5, per_channel=False),
    Precision(weights=4, activations=6, power_of_two=True),
    Precision(weights=5, activations=7),
    Precision(weights=6, activations=4, layers={"logits": Bits(weights=8, activations=8)}),
    Precision(weights=7),
    Precision(weights=8, activations=16),
    Precision(weights=12, activations=12),
)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(
    ("name", "precisions"),
    [("lenet5", PRECISIONS), ("resnet8", PRECISIONS[::3]), ("dscnn", PRECISIONS[1:3]), ("mobilenet", PRECISIONS[2:3])],
)
def test_what_is_trained_is_the_firmware_to_the_bit(
    name: str, precisions: tuple[Precision, ...], rounding: Rounding
) -> None:
    x = DATA.real(slice(0, 4))
    for precision in precisions:
        graph = simple(name)
        module = module_of(graph, x, precision, rounding)
        start = module.convert()
        assert start == quantized(graph, x, precision, rounding)
        stir(module, x, 2)
        assert assert_is_firmware(module, x) != start


def test_random_networks_are_trained_as_firmware_to_the_bit() -> None:
    tried = 0
    for seed in range(80):
        graph = fuse_activations(fold_norms(float_graph(Seeded(seed))))
        if any(isinstance(node.op, BatchNorm) for node in graph.nodes):
            continue
        x = np.random.default_rng(seed).normal(size=(5, *graph.types["x"].shape)).astype(np.float32)
        module = module_of(graph, x, PRECISIONS[seed % 6], tuple(Rounding)[seed % 3])
        if module(torch.from_numpy(x)).requires_grad:
            stir(module, x, 2, 3e-3)
        assert_is_firmware(module, x)
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("op", [op for op in OPS if has_integers(op) and op is not Quantize])
def test_every_operation_is_trained_through(op: Any) -> None:
    for seed in range(6):
        graph = operation_graph(Seeded(seed), op, None)
        x = np.random.default_rng(seed).normal(size=(4, *graph.types["x"].shape)).astype(np.float32)
        module = module_of(graph, x, Precision(activations=8 if seed % 2 else 5), tuple(Rounding)[seed % 3])
        assert_is_firmware(module, x)
        parameters = list(module.parameters())
        if parameters and module(torch.from_numpy(x)).requires_grad:
            module(torch.from_numpy(x)).square().sum().backward()
            assert all(p.grad is None or torch.isfinite(p.grad).all() for p in parameters)


def one_layer(weights: Array, bias: Array, ranges: Any, bits: int = 8) -> StraightThrough:
    """A dense layer x → y."""
    b = Builder()
    x = b.input("x", (weights.shape[1],))
    graph = b.graph(b.add(Dense(), x, b.constant("w", weights), b.constant("c", bias), name="y"))
    return StraightThrough(graph, quantize(graph, ranges, Rounding.DOUBLE, Precision(weights=bits)), learn_steps=True)


def real_gradient(module: StraightThrough, name: str) -> torch.Tensor:
    """The gradient for a weight or bias itself; what is learned is its quotient by a unit."""
    found = module.floats.constant(name).grad
    assert found is not None
    return found / torch.from_numpy(module._units[name])


def straight(real: torch.Tensor, codes: Array, low: float, high: float) -> torch.Tensor:
    """The codes; backward as `real` between the bounds."""
    inside = torch.where((real > low + 1e-4) & (real < high - 1e-4), real, 0)  # a sum of 0 is not 0 in float32
    return inside + (torch.from_numpy(codes.astype(np.float32)) - inside).detach()


def slowly(module: StraightThrough, x: Array) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits by plain arithmetic on real values, each rounded on its own, and the parameters they depend on."""
    whole, powers = module.convert(), module._steps
    codes, leaves = reference.trace(whole, x), dict[str, torch.Tensor]()

    def leaf(name: str, value: torch.Tensor) -> torch.Tensor:
        return leaves.setdefault(name, value.detach().clone().requires_grad_())

    def scale(name: str) -> torch.Tensor:
        group = module._group.get(name, name)
        start = torch.tensor(code_of(whole, name).scale)
        return (
            start * torch.exp2(leaf(f"step of {group}", getattr(module, powers[group]))) if group in powers else start
        )

    values = {"input": torch.from_numpy(code_of(whole, "input").decode(codes["input"]))}
    for node in whole.nodes[:-1]:
        quant, operands, op = code_of(whole, node.name), [values[n] for n in whole.activations(node)], node.op
        if node.op.channel_axis is not None:
            weight, bias = (leaf(n, t) for n, t in zip(node.inputs[1:], module._real(node.name), strict=True))
            taps = scale(node.inputs[1])
            step = taps.reshape([-1 if i == op.channel_axis else 1 for i in range(weight.dim())])
            steps = taps * scale(node.inputs[0])
            operands.append(step * straight(weight / step, whole.constants[node.inputs[1]], -np.inf, np.inf))
            operands.append(steps * straight(bias / steps, whole.constants[node.inputs[2]], -np.inf, np.inf))
        low, high = (bound - quant.zero[0] for bound in (quant.lowest, quant.highest))
        low = 0 if getattr(op, "activation", Activation.NONE) is Activation.RELU else low
        values[node.name] = evaluate(replace(node, op=without_activation(op)), operands)
        if op.channel_axis is not None or op.kernel in ("add_s8", "global_mean_s8"):
            real = values[node.name] / scale(node.name)
            values[node.name] = scale(node.name) * straight(real, codes[node.name] - float(quant.zero[0]), low, high)
    return values["logits"], leaves


def without_activation(op: Any) -> Any:
    return replace(op, activation=Activation.NONE) if hasattr(op, "activation") else op


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "dscnn"])
def test_gradients_are_those_of_plain_arithmetic_on_rounded_values(name: str) -> None:
    x, labels = DATA.real(slice(0, 16)), torch.from_numpy(DATA.labels[:16])
    for bits in (8, 5):
        graph, rng = simple(name), np.random.default_rng(0)
        biased = {n: v + 0.1 * rng.normal(size=v.shape) * (v.ndim == 1) for n, v in graph.constants.items()}
        graph = replace(graph, constants={n: v.astype(np.float32) for n, v in biased.items()})
        # other samples and larger weights decide the ranges, so that nothing lies exactly at the end of one
        larger = replace(graph, constants={n: v * np.float32(1.05) for n, v in graph.constants.items()})
        integer = quantized(larger, DATA.real(slice(16, 64)), Precision(activations=bits))
        module = StraightThrough(graph, integer, learn_steps=True)
        expected, leaves = slowly(module, x)
        found = module(torch.from_numpy(x), upto="logits")
        assert np.allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        for logits in (expected, found):
            F.cross_entropy(logits, labels).backward()
        for leaf, value in leaves.items():
            step = leaf.removeprefix("step of ")
            ours = real_gradient(module, leaf) if step == leaf else getattr(module, module._steps[step]).grad
            assert value.grad is not None
            room = 1e-3 if step == leaf else 2e-2  # the gradient of a step is a small sum of large parts
            assert np.allclose(ours, value.grad, rtol=room, atol=1e-3 * float(value.grad.abs().max())), (bits, leaf)


def test_what_saturates_has_no_gradient() -> None:
    module = one_layer(np.eye(3), np.zeros(3), {"x": (-1.0, 1.0), "y": (-0.25, 0.5)})
    module(torch.tensor([[0.25, 0.75, -0.5]])).sum().backward()
    bias = real_gradient(module, "c")
    assert np.allclose(bias.numpy(), [1.0, 0.0, 0.0], atol=1e-6)


def test_inputs_have_gradients_too() -> None:
    x = torch.tensor([[0.25, 3.0, -0.5]], requires_grad=True)
    one_layer(np.diag([1.0, 2.0, 3.0]), np.zeros(3), {"x": (-1.0, 1.0), "y": (-4.0, 4.0)})(x).sum().backward()
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), [[1.0, 0.0, 3.0]], rtol=0.01)


def test_a_weight_beyond_its_codes_is_moved_inwards_only() -> None:
    module = one_layer(np.array([[0.5, 0.25], [0.5, 0.25]]), np.zeros(2), {"x": (-1.0, 1.0), "y": (-4.0, 4.0)})
    with torch.no_grad():
        module.floats.constant("w")[:, 0] *= 4  # 2.0; the codes end at 0.5
    y = module(torch.tensor([[0.5, 0.5]]))
    (y * torch.tensor([1.0, -1.0])).sum().backward()
    gradient = real_gradient(module, "w")
    down, up = gradient[:, 0].tolist()
    assert down == pytest.approx(0.5, rel=0.02)
    assert up == 0
    assert torch.allclose(gradient[:, 1].abs(), torch.tensor(0.5), rtol=0.02)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gradient_of_a_step_is_that_of_lsq(bits: int) -> None:
    """Esser et al. 2020, eq. 3: rounded − real inside, the clip outside, here times the step for its logarithm."""
    rng = np.random.default_rng(bits)
    weights, x = rng.normal(size=(1, 400)), rng.choice([-0.5, 0.5], 400)
    module = one_layer(weights, np.zeros(1), {"x": (-1.0, 1.0), "y": (-400.0, 400.0)}, bits)
    module(torch.from_numpy(x[None].astype(np.float32))).sum().backward()
    integer = module.convert()
    taps, source, y = (code_of(integer, n) for n in ("w", "x", "y"))
    steps = weights[0] / taps.scale[0]
    inside = np.abs(steps) <= taps.highest
    codes = integer.constants["w"][0].astype(float)
    expected = float(((codes - steps * inside) * source.decode(source.encode(x))).sum() * taps.scale[0] * np.log(2))
    found = {name: p.grad for name, p in module.named_parameters() if name.startswith("step")}
    gradients = [g for g in found.values() if g is not None]
    assert len(gradients) == 2  # of w and of y; the input's step stays
    assert any(g.item() == pytest.approx(expected, rel=1e-3, abs=1e-4) for g in gradients)
    total = source.decode(source.encode(x)) @ (codes * taps.scale[0])
    rounding = y.decode(y.encode(np.array([total])))[0] - total
    assert any(g.item() == pytest.approx(float(rounding) * np.log(2), rel=0.05, abs=0.1) for g in gradients)


def test_powers_of_two_remain_powers_of_two() -> None:
    x = DATA.real(slice(0, 16))
    module = module_of(simple("lenet5"), x, Precision(weights=4, activations=5, power_of_two=True))
    before = module.convert()
    stir(module, x, 30, 5e-2)
    after = module.convert()
    moved = 0
    for name, kind in after.types.items():
        quant = code_of(after, name)
        if kind.quant is not None and quant.bits <= 16 and name != "softmax":
            assert np.array_equal(np.exp2(np.round(np.log2(quant.scale))), quant.scale)
            moved += quant.scale != code_of(before, name).scale
    assert moved > 0


def test_fixed_steps_stay() -> None:
    x = DATA.real(slice(0, 16))
    graph = simple()
    integer = quantized(graph, x, Precision(weights=4))
    module = StraightThrough(graph, integer, learn_steps=False)
    stir(module, x, 3)
    after = module.convert()
    assert {n: t.quant for n, t in after.types.items()} == {n: t.quant for n, t in integer.types.items()}
    assert any(not np.array_equal(after.constants[n], integer.constants[n]) for n in integer.constants)


def test_values_that_share_a_number_code_keep_sharing_it() -> None:
    x = DATA.real(slice(0, 16))
    module = module_of(simple("lenet5"), x, Precision())
    stir(module, x, 5)
    verify(module.convert())  # refuses a pool or reshape with another code than its operand


def test_training_learns_what_rounding_has_destroyed() -> None:
    data, graph = small_dataset(), simple("lenet5")
    full = Training(epochs=8, batch=16)
    module = to_torch(graph).train()
    train(module, data.train, full, seed=0, progress=quietly)
    learnt = replace(graph, constants={n: module.constant(n).detach().numpy().copy() for n in graph.constants})
    x = data.train.real()

    def right(graph: Graph) -> float:
        return float(np.mean(exact.run(graph, data.test.real()).argmax(axis=1) == data.test.labels))

    precision = Precision(weights=1, activations=4)
    start = quantized(learnt, x, precision)
    aware = module_of(learnt, x, precision)
    train(aware, data.train, Training(epochs=6, batch=16, rate=2e-3), seed=0, progress=quietly)
    after = aware.convert()
    assert right(start) < 0.75
    assert right(after) > 0.9
    assert set(np.unique(after.constants["conv1.weight"])) == {-1, 1}


def test_a_channel_learns_at_the_same_relative_rate_however_large_it_is() -> None:
    """Folding leaves channels of very different size; one step of Adam must not wipe the small ones out."""
    weights = np.random.default_rng(0).normal(size=(4, 200)) * np.array([[1e-4], [0.01], [1.0], [100.0]])
    module = one_layer(weights, np.zeros(4), {"x": (-1.0, 1.0), "y": (-1e4, 1e4)})
    before = module._real("y")[0].detach().clone()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    (module(torch.ones(1, 200)) * torch.tensor([1e4, 100.0, 1.0, 0.01])).sum().backward()
    optimizer.step()
    moved = (module._real("y")[0] - before).abs().mean(dim=1) / before.square().mean(dim=1).sqrt()
    assert (moved > 0.005).all()
    assert (moved < 0.02).all()


# the stage


def design_of(graph: Graph) -> Design:
    return Design(graph=graph, target=load_target("stm32f769"))


AWARE = QuantizeAware(start=QuantizeAffine(samples=32, precision=Precision(weights=3)), training=TRAINING)


def test_norms_are_folded_first_and_conversion_changes_nothing() -> None:
    """No gap: the design that leaves the stage gives the bytes that training saw last."""
    bench = small_bench()
    with pytest.raises(GraphError, match=r"stem\.norm \(BatchNorm\): has no integer meaning; run FoldNorms first"):
        AWARE(design_of(network("resnet8", (8, 8, 1), 4, 0)), bench)
    folded = FuseActivations()(FoldNorms()(design_of(network("resnet8", (8, 8, 1), 4, 0)), bench), bench)
    found = AWARE(folded, bench)
    assert found.graph.is_integer
    assert [node.name for node in found.graph.nodes] == [node.name for node in folded.graph.nodes]
    started = AWARE.start(folded, bench)
    module = StraightThrough(folded.graph, started.graph, learn_steps=True)
    train(module, bench.data.train, TRAINING, seed=bench.stage_seed(), progress=quietly)
    with torch.no_grad():
        last = module(torch.from_numpy(DATA.real())).numpy()
    assert np.array_equal(code_of(found.graph, "softmax").decode(exact.run(found.graph, DATA.real())), last)


class KilledError(Exception):
    """What a kill looks like from inside."""


@pytest.mark.parametrize("after", [3, 9, 17])
def test_a_killed_and_resumed_training_gives_the_bytes_of_an_uninterrupted_one(after: int, tmp_path: Path) -> None:
    design, bench, left = design_of(simple("lenet5")), small_bench(), iter(range(after))

    def dying(items: Any, title: str, total: Any) -> Any:
        for item in items:
            if next(left, None) is None:
                raise KilledError
            yield item

    whole = AWARE(design, bench)
    with pytest.raises(KilledError):
        AWARE(design, replace(bench, progress=dying, scratch=tmp_path))
    assert AWARE(design, replace(bench, scratch=tmp_path)) == whole


def test_diverging_training_is_refused() -> None:
    x = DATA.real(slice(0, 8))
    module = module_of(simple("lenet5"), x, Precision())
    with torch.no_grad():
        module.floats.constant("fc1.weight")[0, 0] = float("nan")
    with pytest.raises(GraphError, match="fc1: training diverged, its weights are not finite; lower the rate"):
        module(torch.from_numpy(x))
    wild = Training(epochs=4, batch=16, rate=1e30)
    with pytest.raises(GraphError, match="lower the rate"):
        train(module_of(simple("lenet5"), x, Precision()), DATA, wild, seed=0, progress=quietly)


def test_training_starts_from_corrected_biases_if_asked() -> None:
    design, bench = design_of(simple("lenet5")), small_bench()
    start = QuantizeAffine(samples=64, precision=Precision(weights=2), correct_biases=True)
    still = QuantizeAware(start=start, training=Training(epochs=1, rate=1e-30), learn_steps=False)
    assert still(design, bench).graph == start(design, bench).graph
    assert still(design, bench).graph != replace(start, correct_biases=False)(design, bench).graph


def test_a_recipe_with_it_can_be_rehearsed() -> None:
    bench = small_bench()
    design = design_of(network("resnet8", (8, 8, 1), 4, 0))
    stages = FoldNorms(), FuseActivations(), AWARE, PlanArena()
    rehearse(stages, design, bench.data)
    with pytest.raises(GraphError, match=r"stage 1 \(quantize-aware\): .* run FoldNorms first"):
        rehearse(stages[2:], design, bench.data)
    assert QuantizeAware not in {type(stage) for stage in RECIPE}


def test_what_training_would_undo_is_refused() -> None:
    with pytest.raises(InputError, match=r"rounds to nearest; leave start\.learn_rounding out"):
        QuantizeAware(start=QuantizeAffine(learn_rounding=True))
    with pytest.raises(InputError, match="use quantize-affine"):
        QuantizeAware(training=Training(epochs=0))

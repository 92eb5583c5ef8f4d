"""The bridge to PyTorch: the same function, the same weights, and training that can be repeated and resumed."""

import itertools
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from crosslayer.core.dataset import Split
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import (
    OPS,
    AveragePool,
    BatchNorm,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Windows,
)
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.execute.torch import filters, from_torch, linear, linear_gradients, run, to_torch
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.networks.zoo import NETWORKS, network
from crosslayer.testing.chance import Seeded, grown
from crosslayer.testing.datasets import small_dataset
from crosslayer.testing.graphs import float_graph, operation_graph

TRAINING = Training(epochs=3, batch=16, shift=1, flip=True)
DATA = small_dataset().train


def quietly(items: Any, title: str, total: int) -> Any:
    return items


def real_inputs(graph: Graph, samples: int = 5) -> Array:
    return np.random.default_rng(0).normal(size=(samples, *graph.types["x"].shape)).astype(np.float32)


def assert_close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def small_network(name: str = "lenet5") -> Graph:
    return network(name, (8, 8, 1), 4, 0)


@settings(max_examples=60, deadline=None)
@given(grown(float_graph))
def test_there_and_back_is_the_same_graph(graph: Graph) -> None:
    assert from_torch(to_torch(graph)) == graph


@settings(max_examples=80, deadline=None)
@given(grown(float_graph))
def test_a_module_computes_what_the_judge_computes(graph: Graph) -> None:
    x = real_inputs(graph)
    assert_close(run(graph, x), reference.run(graph, x))


@pytest.mark.parametrize("op", OPS)
def test_every_operation_has_a_value_and_a_gradient(op: type[Op]) -> None:
    for seed in range(10):
        graph = operation_graph(Seeded(seed), op, None)
        x = real_inputs(graph)
        assert_close(run(graph, x), reference.run(graph, x))
        source = torch.from_numpy(x).requires_grad_()
        module = to_torch(graph).eval()
        (module(source) ** 2).sum().backward()
        assert source.grad is not None or op is Constant
        assert source.grad is None or torch.isfinite(source.grad).all()
        for parameter in module.parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("kind", [Conv2d, DepthwiseConv2d, AveragePool])
def test_single_channels_are_read_in_the_right_layout(kind: type[Any]) -> None:
    """For some of these PyTorch's own convolution gives what lay in memory: one channel in, one column out."""
    rng = np.random.default_rng(0)
    sizes = itertools.product((3, 6), (3, 5), ((1, 2), (2, 2), (3, 3)), ((1, 2), (1, 3)))
    for high, wide, kernel, stride in sizes:
        b = Builder()
        weights = {Conv2d: (1, *kernel, 1), DepthwiseConv2d: (*kernel, 1)}
        names: list[str] = []
        if kind in weights:
            names = [b.constant("w", rng.normal(size=weights[kind])), b.constant("c", np.ones(1))]
        op = kind(windows=Windows(kernel=kernel, stride=stride))
        graph = b.graph(b.add(op, b.input("x", (high, wide, 1)), *names))
        x = real_inputs(graph)
        assert_close(run(graph, x), reference.run(graph, x))


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_threads_do_not_race_for_the_gradient_of_a_strided_point(channels: int) -> None:
    rng = np.random.default_rng(channels)
    x, grad, taps = (
        torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        for shape in ((32, 8, 8, channels), (32, 4, 4, 64), (64, channels, 1, 1))
    )
    expected = torch.einsum("bhwo,bhwi->oi", grad, x[:, ::2, ::2])[..., None, None]
    op, bias = Conv2d(windows=Windows(kernel=(1, 1), stride=(2, 2))), torch.zeros(64)
    weight = taps.clone().requires_grad_()
    for _ in range(20):
        _, found, _ = linear_gradients(op, grad, x, taps, needs_x=False)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
        (found,) = torch.autograd.grad(linear(op, x, weight, bias), weight, grad)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [Conv2d, DepthwiseConv2d, Dense])
def test_the_gradients_of_a_layer_are_those_of_pytorch(kind: type[Any]) -> None:
    for seed in range(40):
        graph = operation_graph(Seeded(seed), kind, None)
        node = graph.nodes[-1]
        rng = np.random.default_rng(seed)
        x, weight, bias = (
            torch.from_numpy(rng.normal(size=shape).astype(np.float32))
            for shape in ((3, *graph.types[node.inputs[0]].shape), *(graph.types[n].shape for n in node.inputs[1:]))
        )
        operands = [x.requires_grad_(), filters(node.op, weight).detach().requires_grad_(), bias.requires_grad_()]
        y = linear(node.op, *operands)
        grad = torch.from_numpy(rng.normal(size=tuple(y.shape)).astype(np.float32))
        y.backward(grad)
        with torch.no_grad():
            found = linear_gradients(node.op, grad, *operands[:2], needs_x=True)
            assert linear_gradients(node.op, grad, *operands[:2], needs_x=False)[0] is None
        for gradient, operand in zip(found, operands, strict=True):
            assert gradient is not None
            assert operand.grad is not None
            assert_close(gradient.numpy(), operand.grad.numpy())


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2)])
def test_a_convolution_of_few_pixels_in_bfloat16_is_that_of_float32(
    stride: tuple[int, int], dilation: tuple[int, int]
) -> None:
    windows = Windows(kernel=(3, 2), stride=stride, dilation=dilation, padding=(1, 2, 0, 1))
    op, rng = Conv2d(windows=windows), np.random.default_rng(0)
    x, taps, bias = (
        torch.from_numpy(rng.integers(0, 2, shape).astype(np.float32)) for shape in ((2, 4, 3, 128), (9, 128, 3, 2), 9)
    )
    whole = linear(op, x, taps, bias)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(op, x, taps, bias)
    assert found.dtype is torch.bfloat16
    assert found.shape == whole.shape
    assert torch.equal(found, whole.bfloat16())  # sums of ones are exact; only the result is rounded


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_computes_what_the_judge_computes(name: str) -> None:
    graph = network(name, (12,) if name == "autoencoder" else (8, 8, 1), 3, 0)
    x = np.random.default_rng(0).normal(size=(2, *graph.types["input"].shape)).astype(np.float32)
    assert_close(run(graph, x), reference.run(graph, x))


def test_large_batches_are_run_in_parts() -> None:
    graph = small_network()
    x = np.random.default_rng(0).normal(size=(600, 8, 8, 1)).astype(np.float32)
    assert_close(run(graph, x)[::97], reference.run(graph, x[::97]))


def test_a_value_on_the_way_can_be_asked_for() -> None:
    graph = small_network()
    x = DATA.real(slice(0, 3))
    values = reference.trace(graph, x)
    module = to_torch(graph).eval()
    for name in ("conv1", "logits", "softmax"):
        assert_close(module(torch.from_numpy(x), upto=name).detach().numpy(), values[name])


def test_weights_are_learnt_and_statistics_are_not() -> None:
    graph = small_network("resnet8")
    module = to_torch(graph)
    statistics = {n for node in graph.nodes if isinstance(node.op, BatchNorm) for n in node.inputs[3:]}
    learnt = {name for name in graph.constants if isinstance(module.constant(name), torch.nn.Parameter)}
    assert learnt == set(graph.constants) - statistics


def test_normalization_in_training_is_that_of_pytorch() -> None:
    rng, b = np.random.default_rng(0), Builder()
    constants = *rng.normal(size=(3, 4)).astype(np.float32), rng.uniform(0.5, 2, 4).astype(np.float32)
    names = [b.constant(f"n{i}", value) for i, value in enumerate(constants)]
    graph = b.graph(b.add(BatchNorm(epsilon=1e-3), b.input("x", (3, 3, 4)), *names))
    theirs = torch.nn.BatchNorm2d(4, eps=1e-3)
    targets = theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var
    for target, value in zip(targets, constants, strict=True):
        assert target is not None
        target.data.copy_(torch.from_numpy(value))
    module = to_torch(graph).train()
    batches = torch.from_numpy(rng.normal(size=(3, 6, 3, 3, 4)).astype(np.float32))
    for x in batches:
        expected = theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        assert_close(module(x).detach().numpy(), expected.detach().numpy())
    after = from_torch(module)
    assert theirs.running_mean is not None
    assert theirs.running_var is not None
    assert_close(after.constants["n2"], theirs.running_mean.numpy())
    assert_close(after.constants["n3"], theirs.running_var.numpy())
    expected = theirs.eval()(batches[0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert_close(run(after, batches[0].numpy()), expected.detach().numpy())


@pytest.mark.parametrize("shape", [(4,), (5, 4), (3, 2, 4)])
def test_normalization_in_training_is_over_all_but_the_channels(shape: tuple[int, ...]) -> None:
    names, b = ["gamma", "beta", "mean", "variance"], Builder()
    x = b.input("x", shape)
    graph = b.graph(b.add(BatchNorm(epsilon=1e-5), x, *(b.constant(n, np.ones(4) * (n != "beta")) for n in names)))
    values = real_inputs(graph, 8) * 3 + 1
    found = to_torch(graph).train()(torch.from_numpy(values)).detach().numpy().reshape(-1, 4)
    assert np.allclose(found.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(found.std(axis=0), 1, atol=1e-3)


# training


def test_training_twice_gives_the_same_weights() -> None:
    first = fit(small_network(), DATA, TRAINING, seed=5, progress=quietly)
    assert fit(small_network(), DATA, TRAINING, seed=5, progress=quietly) == first
    assert fit(small_network(), DATA, TRAINING, seed=6, progress=quietly) != first
    assert first != small_network()


class KilledError(Exception):
    """What a kill looks like from inside."""


def dying(after: int) -> Any:
    """Progress that ends the run after so many steps in all."""
    left = iter(range(after))

    def progress(items: Any, title: str, total: int) -> Any:
        for item in items:
            if next(left, None) is None:
                raise KilledError
            yield item

    return progress


@pytest.mark.parametrize(("name", "after"), [("lenet5", 2), ("lenet5", 6), ("lenet5", 17), ("resnet8", 8)])
def test_a_killed_and_resumed_training_gives_the_weights_of_an_uninterrupted_one(
    name: str, after: int, tmp_path: Path
) -> None:
    train = partial(fit, small_network(name), DATA, TRAINING, seed=5)
    whole = train(progress=quietly)
    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(KilledError):
        train(progress=dying(after), checkpoint=checkpoint)
    titles: list[str] = []

    def heard(items: Any, title: str, total: int) -> Any:
        titles.append(title)
        return items

    assert train(progress=heard, checkpoint=checkpoint) == whole
    assert titles == [f"epoch {epoch}/3" for epoch in range(after // 6 + 1, 4)]
    assert train(progress=dying(0), checkpoint=checkpoint) == whole  # nothing is left to do


@pytest.mark.parametrize("harm", [b"", b"half a file", b"\xff" * 64])
def test_a_damaged_checkpoint_starts_training_again(harm: bytes, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    checkpoint.write_bytes(harm)
    train = partial(fit, small_network(), DATA, replace(TRAINING, epochs=1), seed=5, progress=quietly)
    assert train(checkpoint=checkpoint) == train()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_learns(bfloat16: bool) -> None:
    training = Training(epochs=10, batch=16, bfloat16=bfloat16)
    trained = fit(small_network(), DATA, training, seed=0, progress=quietly)
    test = small_dataset().test
    right = run(trained, test.real()).argmax(axis=1) == test.labels
    assert float(np.mean(right)) > 0.9


def test_a_network_that_ends_in_logits_learns_the_same_as_one_that_ends_in_shares() -> None:
    shares = small_network()
    logits = replace(shares, nodes=shares.nodes[:-1], outputs=("logits",))
    logits = replace(logits, types={n: t for n, t in shares.types.items() if n != "softmax"})
    one = Training(epochs=1, batch=32)
    first, second = (fit(graph, DATA, one, seed=1, progress=quietly) for graph in (shares, logits))
    assert all(np.array_equal(first.constants[name], second.constants[name]) for name in first.constants)


def test_an_autoencoder_learns_to_give_back_its_input() -> None:
    flat = Split(codes=DATA.codes.reshape(len(DATA), -1), labels=DATA.labels, scale=DATA.scale)
    graph = network("autoencoder", (64,), 4, 0)

    def missed(graph: Graph) -> float:
        return float(np.mean((run(graph, flat.real()) - flat.real()) ** 2))

    assert missed(fit(graph, flat, Training(epochs=8, batch=16), seed=0, progress=quietly)) < 0.5 * missed(graph)


def test_a_set_smaller_than_a_batch_is_one_step() -> None:
    few = DATA.take(slice(0, 5))
    assert fit(small_network(), few, Training(epochs=1, batch=128), seed=0, progress=quietly) != small_network()


def test_pytorch_is_loaded_by_who_trains_only() -> None:
    program = (
        "import sys, crosslayer, crosslayer.flow, crosslayer.testing.operations, crosslayer.testing.stages\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

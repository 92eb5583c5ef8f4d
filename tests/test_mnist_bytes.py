"""Every executor over real data: LeNet-5 in int8 on MNIST's test images, under each rounding rule."""

from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.bench import silent
from crosslayer.core.design import Design
from crosslayer.core.errors import DataError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.datasets.catalog import load
from crosslayer.emit.firmware import emit
from crosslayer.evaluate.firmware import Comparison, compare
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import runnable_cores
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations


@pytest.fixture(scope="module")
def trained() -> tuple[Graph, Array, Array]:
    """A float network trained briefly, calibration inputs, and test inputs."""
    try:
        data = load("mnist")
    except DataError as error:
        pytest.skip(str(error))
    part = data.train.take(slice(0, 6400))
    graph = fit(network("lenet5", data.shape, 10, 0), part, Training(epochs=2), seed=0, progress=silent)
    return fuse_activations(graph), data.train.real(slice(0, 256)), data.test.real()


def differing(
    trained: tuple[Graph, Array, Array], rounding: Rounding, folder: Path, samples: int, emulated: int
) -> list[Comparison]:
    graph, calibration, x = trained
    integer = quantize(graph, reference.calibrate(graph, [calibration], exact.evaluate), rounding)
    design = Design(graph=integer, target=load_target("stm32f769"), plan=plan_arena(integer))
    emit(design, folder, x[:1])
    return compare(integer, folder, x[:samples], emulated=emulated, cores=runnable_cores())


def test_all_executors_agree_on_some_images(trained: tuple[Graph, Array, Array], tmp_path: Path) -> None:
    found = differing(trained, Rounding.DOUBLE, tmp_path / "firmware", 500, 5)
    assert {c.executor: c.differing_bytes for c in found} == dict.fromkeys(["exact", "native", *runnable_cores()], 0)


@pytest.mark.slow
@pytest.mark.parametrize("rounding", Rounding)
def test_all_executors_agree_on_all_test_images(
    trained: tuple[Graph, Array, Array], rounding: Rounding, tmp_path: Path
) -> None:
    found = differing(trained, rounding, tmp_path / "firmware", 10_000, 200)
    assert [c.samples for c in found] == [10_000, 10_000, *[200] * len(runnable_cores())]
    assert sum(c.differing_bytes for c in found) == 0


def test_the_trained_network_is_better_than_chance(trained: tuple[Graph, Array, Array]) -> None:
    graph, _, x = trained
    labels = load("mnist").test.labels[:1000]
    assert np.mean(exact.run(graph, x[:1000]).argmax(axis=1) == labels) > 0.8

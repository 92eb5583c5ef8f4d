"""The MLPerf Tiny reference models: read as they are, they give the bytes of the runtimes they were made for."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crosslayer import workbench
from crosslayer.core.design import Design
from crosslayer.core.fixed import Rounding
from crosslayer.core.quant import Array
from crosslayer.core.target import Core
from crosslayer.datasets.catalog import load
from crosslayer.evaluate.firmware import as_bytes
from crosslayer.evaluate.litert import KERNELS
from crosslayer.execute import exact, litert, reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native
from crosslayer.read.tflite import read_tflite

DATA = Path(os.environ["CROSSLAYER_DATA"])
FOLDER, GOLDEN = DATA / "mlperf_tiny", DATA / "mlperf_tiny_golden" / "golden.npz"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir() or not GOLDEN.is_file(), reason="the data sets mlperf_tiny and mlperf_tiny_golden are absent"
)

MACS = {
    "anomaly_detection/ad01_fp32": 264_192,
    "anomaly_detection/ad01_int8": 264_192,
    "image_classification/pretrainedResnet": 12_501_632,
    "image_classification/pretrainedResnet_quant": 12_501_632,
    "image_classification/pretrainedResnet_large_float": 76_473_920,
    "image_classification/pretrainedResnet_large_int8": 76_473_920,
    "keyword_spotting/kws_ref_model_float32": 2_656_768,
    "keyword_spotting/kws_ref_model": 2_656_768,
    "streaming_wakeword/str_ww_ref_model": 826_368,
    "visual_wake_words/vww_96_float": 7_489_664,
    "visual_wake_words/vww_96_int8": 7_489_664,
}
"""Multiply-accumulate operations of each model."""

GOLDENS = {
    "ad": "anomaly_detection/ad01_int8",
    "ic": "image_classification/pretrainedResnet_quant",
    "kws": "keyword_spotting/kws_ref_model",
    "sww": "streaming_wakeword/str_ww_ref_model",
    "vww": "visual_wake_words/vww_96_int8",
}
COLUMNS = {"tflm": Rounding.DOUBLE, "litert_reference": Rounding.REFERENCE, "xnnpack": Rounding.FLOAT}
"""Which rounding rule each runtime follows."""
RESNET = "image_classification/pretrainedResnet_quant"


def path(model: str) -> Path:
    return FOLDER / f"{model}.tflite"


def ruled(model: str, rounding: Rounding) -> Design:
    return workbench.open_design(path(model), "stm32f769", rounding)


def on_host(design: Design, x: Array) -> Array:
    with workbench.firmware_of(design, x) as folder:
        return Native.build(folder).run(x)


def on_m4(design: Design, x: Array) -> Array:
    with workbench.firmware_of(design, x) as folder:
        return Image.link(folder, Core.CORTEX_M4).run(x).outputs


EXECUTORS: dict[str, Callable[[Design, Array], Array]] = {
    "reference": lambda design, x: reference.run(design.graph, x),
    "exact": lambda design, x: exact.run(design.graph, x),
    "native": on_host,
    "cortex-m4": on_m4,
}


def differing(name: str, column: str, executor: str) -> int:
    with np.load(GOLDEN) as golden:
        x, expected = golden[f"{name}_input"], golden[f"{name}_{column}"]
    found = EXECUTORS[executor](ruled(GOLDENS[name], COLUMNS[column]), x)
    return int((found.astype(np.uint8).ravel() != expected.astype(np.uint8).ravel()).sum())


@pytest.mark.parametrize("model", MACS)
def test_every_model_can_be_read(model: str) -> None:
    graph = read_tflite(path(model))
    assert sum(graph.macs.values()) == MACS[model]
    assert graph.is_integer == ("float" not in model and "fp32" not in model and not model.endswith("pretrainedResnet"))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", GOLDENS)
def test_the_outputs_are_those_of_the_runtime(name: str, column: str) -> None:
    assert differing(name, column, "exact") == 0


@pytest.mark.parametrize("executor", ["reference", "native", "cortex-m4"])
def test_every_executor_gives_the_outputs_of_the_runtime(executor: str) -> None:
    assert differing("sww", "tflm", executor) == 0


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["reference", "native", "cortex-m4"])
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", GOLDENS)
def test_every_executor_gives_the_outputs_of_every_runtime(name: str, column: str, executor: str) -> None:
    assert differing(name, column, executor) == 0


@pytest.mark.parametrize(
    "model", ["anomaly_detection/ad01_fp32", "image_classification/pretrainedResnet", "visual_wake_words/vww_96_float"]
)
def test_float_models_compute_what_litert_computes(model: str) -> None:
    graph = read_tflite(path(model))
    shape = graph.types[graph.inputs[0]].shape
    x = np.random.default_rng(0).uniform(-1, 1, (8, *shape)).astype(np.float32)
    theirs = litert.run(path(model).read_bytes(), [x], litert.Kernels.REFERENCE)
    assert np.allclose(exact.run(graph, x), theirs, rtol=1e-5, atol=2e-5)


def against_litert(model: str, samples: int, emulated: int) -> None:
    design = ruled(model, Rounding.DOUBLE)
    x = workbench.inputs_for(design, None, samples, seed=0)
    checks = workbench.compare_litert(path(model), design, x, emulated)
    assert [check for check in checks if check.differing_bytes] == []
    assert {check.rounding for check in checks} == set(Rounding)
    assert len(checks) >= len(design.graph.nodes) + 12


def test_a_model_is_litert_s_layer_by_layer_and_whole() -> None:
    against_litert(GOLDENS["sww"], 60, 2)


@pytest.mark.slow
@pytest.mark.parametrize("model", [*GOLDENS.values(), "image_classification/pretrainedResnet_large_int8"])
def test_every_integer_model_is_litert_s_over_a_thousand_inputs(model: str) -> None:
    against_litert(model, 1000, 20)


ACCURACY = {Rounding.REFERENCE: 0.8709, Rounding.FLOAT: 0.8699}
"""Of ResNet-8 int8 on the CIFAR-10 test images, as LiteRT 2.3 has it with its reference kernels and by default."""
COUNT = {"reference": 500, "exact": 10_000, "native": 10_000, "cortex-m4": 200}
"""How many of the 10,000 test images an executor runs here: all, or as many as a slow one can."""


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ACCURACY)
def test_resnet8_has_its_published_accuracy_through_every_executor(rounding: Rounding) -> None:
    design = ruled(RESNET, rounding)
    test = load("cifar10").scaled(255).test
    codes = reference.encode_input(design.graph, test.real())
    theirs = litert.run(path(RESNET).read_bytes(), [codes], KERNELS[rounding])
    assert float((theirs.argmax(axis=1) == test.labels).mean()) == ACCURACY[rounding]
    for name, execute in EXECUTORS.items():
        found = execute(design, codes[: COUNT[name]])
        assert np.array_equal(as_bytes(found), as_bytes(theirs[: COUNT[name]])), name

"""Predicted instructions and stack are those of the firmware on every emulated core, without compiling it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from crosslayer.core.design import Design
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Concat, MaxPool, Windows
from crosslayer.core.plan import Plan
from crosslayer.core.quant import Quant
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.evaluate.size import inspection
from crosslayer.execute.emulate import Image
from crosslayer.execute.toolchain import zig
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.counts import LARGEST_TABLE, compilers, predict
from crosslayer.kernels.tally import Tally, instructions
from crosslayer.plan.arena import plan_arena
from crosslayer.read.network import read_network
from crosslayer.simplify.integers import simplify_integers
from crosslayer.testing.chance import Seeded
from crosslayer.testing.executors import random_inputs
from test_kernels import random_layers

MODELS = Path(os.environ["CROSSLAYER_DATA"]) / "mlperf_tiny"
mlperf = pytest.mark.skipif(not MODELS.is_dir(), reason="the data set mlperf_tiny is absent")
NAMES = {
    "ad": "anomaly_detection/ad01_int8",
    "kws": "keyword_spotting/kws_ref_model",
    "ic": "image_classification/pretrainedResnet_quant",
    "vww": "visual_wake_words/vww_96_int8",
    "sww": "streaming_wakeword/str_ww_ref_model",
}
TARGET = load_target("stm32l4r5")
INTEGER = [Core.CORTEX_M0, Core.RV32]
"""Cores without an FPU: floats in software take instructions that depend on data."""


def ready(graph: Graph, **options: int) -> tuple[Graph, Plan]:
    graph = simplify_integers(graph)
    return graph, plan_arena(graph, **options)


def check(graph: Graph, plan: Plan, core: Core, folder: Path, *, all_units: bool) -> None:
    """What is predicted of each step, of all and of the stack is what a run shows, whatever the data."""
    found = predict(graph, plan, core)
    assert found is not None
    x = random_inputs(graph, Seeded(0), 2)
    emit(Design(graph=graph, target=TARGET, plan=plan), folder, x[:1])
    image = Image.link(folder, core)
    ran = image.run(x)
    seen = dict(zip(found.by_step, (ran.by_step // 2).tolist(), strict=True))
    assert {name: count for name, count in found.by_step.items() if count is not None} == {
        name: seen[name] for name, count in found.by_step.items() if count is not None
    }
    assert found.outside == ran.instructions[0] - ran.by_step.sum() // 2 or not all_units
    if all_units:
        assert ran.instructions.tolist() == [found.instructions] * 2
        assert found.stack_bytes == image.stack_bound().bytes


@pytest.mark.parametrize("name", ["ad", "kws", "ic"])
@mlperf
def test_a_model_takes_what_is_predicted(name: str, tmp_path: Path) -> None:
    graph, plan = ready(read_network(MODELS / f"{NAMES[name]}.tflite"))
    check(graph, plan, Core.CORTEX_M4, tmp_path / "firmware", all_units=True)


@pytest.mark.slow
@pytest.mark.parametrize("core", [Core.CORTEX_M4, Core.CORTEX_M7, Core.CORTEX_M33, *INTEGER])
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("name", NAMES)
@mlperf
def test_every_model_takes_what_is_predicted(name: str, rounding: Rounding, core: Core, tmp_path: Path) -> None:
    graph, plan = ready(read_network(MODELS / f"{NAMES[name]}.tflite", rounding))
    found = predict(graph, plan, core)
    if rounding is Rounding.FLOAT and core in INTEGER:
        assert found is None
        return
    assert found is not None
    units = all(count is not None for count in found.by_step.values())
    assert units or rounding is not Rounding.DOUBLE
    check(graph, plan, core, tmp_path / "firmware", all_units=units)


@pytest.mark.parametrize("core", [Core.CORTEX_M4, *INTEGER])
@pytest.mark.parametrize("seed", range(2))
def test_any_geometry_takes_what_is_predicted(core: Core, seed: int, tmp_path: Path) -> None:
    graph = random_layers(Seeded(seed), Rounding.DOUBLE)
    found = predict(graph, plan_arena(graph), core)
    assert found is not None
    assert sum(count is not None for count in found.by_step.values()) >= 5
    check(graph, plan_arena(graph), core, tmp_path / "firmware", all_units=False)


@pytest.mark.slow
@pytest.mark.parametrize("core", [Core.CORTEX_M4, Core.CORTEX_M7, Core.CORTEX_M33, *INTEGER])
@pytest.mark.parametrize("seed", range(2, 22))
def test_many_geometries_take_what_is_predicted(core: Core, seed: int, tmp_path: Path) -> None:
    graph = random_layers(Seeded(seed), Rounding.DOUBLE)
    check(graph, plan_arena(graph), core, tmp_path / "firmware", all_units=False)


def test_a_kernel_of_its_own_code_is_not_predicted() -> None:
    graph = random_layers(Seeded(0), Rounding.DOUBLE)
    found = predict(graph, plan_arena(graph), Core.CORTEX_M4)
    assert found is not None
    joined = [node.name for node in graph.nodes if isinstance(node.op, Concat)]
    assert [found.by_step[name] for name in joined] == [None]
    assert found.instructions is None
    assert found.stack_bytes is None


def test_windows_beyond_what_was_measured_are_not_predicted() -> None:
    code = Quant(bits=8, scale=(0.1,))
    known: dict[int, bool] = {}
    for height in (LARGEST_TABLE, LARGEST_TABLE + 1):
        b = Builder(Rounding.DOUBLE)
        x = b.input("x", (height + 1, 1, 4), code)
        graph = b.graph(b.add(MaxPool(windows=Windows(kernel=(height, 1))), x, quant=code))
        known[height - LARGEST_TABLE] = predict(graph, plan_arena(graph), Core.CORTEX_M0) is not None
    assert known == {0: True, 1: False}


def test_what_has_no_measured_cost_is_not_predicted() -> None:
    tally = Tally()
    tally.add("call", 3)
    assert instructions(tally, {"call": 5}) == 15
    tally.loop("codes", 2)
    assert instructions(tally, {"call": 5}) is None


@mlperf
def test_inspection_tells_what_is_predicted_and_what_modelled() -> None:
    design = Design(graph=read_network(MODELS / f"{NAMES['ad']}.tflite"), target=TARGET)
    graph, plan = ready(design.graph)
    known = predict(graph, plan, TARGET.core)
    assert known is not None
    found = inspection(design)
    scores = {score["name"]: score for score in found["scores"]}
    assert scores["instructions"]["origin"] == scores["ram"]["origin"] == "predicted"
    assert scores["instructions"]["value"] == known.instructions
    assert scores["ram"]["value"] == plan.arena_bytes + (known.stack_bytes or 0)
    assert {n["name"]: n["instructions"] for n in found["nodes"] if n["instructions"] is not None} == known.by_step
    other = inspection(replace(design, target=replace(TARGET, core=Core.CORTEX_M55)))
    modelled = next(score for score in other["scores"] if score["name"] == "instructions")
    assert modelled["origin"] == "modelled"
    assert modelled["low"] < modelled["value"] < modelled["high"]


def test_the_counts_are_those_of_the_compiler_at_hand() -> None:
    assert set(compilers().values()) == {zig().title}

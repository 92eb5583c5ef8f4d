"""Input that arrives row by row, and weights in several memories."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError, ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Relu
from crosslayer.core.plan import Plan
from crosslayer.core.quant import Quant
from crosslayer.core.target import Core, Memory, MemoryKind, Target
from crosslayer.datasets import places
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena, plan_arena
from crosslayer.plan.weights import CODE_BYTES, split_weights
from crosslayer.quantize.affine import quantize
from crosslayer.read.network import read_network
from crosslayer.report.memory import memory_map
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.integers import simplify_integers
from crosslayer.simplify.norms import fold_norms

NETWORKS = {"lenet5": (28, 28, 1), "dscnn": (49, 10, 1), "resnet8": (32, 32, 3), "mobilenet": (32, 32, 3)}
VWW = "mlperf_tiny/visual_wake_words/vww_96_int8.tflite"


def integers(name: str, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    shape = NETWORKS[name]
    graph = fuse_activations(fold_norms(network(name, shape, 10, 0)))
    x = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    return quantize(graph, reference.calibrate(graph, [x], exact.evaluate), rounding)


def written(graph: Graph, plan: Plan, folder: Path, target: Target | None = None) -> Path:
    design = Design(graph=graph, target=target or load_target("stm32f769"), plan=plan)
    emit(design, folder, codes(graph, 1))
    return folder


def codes(graph: Graph, count: int) -> np.ndarray:
    shape = graph.types[graph.inputs[0]].shape
    return np.random.default_rng(1).integers(-128, 128, (count, *shape)).astype(np.int8)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.FLOAT])
def test_rows_that_arrive_one_by_one_give_the_same_bytes(name: str, rounding: Rounding, tmp_path: Path) -> None:
    graph = integers(name, rounding)
    plan = plan_arena(graph, streamed=True)
    source = graph.inputs[0]
    assert plan.streamed
    assert plan.rings[source] < graph.types[source].shape[0]
    folder = written(graph, plan, tmp_path / "firmware")
    x = codes(graph, 3)
    truth = reference.run(graph, x).tobytes()
    for poison in (0, 0x7F, 0x80):
        assert Native.build(folder).run(x, poison=poison).tobytes() == truth
    ran = Image.link(folder, Core.CORTEX_M4).run(x)
    assert ran.outputs.tobytes() == truth
    assert ran.by_step.sum() <= ran.instructions.sum()


def test_what_arrives_row_by_row_is_never_whole_in_memory(tmp_path: Path) -> None:
    graph = integers("mobilenet")
    whole = plan_arena(graph)
    streamed = plan_arena(graph, streamed=True)
    assert streamed.arena_bytes < min(whole.arena_bytes, graph.types[graph.inputs[0]].bytes)
    header = (written(graph, streamed, tmp_path / "firmware") / "model.h").read_text()
    assert "#define MODEL_ROWS 32\n" in header
    assert "#define MODEL_ROW_BYTES 96\n" in header
    assert "model_run(" not in header


def test_a_first_layer_that_needs_all_at_once_cannot_be_streamed() -> None:
    b = Builder()
    graph = b.graph(b.add(Relu(), b.input("x", (4,), Quant(bits=8, scale=(0.1,))), quant=Quant(bits=8, scale=(0.1,))))
    with pytest.raises(GraphError, match="cannot be streamed"):
        plan_arena(graph, streamed=True)


def test_a_core_that_only_qemu_runs_refuses_streams(tmp_path: Path) -> None:
    graph = integers("lenet5")
    folder = written(graph, plan_arena(graph, streamed=True), tmp_path / "firmware")
    with pytest.raises(ToolError, match="row by row is not run in QEMU"):
        Image.link(folder, Core.CORTEX_M55)


@pytest.mark.parametrize(("streamed", "limit"), [(False, 41_000), (True, 20_000)])
def test_visual_wake_words_fit_small_memories(streamed: bool, limit: int, tmp_path: Path) -> None:
    found = [folder / VWW for folder in places.search_folders() if (folder / VWW).is_file()]
    if not found:
        pytest.skip(f"{VWW} is not among the data")
    given = read_network(found[0])
    graph = simplify_integers(given)
    folder = written(graph, plan_arena(graph, streamed=streamed), tmp_path / "firmware")
    x = codes(graph, 2)
    ran = Image.link(folder, Core.CORTEX_M4).run(x)
    assert ran.outputs.tobytes() == reference.run(given, x).tobytes()
    assert ran.image.ram_bytes + ran.stack_bytes <= limit


def small(first: int, second: int) -> Target:
    target = load_target("stm32f769")
    ram = tuple(memory for memory in target.memories if memory.kind is MemoryKind.RAM)
    flash = (
        Memory(name="flash", kind=MemoryKind.FLASH, bytes=first, source="test"),
        Memory(name="qspi-1", kind=MemoryKind.FLASH, bytes=second, source="test"),
    )
    return replace(target, memories=(*flash, *ram))


def test_weights_that_do_not_fit_lie_in_the_next_memory(tmp_path: Path) -> None:
    """Those of dense layers first, which are read once."""
    graph = integers("lenet5")
    plan = plan_arena(graph)
    assert split_weights(graph, plan, load_target("stm32f769")) == {}
    target = small(CODE_BYTES + 9_000, 1 << 20)
    split = PlanArena().apply(Design(graph=graph, target=target), None)  # type: ignore[arg-type]  # it uses no bench
    design, notes = split
    assert design.plan is not None
    kinds = {type(graph.producers[name].op).__name__ for name in design.plan.weights}
    assert kinds == {"Dense"}
    assert set(design.plan.weights.values()) == {"qspi-1"}
    assert notes["weights"]["qspi-1"] >= sum(
        graph.types[graph.producers[name].inputs[1]].bytes for name in design.plan.weights
    )
    folder = written(graph, design.plan, tmp_path / "firmware", target)
    text = (folder / "model.c").read_text()
    assert text.count("[] MODEL_IN_QSPI_1 = {") == len(design.plan.weights)
    x = codes(graph, 3)
    assert Native.build(folder).run(x).tobytes() == reference.run(graph, x).tobytes()
    assert Image.link(folder, Core.CORTEX_M4).run(x).outputs.tobytes() == reference.run(graph, x).tobytes()


def test_a_network_that_fits_nowhere_can_still_be_emulated(tmp_path: Path) -> None:
    """Bare files are emulated on a core, whatever the memories of a device."""
    graph = integers("lenet5")
    plan = plan_arena(graph)
    assert split_weights(graph, plan, small(CODE_BYTES, 1_000)).keys() <= set(plan.order)
    target = small(CODE_BYTES, 1_000)
    plan = replace(plan, weights=split_weights(graph, plan, target))
    x = codes(graph, 1)
    ran = Image.link(written(graph, plan, tmp_path / "firmware", target), Core.CORTEX_M4).run(x)
    assert ran.outputs.tobytes() == reference.run(graph, x).tobytes()


def test_the_memory_map_has_a_column_for_each_turn() -> None:
    """And what lies over another value is drawn where the plan places it."""
    graph = integers("resnet8")
    plan = plan_arena(graph)
    assert plan.groups
    assert plan.leads
    drawn = memory_map(graph, plan)
    assert len(drawn.steps) == 1 + len(plan.turns) < 1 + len(plan.order)
    assert {box.value.name: box.offset for box in drawn.boxes} == dict(plan.offsets)
    assert max(box.value.dies for box in drawn.boxes) == len(plan.turns)

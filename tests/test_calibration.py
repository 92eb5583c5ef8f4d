import importlib.util
import math
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from crosslayer.hardware.calibration import (
    CMSIS_NN_INSTRUCTIONS,
    RUN_POWER,
    Point,
    Prediction,
    fit,
    leave_one_board_out,
    leave_one_part_out,
    load_points,
    summarize,
)
from crosslayer.hardware.catalogue import load_target

ROOT = Path(__file__).parent.parent
POINTS = load_points()
CYCLES_PER_MAC = {"kws": 2_656_768, "vww": 7_489_664, "ic": 12_501_632, "ad": 264_192}

PARTS = {"a": ("cortex-m4", 1.0), "b": ("cortex-m4", 1.0), "c": ("cortex-m7", 0.6), "d": ("cortex-m7", 0.6)}
WORK = {("stack one", "kws"): 5e6, ("stack one", "ic"): 2e7, ("stack two", "kws"): 8e6, ("stack two", "ic"): 3e7}


def planted(part: str, stack: str, task: str) -> Point:
    core, factor = PARTS[part]
    return Point(
        round="v0",
        submitter="nobody",
        stack=stack,
        board=part,
        part=part,
        core=core,
        megahertz=100,
        supply="not stated",
        task=task,
        latency_ms=factor * WORK[stack, task] / 1e5,
        energy_uj=None,
        source="planted",
    )


SYNTHETIC = [planted(part, stack, task) for part in PARTS for stack, task in WORK]


@pytest.fixture(scope="module")
def predictions() -> tuple[Prediction, ...]:
    return leave_one_part_out(POINTS)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlperf_tiny", ROOT / "benchmarks" / "mlperf_tiny.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_point_names_its_file_and_is_physical() -> None:
    for point in POINTS:
        assert re.match(r"tiny_results_v\d\.\d: closed/\S+/", point.source)
        assert point.source.startswith(f"tiny_results_{point.round}:")
        assert 0.01 < point.cycles / CYCLES_PER_MAC[point.task] < 50
        assert point.joules_per_cycle is None or 0.04e-9 < point.joules_per_cycle < 0.7e-9


def test_no_result_is_listed_twice_and_every_submission_has_all_four_tasks() -> None:
    entries = [(p.round, p.submitter, p.stack, p.board) for p in POINTS]
    assert len({(*entry, p.task) for entry, p in zip(entries, POINTS, strict=True)}) == len(POINTS) == 192
    for entry in set(entries):
        assert [p.task for e, p in zip(entries, POINTS, strict=True) if e == entry] == ["kws", "vww", "ic", "ad"]
    assert sum(p.energy_uj is not None for p in POINTS) == 80


def test_boards_of_one_part_agree_on_its_core() -> None:
    assert len({(p.part, p.core) for p in POINTS}) == len({p.part for p in POINTS})


def test_the_fit_recovers_planted_effects() -> None:
    found = fit(SYNTHETIC)
    assert found.part_effect["c"] - found.part_effect["a"] == pytest.approx(math.log(0.6))
    assert found.work["stack two", "ic"] - found.work["stack one", "ic"] == pytest.approx(math.log(1.5))


def test_planted_points_are_predicted_exactly_with_their_part_left_out() -> None:
    assert [p.latency_error for p in leave_one_part_out(SYNTHETIC)] == pytest.approx([0.0] * len(SYNTHETIC), abs=1e-9)


def test_counted_instructions_reach_a_stack_that_nobody_else_ran() -> None:
    ratio = 1.5
    first = planted("a", "stack one", "kws")
    counted = [
        replace(first, part=part, stack=stack, task=task, latency_ms=ratio * CMSIS_NN_INSTRUCTIONS[task] / 1e5)
        for part, stack in [("a", "microTVM with CMSIS-NN"), ("b", "TFLM with CMSIS-NN")]
        for task in CMSIS_NN_INSTRUCTIONS
    ]
    assert [p.latency_error for p in leave_one_part_out(counted)] == pytest.approx([0.0] * 8, abs=1e-9)


@pytest.mark.parametrize("part", sorted({p.part for p in POINTS}))
def test_what_a_part_measured_does_not_move_its_own_prediction(part: str, predictions: tuple[Prediction, ...]) -> None:
    absurd = [
        replace(p, latency_ms=1e4 * p.latency_ms, energy_uj=p.energy_uj and 7.0) if p.part == part else p
        for p in POINTS
    ]
    pairs = [pair for pair in zip(predictions, leave_one_part_out(absurd), strict=True) if pair[0].point.part == part]
    assert pairs
    for honest, spoiled in pairs:
        assert spoiled.latency_ms == honest.latency_ms
        assert spoiled.energy_uj == honest.energy_uj


def test_what_is_not_predicted_has_a_reason_and_what_is_predicted_has_none(predictions: tuple[Prediction, ...]) -> None:
    for p in predictions:
        assert (p.latency_ms is None) == bool(p.latency_gap)
        assert (p.energy_uj is None) == bool(p.energy_gap)


def test_parts_that_share_no_stack_say_nothing_of_each_other() -> None:
    lone = replace(planted("a", "stack one", "kws"), stack="another", part="e", core="cortex-m33")
    found = fit([*SYNTHETIC, lone])
    linked, unlinked = replace(lone, stack="stack one"), replace(lone, part="f", core="cortex-m7")
    assert found.gap(lone) == ""
    assert found.gap(linked) == "nothing links the parts that ran stack one to those with a cortex-m33"
    assert found.gap(unlinked) == "nothing links the parts that ran another to those with a cortex-m7"
    assert found.cycles(linked) is found.cycles(unlinked) is None


def test_run_power_names_parts_and_supplies_of_the_table() -> None:
    assert RUN_POWER.keys() <= {(p.part, p.supply) for p in POINTS}


def test_summaries_count_what_is_missing() -> None:
    found = summarize([0.1, None, -0.3], limit=0.2)
    assert (found.points, found.predicted, found.within) == (3, 2, 1)
    assert (found.mean, found.largest, found.bias) == pytest.approx((0.2, 0.3, -0.1))


@pytest.mark.parametrize("name", ["stm32h7a3", "stm32l4r5", "stm32u575"])
def test_the_power_of_a_target_covers_what_its_chip_measured(name: str) -> None:
    power = load_target(name).active_power
    assert power is not None
    suspect = ("v1.1", "STMicroelectronics", "ic")  # the two runs behind it disagree in time
    for p in POINTS:
        outside = "external" in p.supply or (name == "stm32l4r5" and (p.round, p.submitter, p.task) == suspect)
        if p.part == name and p.joules_per_cycle is not None and not outside:
            assert power.low <= p.joules_per_cycle <= power.high


def test_the_document_states_the_computed_figures(benchmark: ModuleType, predictions: tuple[Prediction, ...]) -> None:
    text = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    for part in (benchmark.table, benchmark.cycle_energy, benchmark.gaps):
        assert part(predictions) in text
    assert benchmark.by_board(leave_one_board_out(POINTS)) in prose_of(text)
    latency = summarize((p.latency_error for p in predictions), 0.15)
    energy = summarize((p.energy_error for p in predictions if p.point.energy_uj is not None), 0.20)
    prose = " ".join(text.split())
    for found, name in ((latency, "latency"), (energy, "energy")):
        share = f"({found.predicted} of {found.points} points, median {100 * found.median:.1f} %)"
        assert f"{name} {100 * found.mean:.1f} % {share}" in prose
    assert f"{latency.predicted - latency.within} of the {latency.predicted} latencies" in prose
    assert f"{energy.predicted - energy.within} of the {energy.predicted} energies" in prose


def prose_of(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("board", ["NUCLEO-L4R5ZI", "NUCLEO-U575ZI-Q"])
def test_a_board_that_is_left_out_tells_nothing_of_itself(board: str) -> None:
    """Its chip may: that of another board is what its cycles are predicted from."""
    absurd = [
        replace(p, latency_ms=1e4 * p.latency_ms, energy_uj=p.energy_uj and 7.0) if p.board == board else p
        for p in POINTS
    ]
    pairs = zip(leave_one_board_out(POINTS), leave_one_board_out(absurd), strict=True)
    kept = [(honest, spoiled) for honest, spoiled in pairs if honest.point.board == board]
    assert kept
    for honest, spoiled in kept:
        assert spoiled.latency_ms == honest.latency_ms
        assert spoiled.energy_uj == honest.energy_uj
    assert any(
        b.latency_ms != p.latency_ms
        for b, p in zip(leave_one_board_out(POINTS), leave_one_part_out(POINTS), strict=True)
    )


def test_the_plot_has_every_point(benchmark: ModuleType, predictions: tuple[Prediction, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    benchmark.draw(predictions, tmp_path / "calibration.svg")
    legend = len(benchmark.COLOURS) + 1
    for path in (tmp_path / "calibration.svg", ROOT / "docs" / "calibration.svg"):
        markers = re.findall(r"<use [^>]*>", path.read_text(encoding="utf-8"))
        coloured = [m for m in markers if any(colour in m for colour in benchmark.COLOURS.values())]
        assert len(coloured) == 192 + 80 + legend

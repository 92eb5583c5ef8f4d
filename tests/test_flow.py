"""The whole way on a small study: what lies in the folder of a run belongs together."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import TINY, tree
from crosslayer import flow
from crosslayer.core.design import Design, load_design, weight_bytes
from crosslayer.core.sheet import Sheet, load_sheet
from crosslayer.core.target import MemoryKind
from crosslayer.datasets.catalog import load
from crosslayer.evaluate.firmware import check_fit
from crosslayer.execute import exact, reference
from crosslayer.report.figures import amount, spell
from crosslayer.study import Study, load_study, parse_study
from crosslayer.workbench import inputs_for

STUDY = TINY.replace('flash = "64 KiB"', 'flash = "64 KiB"\nram = "1 B"\naccuracy = "1 %"\ndiffering_bytes = 0')


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that has ended: its study, its folder, and what it returned."""

    study: Study
    out: Path
    sheet: Sheet
    heard: tuple[tuple[int, str, bool], ...]

    @property
    def design(self) -> Design:
        return load_design(self.out / "design")

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        return {score["name"]: score for score in json.loads((self.out / "scores.json").read_text())}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("flow") / "out"
    study = parse_study(STUDY, "study")
    heard: list[tuple[int, str, bool]] = []
    sheet = flow.build(flow.prepare(study), out, observe=lambda *told: heard.append(told))
    return Finished(study=study, out=out, sheet=sheet, heard=tuple(heard))


def test_a_run_leaves_these_results(finished: Finished) -> None:
    names = ["design", "firmware", "report.html", "scores.json", "sheet.json", "study.toml"]
    assert sorted(path.name for path in finished.out.iterdir()) == [".work", *names]


def test_the_stages_are_told_as_they_come(finished: Finished) -> None:
    assert finished.study.recipe is not None
    stages = [str(stage) for stage in finished.study.recipe]
    assert finished.heard == tuple(
        (i, text, False) for i, text in enumerate([*stages, "write firmware, verify, measure"])
    )
    assert [step.stage for step in finished.design.trail] == stages


def test_the_saved_design_and_sheet_are_those_of_the_run(finished: Finished) -> None:
    design = finished.design
    assert design == finished.sheet.design
    assert design.plan is not None
    assert design.graph.is_integer
    sheet = load_sheet(finished.out / "sheet.json", design)
    assert (sheet.scores, sheet.verdicts, sheet.layers) == (
        finished.sheet.scores,
        finished.sheet.verdicts,
        finished.sheet.layers,
    )
    assert (sheet.confusion == finished.sheet.confusion).all()


def test_the_scores_are_those_of_the_design(finished: Finished) -> None:
    design, data = finished.design, load("digits")
    found = {name: score["value"] for name, score in finished.scores.items()}
    predicted = exact.run(design.graph, data.test.real()).argmax(axis=-1)
    assert found["accuracy"] == np.mean(predicted == data.test.labels)
    assert found["accuracy_drop"] == found["accuracy_float"] - found["accuracy"]
    assert found["parameters"] == design.graph.parameters
    assert found["macs"] == sum(design.graph.macs.values())
    assert found["weights"] == weight_bytes(design.graph) < found["flash"]
    assert design.plan is not None
    assert found["arena"] == design.plan.arena_bytes
    assert found["ram"] >= found["arena"] + found["stack"]
    assert found["differing_bytes"] == 0
    assert found["latency"] == pytest.approx(
        found["instructions"] * design.target.cycles_per_instruction.value / design.target.clock_hz
    )


def test_layers_and_confusion_add_up_to_the_scores(finished: Finished) -> None:
    sheet, found = finished.sheet, {name: score["value"] for name, score in finished.scores.items()}
    assert sum(layer.macs for layer in sheet.layers) == found["macs"]
    assert sum(layer.weight_bytes for layer in sheet.layers) == found["weights"]
    assert 0 < sum(layer.instructions or 0 for layer in sheet.layers) <= found["instructions"]
    assert np.trace(sheet.confusion) / sheet.confusion.sum() == found["accuracy"]
    assert sheet.confusion.sum() == len(load("digits").test)


def test_verdicts_follow_from_scores(finished: Finished) -> None:
    verdicts = {verdict.requirement: verdict for verdict in finished.sheet.verdicts}
    assert list(verdicts) == [requirement.name for requirement in finished.study.require]
    for name, verdict in verdicts.items():
        value = finished.scores[name]["value"]
        assert verdict.score.value == value
        assert verdict.holds == (value >= verdict.limit if name == "accuracy" else value <= verdict.limit)
    assert not verdicts["ram"].holds
    assert verdicts["differing_bytes"].holds


def test_the_report_names_every_score(finished: Finished) -> None:
    page = (finished.out / "report.html").read_text()
    for score in finished.sheet.scores:
        assert escape(spell(score.name)) in page
        assert escape(amount(score.value, score.unit)) in page


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="needs make and cc")
def test_the_firmware_passes_its_own_test(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.out / "firmware", tmp_path / "firmware")
    done = subprocess.run(["make", "-C", tmp_path / "firmware", "test"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_golden_outputs_are_those_of_the_reference(finished: Finished) -> None:
    design = finished.design
    inputs = reference.encode_input(design.graph, load("digits").validation.real(slice(0, 4)))
    golden = (finished.out / "firmware" / "golden.h").read_text()
    listed = ", ".join(map(str, reference.run(design.graph, inputs)[0].tolist()))
    assert listed in " ".join(golden.split())


def test_the_written_study_makes_all_of_it_again(finished: Finished, tmp_path: Path) -> None:
    study = load_study(finished.out / "study.toml")
    assert study == finished.study
    flow.build(flow.prepare(study), tmp_path / "out")
    for name in ("design", "firmware"):
        assert tree(tmp_path / "out" / name) == tree(finished.out / name)
    for name in ("study.toml", "scores.json", "report.html", "sheet.json"):
        assert (tmp_path / "out" / name).read_bytes() == (finished.out / name).read_bytes()


def test_the_firmware_fits_the_target_or_the_run_says_so(finished: Finished) -> None:
    found = finished.scores
    for kind in MemoryKind:
        check_fit({kind: int(found[kind.value]["value"])}, finished.design.target, "the firmware")


def test_inputs_without_data_are_codes_over_the_whole_range(finished: Finished) -> None:
    codes = inputs_for(finished.design, None, 200, 0)
    assert codes.dtype == np.int8
    assert codes.shape == (200, 8, 8, 1)
    assert (codes.min(), codes.max()) == (-128, 127)
    assert (codes == inputs_for(finished.design, None, 200, 0)).all()
    assert (codes != inputs_for(finished.design, None, 200, 1)).any()

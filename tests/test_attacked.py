"""Designs under attack: in a study, on the command line, in the report; judged by the C."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from commands import TINY, Answer, call
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.sensor import Sensor
from crosslayer.core.dataset import Split
from crosslayer.core.design import load_design
from crosslayer.core.errors import InputError
from crosslayer.core.robustness import Check
from crosslayer.core.sheet import load_sheet
from crosslayer.datasets.catalog import load
from crosslayer.evaluate import attacked, robustness
from crosslayer.evaluate.robustness import Trial, attack_set
from crosslayer.execute import exact
from crosslayer.networks.zoo import network
from crosslayer.write.tflite import write_tflite

STUDY = TINY.replace("epochs = 1", "epochs = 12").replace(
    "[require]",
    '[attack]\nbudget = "linf 2/16"\nsamples = 40\nsticker = "patch 0.4"\n[require]\nrobust_accuracy = 0.0',
)


def few(budget: Budget, classes: int, effort: int = 1) -> tuple[Trial, ...]:
    """The set without what takes long."""
    names = ("noise", "fgsm gated", "pgd gated ce", "apgd leaky ce", "transfer")
    return tuple(trial for trial in attack_set(budget, classes, effort) if trial.name in names)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "attack_set", few)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with attacks."""
    home = tmp_path_factory.mktemp("attacked")
    (home / "study.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "attack_set", few)
        answer = call("run", home / "study.toml", "--out", home / "run")
    assert answer.status == 0, answer.err
    return home / "run"


def answered(answer: Answer) -> dict[str, Any]:
    document = json.loads(answer.out)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", ["digits"])
def test_a_sensor_gives_a_data_set_back_to_the_bit(name: str) -> None:
    data = load(name)
    sensor = Sensor.of(data.train)
    x = sensor.shares(data.test.real())
    assert np.array_equal(sensor.codes(x), data.test.codes)
    assert np.array_equal(sensor.real(x), data.test.real())
    assert x.min() >= 0
    assert x.max() <= 1


def test_a_sensor_of_real_values_has_no_grid() -> None:
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    sensor = Sensor.of(Split(codes=values, labels=np.zeros(20, np.int64)))
    assert sensor.steps == 0
    assert np.allclose(sensor.real(sensor.shares(values)), values, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "norm", "size"),
    [
        ("linf 8/255", Norm.LINF, 8 / 255),
        ("L2 0.5", Norm.L2, 0.5),
        ("l0 3", Norm.L0, 3),
        ("patch 0.05", Norm.PATCH, 0.05),
    ],
)
def test_a_budget_is_read_as_it_is_written(text: str, norm: Norm, size: float) -> None:
    budget = Budget.parse(text)
    assert (budget.norm, budget.size) == (norm, size)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "norm '' is not known"),
        ("linfty 0.1", "did you mean 'linf'?"),
        ("linf", "'' is no number; write such as linf 8/255"),
        ("linf 1/0", "'1/0' is no number"),
        ("linf 2", "the size must be in 0…1"),
        ("l0 0.5", "the size must be a whole number"),
        ("l2 -1", "the size must be at least 0"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match="budget") as refusal:
        Budget.parse(text)
    assert says in str(refusal.value)


images = arrays(np.float32, (3, 5, 4, 2), elements=st.floats(0, 1, width=32))


@given(images, images, st.sampled_from(["linf 0.1", "linf 7/255", "l2 0.7", "l0 3"]), st.sampled_from([0, 16, 255]))
def test_what_is_projected_and_put_on_the_grid_is_within_the_budget(x: Any, origin: Any, text: str, steps: int) -> None:
    budget = Budget.parse(text)
    if steps:
        origin = (np.rint(origin * np.float32(steps)) / np.float32(steps)).astype(np.float32)
    near = budget.project(x, origin)
    on_grid = budget.snap(near, origin, steps)
    assert budget.holds(near, origin).all()
    assert budget.holds(on_grid, origin).all()
    if steps:
        assert np.abs(on_grid * steps - np.rint(on_grid * steps)).max() < 1e-3


@given(images, images)
def test_what_is_within_the_budget_already_stays(x: Any, origin: Any) -> None:
    budget = Budget(Norm.LINF, 0.25)
    inside = budget.project(x, origin)
    assert np.array_equal(budget.project(inside, origin), inside)


def test_a_study_with_attacks_says_what_was_not_broken(folder: Path) -> None:
    sheet = load_sheet(folder / "sheet.json", load_design(folder / "design"))
    found = sheet.robustness
    assert found is not None
    assert found.differing == 0
    assert found.replayed == 40
    assert found.score.value <= found.clean.value
    assert all(one.right / one.samples >= found.score.value for one in found.attacks)
    assert [score for score in sheet.scores if score.name == "robust_accuracy"] == [found.score]
    page = (folder / "report.html").read_text()
    assert "Under attack" in page
    assert all(check.name in page for check in found.checks)


def test_the_stored_samples_are_within_the_budget_and_give_the_figure(folder: Path) -> None:
    stored = safetensors.numpy.load_file(folder / "attacked.safetensors")
    design = load_design(folder / "design")
    assert stored["attacked"].dtype == np.uint8
    assert np.abs(stored["attacked"].astype(int) - stored["samples"]).max() <= 2
    test = load("digits").test
    real = stored["attacked"].astype(np.float32) * np.float32(test.scale) + np.float32(test.offset)
    called = exact.run(design.graph, real).reshape(len(real), -1).argmax(1)
    assert np.array_equal(called, stored["called"])
    found = load_sheet(folder / "sheet.json", design).robustness
    assert found is not None
    if found.believable:
        assert (called == stored["labels"]).mean() >= found.score.value


def test_the_command_gives_the_figures_of_the_study(folder: Path, tmp_path: Path) -> None:
    options = ("--data", "digits", "--budget", "linf 2/16", "--samples", 40, "--json")
    answer = call("attack", folder, *map(str, options), "--out", tmp_path / "found.safetensors")
    found = answered(answer)
    sheet = load_sheet(folder / "sheet.json", load_design(folder / "design"))
    assert sheet.robustness is not None
    assert found["score"]["value"] == sheet.robustness.score.value
    assert answer.status == (0 if found["believable"] else 3)
    assert (tmp_path / "found.safetensors").read_bytes() == (folder / "attacked.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "budget"), [("pgd", "linf 2/16"), ("one-pixel", "l0 1"), ("patch-search", "patch 0.1")]
)
def test_one_attack_alone_is_replayed_on_the_c(name: str, budget: str, folder: Path, tmp_path: Path) -> None:
    options = ("--data", "digits", "--budget", budget, "--samples", "40", "--alone", name)
    found = answered(call("attack", folder, *options, "--out", tmp_path / "found.safetensors", "--json"))
    stored = safetensors.numpy.load_file(tmp_path / "found.safetensors")
    assert found["score"]["value"] == (stored["called"] == stored["labels"]).mean() < found["clean"]["value"]
    assert found["differing"] == 0
    shares = stored["attacked"] / np.float32(16)
    assert Budget.parse(budget).holds(shares, stored["samples"] / np.float32(16)).all()
    whole = safetensors.numpy.load_file(folder / "attacked.safetensors")
    assert np.array_equal(stored["samples"], whole["samples"])
    answer = call("attack", folder, *options, "--out", tmp_path / "found.safetensors")
    assert answer.status == 0
    assert f"left right by {name}(" in answer.out
    assert "Other attacks may find more." in " ".join(answer.out.split())


def test_nothing_is_claimed_where_a_check_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Check(name="planted", holds=False, finding="nothing")
    monkeypatch.setattr(attacked, "checks", lambda victim, outcome: (failed,))
    out = ("--out", tmp_path / "found.safetensors")
    answer = call("attack", folder, "--data", "digits", "--budget", "linf 1/16", "--samples", "20", "--json", *out)
    found = answered(answer)
    assert answer.status == 3
    assert found["believable"] is False
    assert (found["score"]["value"], found["score"]["low"], found["score"]["high"]) == (0.0, 0.0, 1.0)
    assert found["score"]["note"].startswith("withheld")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data", "digits", "--budget", "l0 3"), "evaluations are made under linf and l2"),
        (("--data", "digits", "--budget", "8/255"), "norm '8/255' is not known"),
        (("--data", "nothing", "--budget", "linf 0.1"), "nothing"),
        (("--data", "digits", "--budget", "l0 1", "--alone", "one-pixl"), "did you mean 'one-pixel'?"),
        (("--data", "digits", "--budget", "l0 1", "--alone", "pgd"), "pgd works under"),
        (("--data", "digits", "--budget", "l0 1", "--alone", "one-pixel", "--effort", "2"), "leave it or --alone out"),
    ],
)
def test_a_wrong_question_gets_one_answer(folder: Path, tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    answer = call("attack", folder, *options, "--out", tmp_path / "found.safetensors")
    assert answer.status == 2
    assert says in " ".join(answer.err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_sticker_of_a_study_beats_noise_on_the_c(folder: Path) -> None:
    found = load_sheet(folder / "sheet.json", load_design(folder / "design")).sticker
    assert found is not None
    assert found.target is None and found.replayed == 40 and found.differing == 0
    assert found.values.shape == (5, 5, 1)
    assert found.score.value > found.noise.value + 0.1
    assert found.score.low < found.score.value < found.score.high
    assert all(e.before == e.label != e.after for e in found.examples)
    scores = json.loads((folder / "scores.json").read_text())
    assert found.score.value in [score["value"] for score in scores if score["name"] == "sticker_success"]
    page = " ".join((folder / "report.html").read_text().split())
    assert "A sticker of patch 0.4 makes" in page and "of the images something else" in page


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('sticker = "linf 0.1"', "sticker must be a budget such as 'patch 0.1'"),
        ('target = "1"', "target is that of a sticker"),
        ('sticker = "patch 0.25"\ntarget = "cat"', "attack.target: known are: 0, 1"),
        ('sticker = "patch 0.001"', "covers no pixel of 8×8"),
    ],
)
def test_a_sticker_that_means_nothing_is_refused(tmp_path: Path, lines: str, says: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(TINY.replace("[require]", f'[attack]\nbudget = "linf 2/16"\n{lines}\n[require]'))
    answer = call("run", path, "--out", tmp_path / "run")
    assert answer.status == 2
    assert says in " ".join(answer.err.split())
    assert not (tmp_path / "run").exists()


def test_a_requirement_of_robustness_needs_attacks(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(TINY.replace("[require]", "[require]\nrobust_accuracy = 0.5"))
    answer = call("run", path, "--out", tmp_path / "run")
    assert answer.status == 2
    assert "add [attack]" in " ".join(answer.err.split())


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small float network, not trained yet, as a file."""
    path = tmp_path_factory.mktemp("floats") / "floats.tflite"
    path.write_bytes(write_tflite(network("lenet5", (8, 8, 1), 10, 0)))
    return path


@pytest.mark.parametrize("method", ["pgd", "fast", "certified"])
def test_a_hardened_network_is_an_integer_design(floats: Path, tmp_path: Path, method: str) -> None:
    options = ("--data", "digits", "--budget", "linf 1/16", "--method", method, "--epochs", "2", "--json")
    found = answered(call("harden", floats, tmp_path / "hard", *options))
    assert load_design(tmp_path / "hard").graph.is_integer
    assert 0 < found["accuracy"] <= 1
    assert ("certified_accuracy" if method == "certified" else "robust_accuracy") in found


def test_a_certificate_is_a_share_with_its_interval(folder: Path) -> None:
    none, all_ = (
        answered(call("certify", folder, "--data", "digits", "--budget", f"linf {size}", "--samples", "50", "--json"))
        for size in ("1", "0")
    )
    assert none["value"] == 0
    assert all_["low"] <= all_["value"] <= all_["high"]
    test = load("digits").test.take(slice(0, 50))
    called = exact.run(load_design(folder / "design").graph, test.real()).reshape(50, -1).argmax(1)
    assert 0.1 < all_["value"] <= (called == test.labels).mean()
    assert "certified on the integers" in all_["note"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("harden", "--budget", "l2 0.5"), "training defends against linf only"),
        (("harden", "--budget", "linf 0"), "epsilon must be above 0"),
        (("harden", "--budget", "linf 0.1", "--method", "prayer"), "'prayer'"),
        (("certify", "--budget", "linf 0.1"), "this is a float network; quantize it first"),
        (("attack", "--budget", "linf 0.1"), "this is a float network; quantize it first"),
    ],
)
def test_what_cannot_be_done_is_said_and_writes_nothing(
    floats: Path, tmp_path: Path, command: tuple[str, ...], says: str
) -> None:
    name, *options = command
    out = {"harden": (tmp_path / "out",), "attack": ("--out", tmp_path / "out"), "certify": ()}[name]
    answer = call(name, floats, *out, "--data", "digits", *options)
    assert answer.status == 2
    assert says in " ".join(answer.err.split())
    assert list(tmp_path.iterdir()) == []

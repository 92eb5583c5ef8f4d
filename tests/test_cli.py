"""The commands: what they print, on which stream, and how they end."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from commands import TINY, Answer, call, ended, spawn
from crosslayer.datasets import download
from crosslayer.datasets.catalog import catalog
from crosslayer.execute.emulate import runnable_cores
from crosslayer.hardware.catalogue import list_targets
from crosslayer.networks.zoo import NETWORKS
from crosslayer.study import STAGES
from datasets_server import serving

COMMANDS = (
    "run",
    "inspect",
    "convert",
    "quantize",
    "emit",
    "harden",
    "verify",
    "attack",
    "certify",
    "reject",
    "audit",
    "emulate",
    "report",
    "targets",
    "datasets",
    "networks",
    "stages",
)
SCORES = {
    "accuracy_float": ("1", "higher", "measured"),
    "accuracy": ("1", "higher", "measured"),
    "accuracy_drop": ("1", "lower", "measured"),
    "parameters": ("", "lower", "measured"),
    "macs": ("", "lower", "measured"),
    "flash": ("B", "lower", "measured"),
    "weights": ("B", "lower", "measured"),
    "ram": ("B", "lower", "measured"),
    "arena": ("B", "lower", "measured"),
    "stack": ("B", "lower", "emulated"),
    "instructions": ("", "lower", "emulated"),
    "latency": ("s", "lower", "modelled"),
    "energy": ("J", "lower", "modelled"),
    "differing_bytes": ("B", "lower", "measured"),
}
"""Unit, better direction and origin of each score of a run."""

JUDGED = ("accuracy", "parameters", "macs", "flash", "ram", "energy")
"""The scores that are also known after each stage."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def finished(study: Path) -> Answer:
    """The answer of a run with --json; its folder lies beside the study."""
    return call("run", study, "--out", study.parent / "out", "--json")


def only_object(answer: Answer) -> dict[str, Any]:
    """The one JSON object on stdout."""
    assert answer.status in (0, 3), answer
    assert answer.out.endswith("}\n")
    assert answer.out.count("\n") == 1
    found = json.loads(answer.out)
    assert isinstance(found, dict)
    return found


def test_a_run_prints_one_object_and_tells_its_progress_on_stderr(study: Path, finished: Answer) -> None:
    assert finished.status == 0
    found = only_object(finished)
    assert list(found) == ["out", "scores", "verdicts"]
    assert found["out"] == str(study.parent / "out")
    assert found["scores"] == json.loads((study.parent / "out" / "scores.json").read_text())
    (verdict,) = found["verdicts"]
    assert list(verdict) == ["requirement", "limit", "written", "score", "holds"]
    assert (verdict["requirement"], verdict["limit"], verdict["written"]) == ("flash", 65536.0, "64 KiB")
    assert verdict["holds"] is True
    lines = finished.err.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isdigit()] == [f"{i}/6" for i in range(1, 7)]
    assert lines[0] == "1/6 train(epochs=1, batch=128, rate=0.002, decay=0.0001, shift=0, flip=false, bfloat16=false)"


def test_scores_have_this_form(study: Path, finished: Answer) -> None:
    assert finished.status == 0
    scores = json.loads((study.parent / "out" / "scores.json").read_text())
    assert {s["name"]: (s["unit"], s["better"], s["origin"]) for s in scores} == SCORES
    stages = ["train", "fold-norms", "fuse-activations", "quantize-affine", "plan-arena"]
    for score in scores:
        keys = {"name", "value", "unit", "better", "origin", "low", "high", "note", "trail"}
        assert set(score) == keys
        assert score["low"] <= score["value"] <= score["high"]
        assert all(type(score[key]) is float for key in ("low", "value", "high"))
        steps = [step["stage"].partition("(")[0] for step in score["trail"]]
        assert steps == (stages if score["name"] in JUDGED else [])
        for step in score["trail"]:
            assert set(step) == keys - {"trail"} | {"stage"}
            assert step["name"] == score["name"]


def test_the_report_of_a_run_is_made_again(study: Path, finished: Answer) -> None:
    page = study.parent / "out" / "report.html"
    before = page.read_bytes()
    page.unlink()
    answer = call("report", study.parent / "out", "--json")
    assert only_object(answer) == only_object(finished)
    assert (answer.status, answer.err) == (0, "")
    assert page.read_bytes() == before


def test_for_people_a_run_ends_with_a_table(study: Path, finished: Answer) -> None:
    assert finished.status == 0
    answer = call("report", study.parent / "out")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["figure", "value", "interval", "origin", "required", "verdict"]
    assert lines[1].split()[:1] + lines[1].split()[-4:] == ["Flash", "≤", "64", "KiB", "holds"]
    assert lines[-1] == f"report: {study.parent / 'out' / 'report.html'}"


def test_brackets_in_a_name_are_shown_as_they_are(study: Path, finished: Answer, tmp_path: Path) -> None:
    assert finished.status == 0
    shutil.copytree(study.parent / "out", tmp_path / "[bold]a[b]")
    assert call("report", tmp_path / "[bold]a[b]").out.endswith("[bold]a[b]/report.html\n")
    assert "[/no]" in call("inspect", tmp_path / "[/no]").err


def test_a_requirement_that_does_not_hold_is_status_3(study: Path, finished: Answer, tmp_path: Path) -> None:
    assert finished.status == 0
    (tmp_path / "study.toml").write_text(TINY.replace('"64 KiB"', '"1 B"'))
    answer = call("run", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert answer.status == 3
    (verdict,) = only_object(answer)["verdicts"]
    assert verdict["holds"] is False
    assert (tmp_path / "out" / "scores.json").is_file()
    assert call("report", tmp_path / "out", "--json").status == 3


@pytest.mark.parametrize("source", ["lenet5", "{run}", "{run}/design"])
def test_inspect_prints_nodes_scores_and_what_fits(source: str, study: Path, finished: Answer) -> None:
    assert finished.status == 0
    answer = call("inspect", source.format(run=study.parent / "out"), "--target", "stm32l4r5", "--json")
    found = only_object(answer)
    assert answer.err == ""
    assert set(found) == {"target", "nodes", "scores", "fits"}
    assert found["target"] == "stm32l4r5"
    assert found["nodes"][0]["name"] == "conv1"
    columns = {"name", "operation", "output", "parameters", "macs", "instructions"}
    assert all(set(node) == columns for node in found["nodes"])
    names = [score["name"] for score in found["scores"] if score["name"] != "instructions"]
    assert names == ["parameters", "macs", "flash", "ram", "latency", "energy"]
    assert found["fits"] == {"flash": True, "ram": True}


def test_inspect_needs_no_number_of_its_own(study: Path, finished: Answer) -> None:
    """What is counted before and after a run is the same."""
    ran = {score["name"]: score["value"] for score in only_object(finished)["scores"]}
    fresh = only_object(call("inspect", "lenet5", "--shape", "8,8,1", "--json"))
    seen = {score["name"]: score["value"] for score in fresh["scores"]}
    assert (seen["parameters"], seen["macs"]) == (ran["parameters"], ran["macs"])


def test_verify_finds_no_difference_on_any_executor(study: Path, finished: Answer) -> None:
    assert finished.status == 0
    answer = call("verify", study.parent / "out", "--samples", "20", "--emulated", "1", "--json")
    assert (answer.status, answer.err) == (0, "")
    found = only_object(answer)
    assert found["differing_bytes"] == 0
    samples = {row["executor"]: row["samples"] for row in found["executors"]}
    assert samples == {"exact": 20, "native": 20} | {core.value: 1 for core in runnable_cores()}
    assert all(row["differing_bytes"] == 0 for row in found["executors"])


def test_a_differing_byte_is_status_3(study: Path, finished: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    from crosslayer.execute import exact

    assert finished.status == 0
    right = exact.run
    monkeypatch.setattr("crosslayer.execute.exact.run", lambda graph, x: right(graph, x) ^ 1)
    answer = call("verify", study.parent / "out", "--samples", "2", "--emulated", "1", "--data", "digits", "--json")
    assert answer.status == 3
    assert only_object(answer)["differing_bytes"] == 2 * 10


def test_emit_writes_a_project_and_says_what_it_takes(study: Path, finished: Answer, tmp_path: Path) -> None:
    assert finished.status == 0
    arguments = ("emit", study.parent / "out", "--out", tmp_path / "c", "--package", "zephyr", "--samples", "3")
    quick = only_object(call(*arguments, "--no-verify", "--json"))
    assert list(quick) == ["out", "package", "macs", "weights", "arena"]
    assert (tmp_path / "c" / "src" / "model.h").is_file()
    found = only_object(call(*arguments, "--json"))
    judged = ["core", "flash", "ram", "stack_bound", "samples", "differing_bytes"]
    assert list(found) == [*quick, *judged]
    assert (found["core"], found["samples"], found["differing_bytes"]) == ("cortex-m7", 3, 0)
    ran = {score["name"]: score["value"] for score in only_object(finished)["scores"]}
    assert [found[name] for name in ("macs", "weights", "arena", "flash")] == [
        ran[name] for name in ("macs", "weights", "arena", "flash")
    ]
    assert "stack_bound" in call(*arguments).out


def test_emit_refuses_what_it_does_not_know_and_what_it_would_overwrite(study: Path, tmp_path: Path) -> None:
    run = study.parent / "out"
    answer = call("emit", run, "--out", tmp_path / "c", "--package", "deb")
    assert (answer.status, answer.out) == (2, "")
    assert "--package" in answer.err and "cmsis-pack" in answer.err
    answer = call("emit", run, "--out", study.parent)
    assert answer.status == 2 and "is there and is no plain firmware" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_emulate_prints_the_figures_of_a_core(study: Path, finished: Answer) -> None:
    arguments = ("emulate", study.parent / "out", "--core", "cortex-m7", "--samples", "2", "--data", "digits")
    found = only_object(call(*arguments, "--json"))
    assert list(found) == ["core", "samples", "instructions", "flash", "ram", "stack", "stack_bound", "differing_bytes"]
    assert (found["core"], found["samples"], found["differing_bytes"]) == ("cortex-m7", 2, 0)
    ran = {score["name"]: score["value"] for score in only_object(finished)["scores"]}
    assert [found[name] for name in ("instructions", "flash", "ram", "stack")] == [
        ran[name] for name in ("instructions", "flash", "ram", "stack")
    ]
    assert "cortex-m7" in call(*arguments).out


def test_the_listings_name_everything_there_is() -> None:
    listed = {
        "targets": [target.name for target in list_targets()],
        "networks": list(NETWORKS),
        "stages": [stage.name() for stage in STAGES],
        "datasets": [source.name for source in catalog()],
    }
    for command, names in listed.items():
        answer = call(command, "--json")
        assert (answer.status, answer.err) == (0, "")
        rows = only_object(answer)
        assert list(rows) == [command]
        assert [row["name"] for row in rows[command]] == names
        shown = call(command)
        assert (shown.status, shown.err) == (0, "")
        assert all(name in shown.out for name in names)


def test_stages_show_parameters_that_a_study_file_takes() -> None:
    (train,) = [s for s in only_object(call("stages", "--json"))["stages"] if s["name"] == "train"]
    assert train["parameters"]["epochs"] == 10
    assert train["what"].startswith("Trains all weights")


def test_a_data_set_is_fetched_with_progress_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 4096
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr("crosslayer.datasets.places.cache_folder", lambda: tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({"one.gz": content}) as server:
        published = download.Download(
            name="one.gz", url="http://127.0.0.1:9/one.gz", bytes=len(content), digests={"sha256": digest}
        )
        monkeypatch.setattr(download, "downloads", lambda _name: (published,))
        answer = call("datasets", "get", "mnist", "--url", server.base_url, "--json")
    assert only_object(answer) == {"name": "mnist", "path": str(tmp_path / "mnist")}
    assert (tmp_path / "mnist" / "one.gz").read_bytes() == content


def test_a_refused_download_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosslayer.datasets.places.cache_folder", lambda: tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({}) as server:
        answer = call("datasets", "get", "mnist", "--url", server.base_url, "--json")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {server.base_url}/")
    assert "the server refused (404" in answer.err


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), ("datasets", "get")], ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    answer = call(*command, "--help")
    assert (answer.status, answer.err) == (0, "")
    assert f"Usage: {' '.join(('crosslayer', *command))}" in answer.out
    if command:
        assert "--json" in answer.out
    else:
        assert all(name in answer.out for name in COMMANDS)


def test_without_a_command_the_help_is_shown() -> None:
    assert "Usage: crosslayer" in call().out


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after some code ran in a fresh interpreter."""
    code += "\nimport sys\nprint(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


HELP = """
import sys
from crosslayer.cli import main
sys.argv = ["crosslayer", "--help"]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", ["import crosslayer", HELP, "import crosslayer.flow"])
def test_heavy_packages_are_loaded_by_who_needs_them(code: str) -> None:
    heavy = {"torch", "onnx", "tensorflow", "sklearn", "scipy", "unicorn", "elftools"}
    assert not heavy & loaded_by(code)


def test_help_loads_no_noun() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP + "print(*(n for n in sys.modules if 'crosslayer' in n), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    others = {name for name in done.stderr.split() if not name.startswith("crosslayer.cli")}
    assert others <= {"crosslayer", "crosslayer.core", "crosslayer.core.codec", "crosslayer.core.errors"}


def test_ctrl_c_ends_a_run_with_status_130_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(TINY.replace("epochs = 1", "epochs = 100000"))
    process = spawn("run", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    while not list(tmp_path.glob("out/.work/*.scratch/training.safetensors")):
        assert process.poll() is None, ended(process)
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    answer = ended(process)
    assert (answer.status, answer.out) == (130, "")
    assert answer.err.splitlines()[1:] == ["interrupted; run the same command with --resume to go on"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".work", "study.toml"]


def test_stdout_that_is_full_is_one_message(study: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this computer has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", HELP.replace("--help", "networks").replace("pass", "raise")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: the system: No space left on device; free space or choose another folder\n"


def test_a_reader_that_goes_away_is_no_crash() -> None:
    process = spawn("stages", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1)
    assert "Traceback" not in said

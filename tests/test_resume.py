"""A run that is killed at any point and resumed until it ends gives the bytes of one that was left alone.

Processes come from a server that has everything imported, so that one costs little more than its work. A process kills
itself with SIGKILL before the chosen one of its steps on files: opening to write, renaming, making, removing. What it
was writing is cut in half first, as a kill in the middle of a write would leave it.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosslayer.core.design import load_design
from crosslayer.datasets.catalog import load

RESULTS = ("study.toml", "design", "firmware", "sheet.json", "report.html", "scores.json")
STUDY = """
seed = 3
samples = 2
[network]
source = "lenet5"
[data]
source = "{data}"
[target]
name = "stm32f769"
[require]
flash = "64 KiB"
accuracy_drop = 1
[[stage]]
use = "train"
epochs = 2
batch = 64
[[stage]]
use = "prune-channels"
patience = 1
keep = 0.8
drop = 0.1
[stage.tuning]
epochs = 2
rate = 0.001
decay = 0.0
[[stage]]
use = "fine-tune"
epochs = 2
[[stage]]
use = "fold-norms"
[[stage]]
use = "fuse-activations"
[[stage]]
use = "quantize-affine"
samples = 64
[[stage]]
use = "plan-arena"
"""

LOADED = (
    *("crosslayer.cli", "crosslayer.flow", "crosslayer.execute.torch", "torch._dynamo"),
    *("matplotlib.figure", "matplotlib.backends.backend_svg", "unicorn.arm_const", "elftools.elf.elffile"),
)
"""What a run loads sooner or later."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """When a process signals itself: before a step on files or the saving of one file, each counted from 1, or some
    seconds after its start."""

    step: int = 0
    file: str = ""
    saving: int = 0
    after_s: float = 0.0
    by: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The exit status, negative for the signal that ended the process, and what it said; how many steps it took."""

    status: int
    said: str
    steps: int


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs `crosslayer run` on a study, each time in a process of its own."""

    server: ForkServerContext
    study: Path
    notes: Path

    def __call__(self, out: Path, *options: str, cut: Cut | None = None) -> Outcome:
        arguments = ["run", str(self.study), "--out", str(out), *options]
        process = self.server.Process(target=live, args=(arguments, str(out), str(self.notes), cut or Cut()))
        process.start()
        process.join()
        assert process.exitcode is not None
        said = (self.notes / "said").read_text()
        steps = self.notes / "steps"
        return Outcome(status=process.exitcode, said=said, steps=int(steps.read_text()) if process.exitcode >= 0 else 0)


def live(arguments: list[str], out: str, notes: str, cut: Cut) -> None:
    """The life of one process: the command line, until the cut."""
    sys.stdout = sys.stderr = Path(notes, "said").open("w", buffering=1)  # noqa: SIM115  # open until the process ends
    steps = savings = 0

    def hear(event: str, details: tuple[Any, ...]) -> None:
        nonlocal steps, savings
        opens = event == "open" and any(letter in str(details[1]) for letter in "wax")
        moves = event in ("os.mkdir", "os.rename") or opens
        removes = event in ("os.remove", "os.rmdir")  # by names within an open folder, where a whole tree is removed
        if (moves and str(details[0]).startswith(out)) or removes:
            steps += 1
            savings += event == "os.rename" and Path(details[1]).name == cut.file
            if steps == cut.step or (cut.saving and savings == cut.saving):
                if cut.by is signal.SIGKILL:
                    tear(Path(out))
                os.kill(os.getpid(), cut.by)

    sys.addaudithook(hear)
    if cut.after_s:
        threading.Timer(cut.after_s, os.kill, (os.getpid(), cut.by)).start()
    sys.argv = ["crosslayer", *arguments]
    from crosslayer.cli import main

    try:
        main()
    finally:
        Path(notes, "steps").write_text(str(steps))


def tear(out: Path) -> None:
    """Cut what is being written in half."""
    for path in out.rglob("*"):
        if ".partial" in str(path) and path.is_file():
            os.truncate(path, path.stat().st_size // 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Generator[Runner]:
    folder = tmp_path_factory.mktemp("study")
    digits = load("digits")
    splits = (("train", digits.train, 500), ("val", digits.validation, 100), ("test", digits.test, 100))
    arrays = {f"x_{name}": split.real(slice(0, count)) for name, split, count in splits}
    arrays |= {f"y_{name}": split.labels[:count] for name, split, count in splits}
    np.savez(folder / "digits.npz", **arrays)
    (folder / "study.toml").write_text(STUDY.format(data=folder / "digits.npz"))
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["__main__", *LOADED])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # on a busy computer, threads that wait for each other take far longer
        yield Runner(server=server, study=folder / "study.toml", notes=tmp_path_factory.mktemp("notes"))


@pytest.fixture(scope="module")
def undisturbed(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(out).status == 0
    return out


def contents(path: Path) -> dict[str, bytes]:
    """All files below a folder, or the one file."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


def assert_whole(out: Path, undisturbed: Path) -> None:
    """What lies under a final name is all there, and nothing else is in sight."""
    seen = [path for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
    assert {path.name for path in seen} <= set(RESULTS)
    for path in seen:
        assert contents(path) == contents(undisturbed / path.name)


def assert_ended_alike(outcome: Outcome, out: Path, undisturbed: Path) -> None:
    """The results are the undisturbed ones, no traces are left, and there was nothing to warn of."""
    assert outcome.status == 0, outcome.said
    assert "Warning" not in outcome.said
    assert_whole(out, undisturbed)
    assert sorted(p.name for p in out.iterdir()) == sorted((".work", *RESULTS))
    assert [p.name for p in (out / ".work").iterdir() if p.name.startswith(".") or p.suffix == ".scratch"] == []


def kill_until_the_end(run: Runner, out: Path, undisturbed: Path, chance: random.Random, *, steps: int) -> int:
    """Resume and kill, again and again, until a run gets through; how many were killed."""
    for killed in range(100):
        outcome = run(out, "--resume", cut=Cut(step=chance.randrange(1, steps)))
        if outcome.status >= 0:
            assert_ended_alike(outcome, out, undisturbed)
            return killed
        assert outcome.status == -signal.SIGKILL, outcome.said
        assert_whole(out, undisturbed)
    raise AssertionError("never got through")


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_again_and_again_ends_as_if_left_alone(
    seed: int, run: Runner, undisturbed: Path, tmp_path: Path
) -> None:
    killed = kill_until_the_end(run, tmp_path / "out", undisturbed, random.Random(seed), steps=180)
    assert killed > 0


@pytest.mark.parametrize(("file", "saving"), [("training", 2), ("turn1", 2), ("training", 4)])
def test_a_training_killed_in_its_second_epoch_learns_the_same(
    file: str, saving: int, run: Runner, undisturbed: Path, tmp_path: Path
) -> None:
    """In `train`, in the first turn of `prune-channels`, and in `fine-tune`."""
    out = tmp_path / "out"
    assert run(out, cut=Cut(file=f"{file}.safetensors", saving=saving)).status == -signal.SIGKILL
    assert_ended_alike(run(out, "--resume"), out, undisturbed)


@pytest.mark.parametrize("file", ["design", "manifest.json", "firmware", "sheet.json", "report.html", "scores.json"])
def test_results_are_whole_while_the_next_one_is_written(
    file: str, run: Runner, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)  # so that all stages are done before
    assert run(out, "--resume", cut=Cut(file=file, saving=1)).status == -signal.SIGKILL
    assert_whole(out, undisturbed)
    assert_ended_alike(run(out, "--resume"), out, undisturbed)


def test_a_kill_in_the_middle_of_the_work_is_survived_too(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    out, chance = tmp_path / "out", random.Random(0)
    for _ in range(4):
        outcome = run(out, "--resume", cut=Cut(after_s=chance.uniform(0.05, 0.8)))
        assert outcome.status in (0, -signal.SIGKILL), outcome.said
        assert_whole(out, undisturbed)
    assert_ended_alike(run(out, "--resume"), out, undisturbed)


def test_finished_results_are_whole_or_gone_while_a_run_starts_afresh(
    run: Runner, undisturbed: Path, tmp_path: Path
) -> None:
    for step in range(1, 60, 13):
        out = tmp_path / str(step)
        shutil.copytree(undisturbed, out)
        assert run(out, cut=Cut(step=step)).status == -signal.SIGKILL
        assert_whole(out, undisturbed)
    assert_ended_alike(run(out, "--resume"), out, undisturbed)


def test_a_finished_run_that_is_resumed_changes_nothing(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    outcome = run(out, "--resume")
    assert_ended_alike(outcome, out, undisturbed)
    assert outcome.said.count("(done before)") == 7


def test_a_damaged_checkpoint_is_made_again(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (pruned,) = (out / ".work").glob("01-prune-channels-*")
    os.truncate(pruned / "constants.safetensors", 100)
    outcome = run(out, "--resume")
    assert_ended_alike(outcome, out, undisturbed)
    assert outcome.said.count("(done before)") == 6


def test_with_nothing_to_resume_a_run_simply_starts(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_ended_alike(run(tmp_path / "empty", "--resume"), tmp_path / "empty", undisturbed)


def test_another_seed_gives_other_weights_and_another_run(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    outcome = run(out, "--resume", "--seed", "4")
    assert outcome.status == 0
    assert "(done before)" not in outcome.said
    one, other = load_design(undisturbed / "design"), load_design(out / "design")
    assert one.graph.constants["conv1.weight"].tobytes() != other.graph.constants["conv1.weight"].tobytes()
    assert (out / "scores.json").read_bytes() != (undisturbed / "scores.json").read_bytes()


@pytest.mark.parametrize("seed", range(6))
def test_an_interrupted_run_says_so_cleans_up_and_can_go_on(
    seed: int, run: Runner, undisturbed: Path, tmp_path: Path
) -> None:
    out, chance = tmp_path / "out", random.Random(seed)
    cut = Cut(step=chance.randrange(1, 100)) if seed % 2 else Cut(after_s=chance.uniform(0.05, 0.8))
    assert_interrupted(run(out, cut=replace(cut, by=signal.SIGINT)), out, undisturbed)
    if seed == 0:
        assert_ended_alike(run(out, "--resume"), out, undisturbed)


def assert_interrupted(outcome: Outcome, out: Path, undisturbed: Path) -> None:
    """The exit status and the last line tell, and nothing unfinished is left."""
    assert outcome.status == 130, outcome.said
    assert outcome.said.splitlines()[-1] == "interrupted; run the same command with --resume to go on"
    assert "Traceback" not in outcome.said
    assert_whole(out, undisturbed)
    assert list(out.glob(".*.partial")) == []


@pytest.mark.slow
def test_an_interrupt_before_any_step_cleans_up(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    for step in range(1, run(tmp_path / "whole").steps + 1, 2):
        out = tmp_path / str(step)
        assert_interrupted(run(out, cut=Cut(step=step, by=signal.SIGINT)), out, undisturbed)
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.slow
def test_a_kill_before_any_step_is_survived(run: Runner, undisturbed: Path, tmp_path: Path) -> None:
    steps = run(tmp_path / "whole").steps
    for step in range(1, steps + 1, 3):
        out = tmp_path / str(step)
        assert run(out, cut=Cut(step=step)).status == -signal.SIGKILL
        assert_whole(out, undisturbed)
        assert_ended_alike(run(out, "--resume"), out, undisturbed)
        shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_runs_killed_again_and_again_end_as_if_left_alone(
    seed: int, run: Runner, undisturbed: Path, tmp_path: Path
) -> None:
    kill_until_the_end(run, tmp_path / "out", undisturbed, random.Random(seed), steps=180)

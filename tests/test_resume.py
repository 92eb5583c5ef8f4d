"""A run that is killed at any point and resumed until it ends gives the bytes of one that was left alone.

Processes come from a server that has everything imported, so that one costs little more than its work. A process kills
itself, with SIGKILL, before the chosen one of its steps on files: opening to write, renaming, making, removing. What it
was writing is cut in half first, as a kill in the middle of a write would leave it.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosslayer.core.design import load_design
from crosslayer.datasets.catalog import load
from crosslayer.study import load_study

RESULTS = ("study.toml", "design", "firmware", "report.html", "scores.json")
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
[[stage]]
use = "train"
epochs = 2
[[stage]]
use = "prune-channels"
epochs = 2
patience = 1
keep = 0.8
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

Run = Callable[..., int]


def attempt(arguments: list[str], out: str, said: str, kill_at: int, kill_after_s: float) -> None:
    """The command line in this process, until its step `kill_at` on files below `out`, or that long after its start."""
    sys.stdout = sys.stderr = Path(said).open("w")  # noqa: SIM115  # open for as long as the process lives
    steps = 0

    def hear(event: str, details: tuple[Any, ...]) -> None:
        nonlocal steps
        opens = event == "open" and any(letter in str(details[1]) for letter in "wax")
        moves = event in ("os.mkdir", "os.rename") or opens
        removes = event in ("os.remove", "os.rmdir")  # by names within an open folder, where a whole tree is removed
        if (moves and str(details[0]).startswith(out)) or removes:
            steps += 1
            if steps == kill_at:
                tear(Path(out))
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)
    if kill_after_s:
        threading.Timer(kill_after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
    sys.argv = ["crosslayer", *arguments]
    from crosslayer.cli import main

    try:
        main()
    finally:
        Path(said + ".steps").write_text(str(steps))


def tear(out: Path) -> None:
    """Cut what is being written in half."""
    for path in out.rglob("*"):
        if ".partial" in str(path) and path.is_file():
            os.truncate(path, path.stat().st_size // 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    digits = load("digits")
    arrays = {
        f"{axis}_{name}": values
        for name, split in (("train", digits.train), ("val", digits.validation), ("test", digits.test))
        for axis, values in (("x", split.real()), ("y", split.labels))
    }
    np.savez(folder / "digits.npz", **arrays)
    path = folder / "study.toml"
    path.write_text(STUDY.format(data=folder / "digits.npz"))
    return path


@pytest.fixture(scope="module")
def run(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Run]:
    """Runs the study in a process of its own and gives its exit status; negative: the signal that ended it."""
    said = str(tmp_path_factory.mktemp("said") / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other on a busy computer take ten times as long
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(
            ["__main__", "crosslayer.flow", "crosslayer.cli", "crosslayer.execute.torch", "torch._dynamo", "unicorn"]
        )

        def start(out: Path, *options: str, kill_at: int = 0, kill_after_s: float = 0.0) -> int:
            arguments = ["run", str(study), "--out", str(out), *options]
            process = server.Process(target=attempt, args=(arguments, str(out), said, kill_at, kill_after_s))
            process.start()
            process.join()
            assert process.exitcode is not None
            text = Path(said).read_text()
            assert "Traceback" not in text, text
            assert "Warning" not in text, text
            return process.exitcode

        start.steps = lambda: int(Path(said + ".steps").read_text())  # type: ignore[attr-defined]
        start.said = said
        yield start


@pytest.fixture(scope="module")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(out) == 0
    return out


def contents(path: Path) -> dict[str, bytes]:
    """All files below a folder, or the one file."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


def assert_whole(out: Path, undisturbed: Path) -> None:
    """What lies under a final name is all there, and nothing else is in sight."""
    for path in out.iterdir() if out.exists() else ():
        if path.name.startswith("."):
            continue
        assert path.name in RESULTS
        assert contents(path) == contents(undisturbed / path.name)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_again_and_again_ends_as_if_left_alone(
    seed: int, run: Run, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chance = random.Random(seed)
    statuses: list[int] = []
    while not statuses or statuses[-1] != 0:
        import time;t=time.time()
        at = chance.randrange(1, 160)
        statuses.append(run(out, "--resume", kill_at=at))
        print(at, statuses[-1], time.time()-t)
        assert statuses[-1] in (0, -signal.SIGKILL)
        assert len(statuses) < 50
        assert_whole(out, undisturbed)
    for name in RESULTS:
        assert contents(out / name) == contents(undisturbed / name)
    assert run.steps()==9


@pytest.mark.slow
def test_a_kill_before_any_step_loses_nothing(run: Run, undisturbed: Path, tmp_path: Path) -> None:
    for step in range(1,160):
        out = tmp_path / str(step)
        status = run(out, kill_at=step)
        assert_whole(out, undisturbed)
        bad = run(out, "--resume")
        text = Path(run.said).read_text() if bad else ''
        print(step, status, bad, text, [contents(out / name) == contents(undisturbed / name) for name in RESULTS] if not bad else '')
    assert 0

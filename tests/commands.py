"""The command line as tests call it: in this process, or in one of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("crosslayer"))

TINY = """
samples = 2
[network]
source = "lenet5"
[data]
source = "digits"
[target]
name = "stm32f769"
[require]
flash = "64 KiB"
[[stage]]
use = "train"
epochs = 1
[[stage]]
use = "fold-norms"
[[stage]]
use = "fuse-activations"
[[stage]]
use = "quantize-affine"
samples = 32
[[stage]]
use = "plan-arena"
"""
"""A study that takes about a second."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command left behind when it ended."""

    status: int
    out: str
    err: str


def call(*arguments: str | Path) -> Answer:
    """The command line in this process."""
    from crosslayer.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, handler = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = ["crosslayer", *map(str, arguments)]
    status: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv = before
        signal.signal(signal.SIGINT, handler)
    assert isinstance(status, int), status
    return Answer(status=status, out=out.getvalue(), err=err.getvalue())


def spawn(*arguments: str | Path) -> subprocess.Popen[str]:
    """The installed command in a process of its own."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen[str]) -> Answer:
    """The answer of a spawned command once it has ended."""
    out, err = process.communicate(timeout=300)
    return Answer(status=process.returncode, out=out, err=err)


def tree(path: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of files, None for folders."""
    return {str(p.relative_to(path)): None if p.is_dir() else p.read_bytes() for p in sorted(path.rglob("*"))}

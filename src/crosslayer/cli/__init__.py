"""The command line: `crosslayer --help`."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from crosslayer.cli import designs, executors, lists, security, studies
from crosslayer.cli.console import BAD_INPUT, HOLDS, INTERRUPTED, plain, stderr
from crosslayer.core.errors import CrosslayerError

app = typer.Typer(
    help="From a neural network and a small device to verified firmware with a data sheet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (studies, designs, executors, security, lists):
    app.add_typer(commands.app)


def main() -> NoReturn:
    """Run the command line. Exit status: 0 all requirements hold, 2 bad input, 3 one does not hold, 130 interrupted."""
    signal.signal(signal.SIGINT, _interrupt)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin make training crawl on a busy computer
    try:
        try:
            app()
        finally:
            _flush()
    except CrosslayerError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"{error.filename or 'the system'}: {error.strerror or error}; free space or choose another folder")
    except MemoryError as error:
        _refuse(f"not enough memory ({error or 'this computer'}); take fewer samples or a smaller network")
    except _InterruptedError:
        how = "with --resume" if sys.argv[1:2] == ["run"] else "again"
        stderr.print(f"interrupted; run the same command {how} to go on", highlight=False)
        sys.exit(INTERRUPTED)
    sys.exit(HOLDS)


class _InterruptedError(BaseException):
    """Ctrl-C. Not a `KeyboardInterrupt`, which the argument parser would turn into another exit status."""


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _InterruptedError


def _flush() -> None:
    """What was printed has arrived; else the error is raised here, where it gets a message, not while Python ends."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        raise


def _refuse(message: str) -> NoReturn:
    stderr.print(f"[bold red]error:[/] {plain(message)}", soft_wrap=True, highlight=False)
    sys.exit(BAD_INPUT)

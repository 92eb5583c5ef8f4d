"""Options that several commands have, and the design that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # the nouns are loaded by the commands that need them: `--help` and listings stay quick
    from crosslayer.core.design import Design

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on stdout.")]
DesignSource = Annotated[Path, typer.Argument(help="Folder of a design or run, or a .tflite, .onnx or .pt2 file.")]
Rule = Annotated[str, typer.Option("--rounding", help="Of a file's integers: double, reference or float.")]
Device = Annotated[str, typer.Option("--target", help="A target's name or TOML file; a design has its own.")]
Scale = Annotated[float, typer.Option(help="Multiplies the data, for a network that takes another range.")]
Samples = Annotated[int, typer.Option(min=1, help="Test samples.")]


def opened(source: Path, target: str, rounding: str = "double") -> "Design":
    """The design of a folder or network file. Raises `InputError` if there is none."""
    from crosslayer.core.codec import from_plain
    from crosslayer.core.fixed import Rounding
    from crosslayer.workbench import open_design

    return open_design(source, target, from_plain(Rounding, rounding, "--rounding"))

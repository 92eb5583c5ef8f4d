"""Commands that run a design in several ways and compare the bytes."""

from typing import Annotated, Any

import typer
from rich.table import Table

from crosslayer.cli.console import FAILS, print_figures, print_json, stdout
from crosslayer.cli.options import DesignSource, Json, Rule, Samples, Scale, opened
from crosslayer.core.codec import to_plain
from crosslayer.core.errors import InputError

app = typer.Typer()
_PANEL = "The same bytes everywhere"


@app.command(rich_help_panel=_PANEL)
def verify(
    source: DesignSource,
    samples: Samples = 1000,
    emulated: Annotated[int, typer.Option(min=1, help="Samples for each emulated core.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the random samples.")] = 0,
    data: Annotated[str | None, typer.Option(help="A data set; its test split. Without: random inputs.")] = None,
    scale: Scale = 1.0,
    rounding: Rule = "double",
    against: Annotated[str | None, typer.Option(help="litert: also that LiteRT gives these bytes.")] = None,
    as_json: Json = False,
) -> None:
    """Show that every executor gives the bytes of the integer reference: exact, C on this computer, all cores.

    With --against litert: that exact and the emulated Cortex-M4 give LiteRT's bytes, layer by layer and whole.
    """
    from crosslayer import workbench
    from crosslayer.execute.emulate import left_out

    if against not in (None, "litert"):
        raise InputError(f"--against: '{against}' is no runtime that can be compared with; write litert")
    design = opened(source, "stm32f769", rounding)
    x = workbench.inputs_for(design, data, samples, seed, scale)
    absent = left_out() if against is None else {}
    if against is None:
        found = workbench.compare_executors(design, x, emulated)
        rows = [(c.executor, c.samples, c.differing_bytes) for c in found]
        document: dict[str, Any] = {"executors": [to_plain(c) for c in found], "left_out": list(absent)}
    else:
        checks = workbench.compare_litert(source, design, x, emulated)
        rows = [(f"{c.what}, {c.rounding}: {c.executor}", c.samples, c.differing_bytes) for c in checks]
        counted = {"samples": len(x), "ops": len(design.graph.nodes)}
        document = {**counted, "checks": [to_plain(c) for c in checks]}
    total = sum(row[-1] for row in rows)
    if as_json:
        print_json({"differing_bytes": total, **document})
    else:
        table = Table("executor", "samples", "differing bytes")
        for row in rows:
            table.add_row(*map(str, row))
        stdout.print(table)
        for why in absent.values():
            stdout.print(f"left out: {why}")
    if total:
        raise typer.Exit(FAILS)


@app.command(rich_help_panel=_PANEL)
def emulate(
    source: DesignSource,
    core: Annotated[str, typer.Option(help="cortex-m0, -m4, -m7, -m33, -m55 (with QEMU) or rv32.")] = "cortex-m4",
    samples: Samples = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the random samples.")] = 0,
    data: Annotated[str | None, typer.Option(help="A data set; its test split. Without: random inputs.")] = None,
    scale: Scale = 1.0,
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Run a design's firmware on an emulated core: instructions, stack, flash, RAM, differing bytes."""
    from crosslayer.core.codec import from_plain
    from crosslayer.core.target import Core
    from crosslayer.evaluate.firmware import emulation
    from crosslayer.workbench import firmware_of, inputs_for

    design = opened(source, "stm32f769", rounding)
    x = inputs_for(design, data, samples, seed, scale)
    with firmware_of(design, x) as folder:
        found = emulation(design.graph, folder, x, from_plain(Core, core, "--core"))
    print_figures(f"{source.name} on an emulated {core}", found, as_json)
    if found["differing_bytes"]:
        raise typer.Exit(FAILS)

"""Commands that judge what an attacker can do to a design."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from crosslayer.cli.console import FAILS, print_figures, print_json, stdout, track
from crosslayer.cli.options import DesignSource, Json, Rule, Samples, Scale, opened
from crosslayer.core.codec import to_plain
from crosslayer.core.errors import InputError

app = typer.Typer()
_PANEL = "Security"


@app.command(rich_help_panel=_PANEL)
def attack(
    source: DesignSource,
    budget: Annotated[str, typer.Option(help="Norm and size as a share of the inputs' range: linf 8/255, l2 0.5.")],
    data: Annotated[str, typer.Option(help="A data set; its test split is attacked.")],
    out: Annotated[Path, typer.Option(help="File for the attacked samples.")] = Path("attacked.safetensors"),
    samples: Samples = 1000,
    effort: Annotated[int, typer.Option(min=1, help="Times the usual steps, restarts and queries.")] = 1,
    alone: Annotated[
        str | None, typer.Option(help="One attack instead of all, as one-pixel; then l0 and patch are budgets too.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    scale: Scale = 1.0,
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Attack an integer design with all that is known of it; say what was not broken, and whether to believe it."""
    from crosslayer import workbench
    from crosslayer.attack.budget import Budget
    from crosslayer.datasets.catalog import load
    from crosslayer.report.text import attack_alone_text, attack_tables

    allowed = Budget.parse(budget)
    design, found = opened(source, "stm32f769", rounding), load(data).scaled(scale)
    if alone is not None:
        if effort != 1:
            raise InputError("--effort is of the set of attacks; leave it or --alone out")
        left = workbench.attacked_by(design, found, allowed, alone, out, samples, seed)
        if as_json:
            print_json({**to_plain(left), "attacked": str(out)})
        else:
            stdout.print(attack_alone_text(left))
        if left.differing:
            raise typer.Exit(FAILS)
        return
    result = workbench.attacked(design, found, allowed, out, samples, effort, seed, track)
    if as_json:
        document = {key: value for key, value in to_plain(result).items() if key != "examples"}
        print_json({"believable": result.believable, **document, "attacked": str(out)})
    else:
        for table in attack_tables(result):
            stdout.print(table)
    if not result.believable or result.differing:
        raise typer.Exit(FAILS)


@app.command(rich_help_panel=_PANEL)
def certify(
    source: DesignSource,
    budget: Annotated[str, typer.Option(help="linf, or l2 for smoothing, and a share of the inputs' range.")],
    data: Annotated[str, typer.Option(help="A data set; its test split is certified.")],
    samples: Annotated[int | None, typer.Option(min=1, help="The first test samples; all without.")] = None,
    method: Annotated[str, typer.Option(help="bounds: of the design; smoothing: of its vote over noise.")] = "bounds",
    noise: Annotated[float, typer.Option(help="Smoothing: standard deviation, a share of the inputs' range.")] = 0.25,
    draws: Annotated[int, typer.Option(min=1, help="Smoothing: inferences for each sample.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    scale: Scale = 1.0,
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Prove of an integer design how many samples no change within a budget can turn: interval bounds, or smoothing."""
    from crosslayer import workbench
    from crosslayer.attack.budget import Budget
    from crosslayer.datasets.catalog import load
    from crosslayer.evaluate.smoothing import Smoothing

    if method not in ("bounds", "smoothing"):
        raise InputError(f"--method: '{method}' proves nothing here; write bounds or smoothing")
    allowed = Budget.parse(budget)
    smoothing = Smoothing(noise=noise, draws=draws) if method == "smoothing" else None
    design, found = opened(source, "stm32f769", rounding), load(data).scaled(scale)
    score = workbench.certificate(design, found, allowed, samples, smoothing, seed, track)
    print_figures(f"{source.name} at {allowed}", to_plain(score), as_json)


@app.command(rich_help_panel=_PANEL)
def reject(
    source: DesignSource,
    data: Annotated[str, typer.Option(help="The data set that the design knows; its test split is asked.")],
    unknown: Annotated[str | None, typer.Option(help="Another data set of such samples, not to be accepted.")] = None,
    samples: Samples = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    scale: Scale = 1.0,
    as_json: Json = False,
) -> None:
    """Say how well a design with reject-unknown tells the inputs that it knows from others."""
    from crosslayer import workbench
    from crosslayer.datasets.catalog import load

    other = None if unknown is None else load(unknown).scaled(scale)
    own, found = workbench.detected(opened(source, "stm32f769"), load(data).scaled(scale), other, samples, seed)
    if as_json:
        print_json({"accepted": to_plain(own), "unknown": [to_plain(one) for one in found]})
        return
    table = Table("unknown inputs", "AUROC", "FPR at 95 % TPR", "accepted", title=f"{own.value:.4g} of {own.note}")
    for one in found:
        table.add_row(one.unknown, *(f"{s.value:.4f} ({s.low:.4f} … {s.high:.4f})" for s in one.scores))
    stdout.print(table)


@app.command(rich_help_panel=_PANEL)
def audit(
    source: DesignSource,
    data: Annotated[str, typer.Option(help="The data set that it was trained on.")],
    float_network: Annotated[
        Path | None, typer.Option("--float", help="The float network before quantization, to be compared with.")
    ] = None,
    queries: Annotated[
        str,
        typer.Option(help="What who copies it asks: validation split of the data (own) or of another set, or noise."),
    ] = "own",
    samples: Samples = 1000,
    references: Annotated[int, typer.Option(min=2, help="Networks that calibrate membership; even.")] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    scale: Scale = 1.0,
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Audit an integer design: is there a backdoor, how many queries copy it, does it tell what it was trained on."""
    from crosslayer import workbench
    from crosslayer.datasets.catalog import load
    from crosslayer.report.text import audit_tables

    design, found = opened(source, "stm32f769", rounding), load(data).scaled(scale)
    before = None if float_network is None else opened(float_network, "stm32f769", rounding)
    asked = None if queries == "noise" else found if queries == "own" else load(queries)
    result = workbench.audited(design, found, before, asked, samples, references, seed, track)
    if as_json:
        print_json(to_plain(result))
    else:
        for table in audit_tables(result):
            stdout.print(table)
    if result.backdoors.flagged:
        raise typer.Exit(FAILS)

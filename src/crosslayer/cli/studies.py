"""Commands for studies: network in, firmware with a data sheet out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosslayer.cli.console import FAILS, plain, print_json, stderr, stdout, track
from crosslayer.cli.options import Json
from crosslayer.core.codec import to_plain

if TYPE_CHECKING:
    from crosslayer.core.sheet import Sheet

app = typer.Typer()
_PANEL = "Studies"


@app.command(rich_help_panel=_PANEL)
def run(
    study: Annotated[Path | None, typer.Argument(help="Study file; without one: digits, LeNet-5, stm32f769.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs/default"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last finished stage.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the study's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes for sensitivity analysis; results are the same.")] = 1,
    as_json: Json = False,
) -> None:
    """Run a study: train, prune, quantize, plan, write C, run it, and judge it."""
    from dataclasses import replace

    import joblib

    from crosslayer import flow
    from crosslayer.study import load_study, parse_study

    chosen = parse_study(flow.STUDY, "default study") if study is None else load_study(study)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    job = flow.prepare(chosen)

    def observe(position: int, stage: str, resumed: bool) -> None:
        text = plain(stage) + " (done before)" * resumed
        stderr.print(f"[bold]{position + 1}/{len(job.recipe) + 1}[/] {text}", soft_wrap=True, highlight=False)

    with joblib.parallel_config(n_jobs=jobs):
        sheet = flow.build(job, out, resume=resume, progress=track, observe=observe)
    _conclude(sheet, out, as_json)


@app.command(rich_help_panel=_PANEL)
def report(run_folder: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: Json = False) -> None:
    """Write the report of a finished run again, and show its figures and verdict."""
    from crosslayer.core.design import load_design
    from crosslayer.core.sheet import load_sheet
    from crosslayer.report.page import write_report

    sheet = load_sheet(run_folder / "sheet.json", load_design(run_folder / "design"))
    write_report(sheet, run_folder / "report.html")
    _conclude(sheet, run_folder, as_json)


def _conclude(sheet: "Sheet", out: Path, as_json: bool) -> None:
    """Show figures and verdict; the exit status tells whether all requirements hold."""
    from crosslayer.core.sheet import scores_document
    from crosslayer.report.text import verdict_table

    if as_json:
        verdicts = [to_plain(verdict) for verdict in sheet.verdicts]
        print_json({"out": str(out), "scores": scores_document(sheet), "verdicts": verdicts})
    else:
        stdout.print(verdict_table(sheet))
        stdout.print(f"report: {out / 'report.html'}", soft_wrap=True)
    if not all(verdict.holds for verdict in sheet.verdicts):
        raise typer.Exit(FAILS)

"""The command line: `crosslayer --help`."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from crosslayer.core.codec import to_plain
from crosslayer.core.errors import CrosslayerError, InputError

if TYPE_CHECKING:  # the nouns are loaded by the commands that need them: `--help` and listings stay quick
    from crosslayer.core.design import Design
    from crosslayer.core.sheet import Sheet

T = TypeVar("T")
app = typer.Typer(
    help="From a neural network and a small device to verified firmware with a data sheet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: which are found, and fetching them.", invoke_without_command=True)
app.add_typer(data_app, name="datasets")

_error = Console(stderr=True)
_output = Console(markup=False)  # square brackets in a user's names are no markup
_HOLDS, _BAD_INPUT, _FAILS, _INTERRUPTED = 0, 2, 3, 130

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on stdout.")]
DesignSource = Annotated[Path, typer.Argument(help="Folder of a design or run, or a .tflite, .onnx or .pt2 file.")]
Rule = Annotated[str, typer.Option("--rounding", help="Of a file's integers: double, reference or float.")]
Device = Annotated[str, typer.Option("--target", help="A target's name or TOML file; a design has its own.")]
Scale = Annotated[float, typer.Option(help="Multiplies the data, for a network that takes another range.")]
Samples = Annotated[int, typer.Option(min=1, help="Test samples.")]


@app.command()
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
        text = _plain(stage) + " (done before)" * resumed
        _error.print(f"[bold]{position + 1}/{len(job.recipe) + 1}[/] {text}", soft_wrap=True, highlight=False)

    with joblib.parallel_config(n_jobs=jobs):
        sheet = flow.build(job, out, resume=resume, progress=track, observe=observe)
    _conclude(sheet, out, as_json)


def _conclude(sheet: "Sheet", out: Path, as_json: bool) -> None:
    """Show figures and verdict; the exit status tells whether all requirements hold."""
    from crosslayer.core.sheet import scores_document
    from crosslayer.report.text import verdict_table

    if as_json:
        verdicts = [to_plain(verdict) for verdict in sheet.verdicts]
        _print_json({"out": str(out), "scores": scores_document(sheet), "verdicts": verdicts})
    else:
        _output.print(verdict_table(sheet))
        _output.print(f"report: {out / 'report.html'}", soft_wrap=True)
    if not all(verdict.holds for verdict in sheet.verdicts):
        raise typer.Exit(_FAILS)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="A network's name, the folder of a design or run, or a network file.")],
    target: Annotated[str, typer.Option(help="A target's name or TOML file.")] = "stm32f769",
    shape: Annotated[str, typer.Option(help="Input shape of a named network, as 28,28,1.")] = "28,28,1",
    classes: Annotated[int, typer.Option(min=1, help="Number of classes of a named network.")] = 10,
    as_json: Json = False,
) -> None:
    """Say what a network or design costs on a target, without building or running it."""
    from dataclasses import replace

    from crosslayer.core.design import Design
    from crosslayer.evaluate.size import inspection
    from crosslayer.hardware.catalogue import load_target
    from crosslayer.networks.zoo import network
    from crosslayer.read.network import read_network

    device = load_target(target)
    path = Path(source)
    if path.is_dir():
        design = replace(_open(path, target), target=device)
    elif path.exists():
        design = Design(graph=read_network(path), target=device)
    else:
        design = Design(graph=network(source, _shape(shape), classes, 0), target=device)
    found = inspection(design)
    if as_json:
        _print_json(found)
        return
    columns = ("node", "operation", "output", "parameters", "MACs", "instructions")
    table = Table(*columns, title=f"{source} on {device.title}")
    for node in found["nodes"]:
        counts = ("" if node[key] is None else str(node[key]) for key in ("parameters", "macs", "instructions"))
        table.add_row(node["name"], node["operation"], "×".join(map(str, node["output"])), *counts)
    _output.print(table)
    _output.print("\n".join(f"{s['name']}: {s['value']:.6g} {s['unit']} ({s['origin']})" for s in found["scores"]))


@app.command()
def convert(
    source: DesignSource,
    out: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, or a folder for a design.")],
    target: Device = "stm32f769",
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Turn a network file into a design, or either into another network file."""
    from crosslayer import workbench

    design = _open(source, target, rounding)
    workbench.convert(design, out)
    graph = design.graph
    _print_figures(
        f"{source.name} → {out.name}",
        {
            "out": str(out),
            "integer": graph.is_integer,
            "nodes": len(graph.nodes),
            "parameters": graph.parameters,
            "macs": sum(graph.macs.values()),
        },
        as_json,
    )


@app.command()
def quantize(
    source: DesignSource,
    out: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, or a folder for a design.")],
    data: Annotated[str, typer.Option(help="A data set; its training split calibrates, its test split judges.")],
    scale: Scale = 1.0,
    weights: Annotated[int, typer.Option(min=1, max=16, help="Bits of the weights.")] = 8,
    activations: Annotated[int, typer.Option(min=4, max=16, help="Bits of the activations.")] = 8,
    per_channel: Annotated[bool, typer.Option(help="A weight scale for each output channel.")] = True,
    ranges: Annotated[str, typer.Option(help="min-max, percentile, mse or entropy.")] = "min-max",
    samples: Annotated[int, typer.Option(min=1, help="Training samples that calibrate.")] = 512,
    epochs: Annotated[int, typer.Option(min=0, help="Of training for these integers; 0: none.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    target: Device = "stm32f769",
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Turn a float network into integers, with or without training for them, and say what it costs in accuracy."""
    from crosslayer import workbench
    from crosslayer.core.codec import from_plain
    from crosslayer.core.stage import Stage
    from crosslayer.datasets.catalog import load
    from crosslayer.quantize.affine import QuantizeAffine
    from crosslayer.quantize.aware import QuantizeAware

    workbench.check_out(out)
    precision = {"weights": weights, "activations": activations, "per_channel": per_channel}
    start = {"samples": samples, "rounding": rounding, "precision": precision, "ranges": ranges}
    stage: Stage = from_plain(QuantizeAffine, start, "options")
    if epochs:
        stage = from_plain(QuantizeAware, {"start": start, "training": {"epochs": epochs, "rate": 5e-4}}, "options")
    found, before = load(data).scaled(scale), _open(source, target)
    after = workbench.quantized(before, stage, found, seed, track)
    figures = workbench.quantization_figures(before, after, found)
    workbench.convert(after, out)
    _print_figures(f"{source.name} → {out.name}", {"out": str(out), **figures}, as_json)


@app.command()
def harden(
    source: DesignSource,
    out: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, or a folder for a design.")],
    data: Annotated[str, typer.Option(help="A data set; its training split teaches, its test split judges.")],
    budget: Annotated[str, typer.Option(help="What to defend against: linf and a share of the inputs' range.")],
    method: Annotated[str, typer.Option(help="pgd, trades, fast, or certified (interval bounds).")] = "pgd",
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    scale: Scale = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    target: Device = "stm32f769",
    as_json: Json = False,
) -> None:
    """Train a float network to withstand attacks and turn it into integers; judge it with `crosslayer attack`."""
    from crosslayer import workbench
    from crosslayer.attack.budget import Budget
    from crosslayer.core.codec import from_plain
    from crosslayer.core.stage import Stage
    from crosslayer.datasets.catalog import load
    from crosslayer.learn.adversarial import TrainRobust
    from crosslayer.learn.certified import TrainCertified

    workbench.check_out(out)
    fields = {"epsilon": workbench.epsilon(Budget.parse(budget)), "epochs": epochs, "rate": rate}
    stage: Stage = (
        from_plain(TrainCertified, fields, "options")
        if method == "certified"
        else from_plain(TrainRobust, {**fields, "method": method}, "options")
    )
    found, before = load(data).scaled(scale), _open(source, target)
    after = workbench.hardened(before, stage, found, seed, track)
    figures = workbench.quantization_figures(before, after, found)
    noted = {key: value for key, value in after.trail[len(before.trail)].notes.items() if isinstance(value, float)}
    workbench.convert(after, out)
    _print_figures(f"{source.name} → {out.name}", {"out": str(out), **figures, **noted}, as_json)


@app.command()
def emit(
    source: DesignSource,
    out: Annotated[Path, typer.Option(help="Folder for the C project.")],
    package: Annotated[str, typer.Option(help="plain, arduino, zephyr or cmsis-pack.")] = "plain",
    target: Device = "stm32f769",
    rounding: Rule = "double",
    verify: Annotated[bool, typer.Option(help="Compile it, and compare its outputs with the reference.")] = True,
    samples: Annotated[int, typer.Option(min=1, help="Random samples to compare.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the random samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a network's C project, check what it computes, and say what it takes of the device."""
    from crosslayer import workbench
    from crosslayer.core.codec import from_plain
    from crosslayer.emit.packages import Package

    form = from_plain(Package, package, "--package")
    design = _open(source, target, rounding)
    x = workbench.inputs_for(design, None, samples, seed)
    figures = workbench.write_firmware(design, out, form, x, verify=verify)
    _print_figures(f"{source.name} → {out.name}", figures, as_json)
    if figures.get("differing_bytes"):
        raise typer.Exit(_FAILS)


@app.command()
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
    design = _open(source, "stm32f769", rounding)
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
        _print_json({"differing_bytes": total, **document})
    else:
        table = Table("executor", "samples", "differing bytes")
        for row in rows:
            table.add_row(*map(str, row))
        _output.print(table)
        for why in absent.values():
            _output.print(f"left out: {why}")
    if total:
        raise typer.Exit(_FAILS)


@app.command()
def attack(
    source: DesignSource,
    budget: Annotated[str, typer.Option(help="Norm and size as a share of the inputs' range: linf 8/255, l2 0.5.")],
    data: Annotated[str, typer.Option(help="A data set; its test split is attacked.")],
    out: Annotated[Path, typer.Option(help="File for the attacked samples.")] = Path("attacked.safetensors"),
    samples: Samples = 1000,
    effort: Annotated[int, typer.Option(min=1, help="Times the usual steps, restarts and queries.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    scale: Scale = 1.0,
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Attack an integer design with all that is known of it; say what was not broken, and whether to believe it."""
    from crosslayer import workbench
    from crosslayer.attack.budget import Budget
    from crosslayer.datasets.catalog import load
    from crosslayer.report.text import attack_tables

    allowed = Budget.parse(budget)
    design, found = _open(source, "stm32f769", rounding), load(data).scaled(scale)
    result = workbench.attacked(design, found, allowed, out, samples, effort, seed, track)
    if as_json:
        document = {key: value for key, value in to_plain(result).items() if key != "examples"}
        _print_json({"believable": result.believable, **document, "attacked": str(out)})
    else:
        for table in attack_tables(result):
            _output.print(table)
    if not result.believable or result.differing:
        raise typer.Exit(_FAILS)


@app.command()
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
    design, found = _open(source, "stm32f769", rounding), load(data).scaled(scale)
    score = workbench.certificate(design, found, allowed, samples, smoothing, seed, track)
    _print_figures(f"{source.name} at {allowed}", to_plain(score), as_json)


@app.command()
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
    own, found = workbench.detected(_open(source, "stm32f769"), load(data).scaled(scale), other, samples, seed)
    if as_json:
        _print_json({"accepted": to_plain(own), "unknown": [to_plain(one) for one in found]})
        return
    table = Table("unknown inputs", "AUROC", "FPR at 95 % TPR", "accepted", title=f"{own.value:.4g} of {own.note}")
    for one in found:
        table.add_row(one.unknown, *(f"{s.value:.4f} ({s.low:.4f} … {s.high:.4f})" for s in one.scores))
    _output.print(table)


@app.command()
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

    design, found = _open(source, "stm32f769", rounding), load(data).scaled(scale)
    before = None if float_network is None else _open(float_network, "stm32f769", rounding)
    asked = None if queries == "noise" else found if queries == "own" else load(queries)
    result = workbench.audited(design, found, before, asked, samples, references, seed, track)
    if as_json:
        _print_json(to_plain(result))
    else:
        for table in audit_tables(result):
            _output.print(table)
    if result.backdoors.flagged:
        raise typer.Exit(_FAILS)


@app.command()
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

    design = _open(source, "stm32f769", rounding)
    x = inputs_for(design, data, samples, seed, scale)
    with firmware_of(design, x) as folder:
        found = emulation(design.graph, folder, x, from_plain(Core, core, "--core"))
    _print_figures(f"{source.name} on an emulated {core}", found, as_json)
    if found["differing_bytes"]:
        raise typer.Exit(_FAILS)


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: Json = False) -> None:
    """Write the report of a finished run again, and show its figures and verdict."""
    from crosslayer.core.design import load_design
    from crosslayer.core.sheet import load_sheet
    from crosslayer.report.page import write_report

    sheet = load_sheet(run_folder / "sheet.json", load_design(run_folder / "design"))
    write_report(sheet, run_folder / "report.html")
    _conclude(sheet, run_folder, as_json)


@app.command()
def targets(as_json: Json = False) -> None:
    """List the devices, or where a figure of theirs comes from (--json)."""
    from crosslayer.core.target import MemoryKind
    from crosslayer.hardware.catalogue import list_targets

    found = list_targets()
    if as_json:
        _print_json({"targets": [to_plain(target) for target in found]})
        return
    table = Table("name", "device", "core", "MHz", "flash KiB", "RAM KiB")
    for t in found:
        sizes = (str(t.capacity(kind) // 1024) for kind in (MemoryKind.FLASH, MemoryKind.RAM))
        table.add_row(t.name, t.title, t.core.value, f"{t.clock_hz / 1e6:g}", *sizes)
    _output.print(table)


@app.command()
def networks(as_json: Json = False) -> None:
    """List the reference networks."""
    from crosslayer.networks.zoo import NETWORKS

    found = {name: (function.__doc__ or "").splitlines()[0] for name, function in NETWORKS.items()}
    _print_listing("networks", found, as_json)


@app.command()
def stages(as_json: Json = False) -> None:
    """List the stages of a recipe and their parameters."""
    import dataclasses

    from crosslayer.study import STAGES

    if as_json:
        listed = [
            {"name": s.name(), "parameters": to_plain(s()), "what": (s.__doc__ or "").splitlines()[0]} for s in STAGES
        ]
        _print_json({"stages": listed})
        return
    table = Table("use", "parameters", "what it does")
    for stage in STAGES:
        fields = dataclasses.fields(stage)  # type: ignore[arg-type]  # every stage is a dataclass
        shown = "\n".join(f"{f.name} = {to_plain(getattr(stage(), f.name))!r}" for f in fields)
        table.add_row(stage.name(), shown, (stage.__doc__ or "").splitlines()[0])
    _output.print(table)


@data_app.callback()
def datasets(context: typer.Context, as_json: Json = False) -> None:
    """List the data sets, and where they are found."""
    if context.invoked_subcommand is not None:
        return
    from crosslayer.datasets.catalog import catalog, locate, whereabouts

    if as_json:
        listed = [
            {
                "name": s.name,
                "title": s.title,
                "licence": s.licence,
                "citation": s.citation,
                "where": whereabouts(s.name),
                "path": None if (path := locate(s.name)) is None else str(path),
            }
            for s in catalog()
        ]
        _print_json({"datasets": listed})
        return
    table = Table("name", "set", "where")
    for s in catalog():
        table.add_row(s.name, s.title, whereabouts(s.name))
    _output.print(table)


@data_app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    url: Annotated[str | None, typer.Option(help="Folder on another server that holds the same files.")] = None,
    as_json: Json = False,
) -> None:
    """Download a data set, with checksum; an interrupted download goes on where it stopped."""
    from crosslayer.datasets.download import get

    with _bar() as bar:
        task = bar.add_task(name, total=None)
        folder = get(name, base_url=url, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        _print_json({"name": name, "path": str(folder)})
    else:
        _output.print(str(folder), soft_wrap=True)


def track(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """The items, with a progress bar on stderr that disappears at the end."""
    with _bar() as bar:
        yield from bar.track(items, description=title, total=total)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_error, transient=True, disable=not _error.is_terminal)


def _open(source: Path, target: str, rounding: str = "double") -> "Design":
    from crosslayer.core.codec import from_plain
    from crosslayer.core.fixed import Rounding
    from crosslayer.workbench import open_design

    return open_design(source, target, from_plain(Rounding, rounding, "--rounding"))


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--shape: '{text}' is no shape; write sizes with commas, as 28,28,1") from error
    if min(shape) < 1:
        raise InputError(f"--shape: '{text}' has a size below 1")
    return shape


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def _print_figures(title: str, figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(figures)
        return
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    _output.print(table)


def _print_listing(title: str, rows: dict[str, str], as_json: bool) -> None:
    if as_json:
        _print_json({title: [{"name": name, "what": what} for name, what in rows.items()]})
        return
    table = Table("name", "what it is")
    for row in rows.items():
        table.add_row(*row)
    _output.print(table)


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
        _error.print(f"interrupted; run the same command {how} to go on", highlight=False)
        sys.exit(_INTERRUPTED)
    sys.exit(_HOLDS)


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
    _error.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True, highlight=False)
    sys.exit(_BAD_INPUT)


def _plain(text: str) -> str:
    """Text without meaning to the console's markup."""
    from rich.markup import escape

    return escape(text)

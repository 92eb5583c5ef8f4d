"""Commands that look at one network or design, or make another of it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from crosslayer.cli.console import FAILS, print_figures, print_json, stdout, track
from crosslayer.cli.options import DesignSource, Device, Json, Rule, Scale, opened
from crosslayer.core.errors import InputError

app = typer.Typer()
_PANEL = "Networks and designs"


@app.command(rich_help_panel=_PANEL)
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
        design = replace(opened(path, target), target=device)
    elif path.exists():
        design = Design(graph=read_network(path), target=device)
    else:
        design = Design(graph=network(source, _shape(shape), classes, 0), target=device)
    found = inspection(design)
    if as_json:
        print_json(found)
        return
    columns = ("node", "operation", "output", "parameters", "MACs", "instructions")
    table = Table(*columns, title=f"{source} on {device.title}")
    for node in found["nodes"]:
        counts = ("" if node[key] is None else str(node[key]) for key in ("parameters", "macs", "instructions"))
        table.add_row(node["name"], node["operation"], "×".join(map(str, node["output"])), *counts)
    stdout.print(table)
    stdout.print("\n".join(f"{s['name']}: {s['value']:.6g} {s['unit']} ({s['origin']})" for s in found["scores"]))


@app.command(rich_help_panel=_PANEL)
def convert(
    source: DesignSource,
    out: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, or a folder for a design.")],
    target: Device = "stm32f769",
    rounding: Rule = "double",
    as_json: Json = False,
) -> None:
    """Turn a network file into a design, or either into another network file."""
    from crosslayer import workbench

    design = opened(source, target, rounding)
    workbench.convert(design, out)
    graph = design.graph
    print_figures(
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


@app.command(rich_help_panel=_PANEL)
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
    found, before = load(data).scaled(scale), opened(source, target)
    after = workbench.quantized(before, stage, found, seed, track)
    figures = workbench.quantization_figures(before, after, found)
    workbench.convert(after, out)
    print_figures(f"{source.name} → {out.name}", {"out": str(out), **figures}, as_json)


@app.command(rich_help_panel=_PANEL)
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
    found, before = load(data).scaled(scale), opened(source, target)
    after = workbench.hardened(before, stage, found, seed, track)
    figures = workbench.quantization_figures(before, after, found)
    noted = {key: value for key, value in after.trail[len(before.trail)].notes.items() if isinstance(value, float)}
    workbench.convert(after, out)
    print_figures(f"{source.name} → {out.name}", {"out": str(out), **figures, **noted}, as_json)


@app.command(rich_help_panel=_PANEL)
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
    design = opened(source, target, rounding)
    x = workbench.inputs_for(design, None, samples, seed)
    figures = workbench.write_firmware(design, out, form, x, verify=verify)
    print_figures(f"{source.name} → {out.name}", figures, as_json)
    if figures.get("differing_bytes"):
        raise typer.Exit(FAILS)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--shape: '{text}' is no shape; write sizes with commas, as 28,28,1") from error
    if min(shape) < 1:
        raise InputError(f"--shape: '{text}' has a size below 1")
    return shape

"""The talk's result studies: pruning, then quantization, of three networks, as tables.

    python studies/talk/talk.py lenet5-mnist | lenet5-cifar10 | vgg11-cifar10   [--out runs/talk] [--seed 0] [--jobs 1]

The protocol. 1. The float network is trained. 2. It is pruned in steps to three quarters of its parameters (LeNet-5 on
CIFAR-10: 85 %, VGG11: 60 %), with tuning after each removal, while validation accuracy stays within five points. 3.
Five of these networks, a to e, evenly apart in the logarithm of their parameters, are tuned once more, and quantized to
16 … 2 bits, each with and without training for it.

A killed run goes on where it was. Choices are made on validation samples; test figures are taken once, at the end of
each row. OUT/<name>/seed<n>/ gets pruning.csv, quantization.csv, panels.svg, and talk.md with both tables and the hours
spent.
"""

import argparse
import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import joblib
import matplotlib.figure
from rich.progress import track
from subjects import SUBJECTS, Subject, trained

from crosslayer.core.bench import Bench, silent
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.files import write_atomic
from crosslayer.core.stage import Recipe, run
from crosslayer.datasets.catalog import load
from crosslayer.flow import execute
from crosslayer.prune.channels import PruneChannels
from crosslayer.prune.savings import amounts
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.precision import Precision
from crosslayer.quantize.ranges import RangeRule
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms

T = TypeVar("T")
LOSS = 0.05  # of validation accuracy, where the pruning curve ends
POINTS = "abcde"
BITS = (16, 8, 6, 4, 3, 2)
SIMPLIFY: Recipe = (FoldNorms(), FuseActivations())


def pruned(subject: Subject, start: Design, bench: Bench, work: Path) -> Iterator[Design]:
    """The networks along the pruning curve, the float network first."""
    limit = bench.accuracy(start.graph, bench.data.validation) - LOSS
    design, size, number = start, math.inf, 0
    while design.graph.parameters < size:
        yield design
        size, number = design.graph.parameters, number + 1
        drop = max(0.0, bench.accuracy(design.graph, bench.data.validation) - limit)
        stage = PruneChannels(step=subject.step, drop=drop, keep=subject.keep, patience=3, tuning=subject.tuning)
        folder = work / f"pruned{number:02}"
        folder.mkdir(exist_ok=True)
        design = run((stage,), design, bench, judge=lambda _: (), checkpoints=folder)


def chosen(subject: Subject, curve: list[Design], bench: Bench, work: Path) -> dict[str, Design]:
    """Five of the pruned networks, evenly apart in the logarithm of their parameters, the last one the smallest; tuned
    once more."""
    sizes = [math.log(design.graph.parameters) for design in curve]
    found: dict[str, Design] = {}
    for i, point in enumerate(POINTS):
        goal = sizes[0] + (sizes[-1] - sizes[0]) * (i + 1) / len(POINTS)
        nearest = min(range(1, len(curve)), key=lambda i: abs(sizes[i] - goal))
        tuning = (subject.last,)
        found[point] = run(tuning, curve[nearest], bench, judge=lambda _: (), checkpoints=work / f"pruned{nearest:02}")
    return found


def tails(bits: int, subject: Subject) -> Iterator[tuple[str, Recipe]]:
    """The ways to that many bits of weights; activations have as many, but never fewer than 4."""
    precision = Precision(weights=bits, activations=max(4, bits))
    ranges = RangeRule.MSE if bits < 8 else RangeRule.MIN_MAX
    after = QuantizeAffine(precision=precision, ranges=ranges, correct_biases=bits < 8)
    yield "after training", (*SIMPLIFY, after)
    if bits <= 8:
        yield "trained for it", (*SIMPLIFY, QuantizeAware(start=after, training=subject.aware))


def quantized(
    point: str, start: Design, bits: int, bench: Bench, work: Path, about: tuple[Subject, int]
) -> list[dict[str, Any]]:
    """The rows of a network and a number of bits."""
    subject, whole = about
    rows: list[dict[str, Any]] = []
    for method, recipe in tails(bits, subject):
        done = work / f"row-{point}-{bits}-{method.replace(' ', '-')}.json"
        if not done.is_file():
            begin = time.monotonic()
            design = run(recipe, start, bench, judge=lambda _: (), checkpoints=work / f"quantized-{point}-{bits}")
            memory = weight_bytes(design.graph)
            row = {
                "point": point,
                "bits": bits,
                "method": method,
                "parameters": start.graph.parameters,
                "macs": sum(start.graph.macs.values()),
                "weights_bytes": memory,
                "saving": round(whole / memory, 2),
                "validation": round(bench.accuracy(design.graph, bench.data.validation), 4),
                "test": round(bench.accuracy(design.graph, bench.data.test), 4),
                "seconds": round(time.monotonic() - begin),
            }
            write_atomic(done, json.dumps(row))
        rows.append(json.loads(done.read_text()))
    return rows


def pruning_rows(curve: list[Design], points: dict[str, Design], bench: Bench, work: Path) -> list[dict[str, Any]]:
    """The table of the pruning curve, and then of the points, which have been tuned once more."""
    rows: list[dict[str, Any]] = []
    named = [(f"{number:02}", design) for number, design in enumerate(curve)] + list(points.items())
    for name, design in named:
        done = work / f"curve-{name}.json"
        if not done.is_file():
            graph = design.graph
            costs = amounts(graph, design.target, ("latency", "energy"))
            row = {
                "network": name,
                "parameters": graph.parameters,
                "macs": sum(graph.macs.values()),
                "smaller": round(curve[0].graph.parameters / graph.parameters, 2),
                "modelled_energy_uJ": round(1e6 * costs["energy"], 1),
                "validation": round(bench.accuracy(graph, bench.data.validation), 4),
                "test": round(bench.accuracy(graph, bench.data.test), 4),
            }
            write_atomic(done, json.dumps(row))
        rows.append(json.loads(done.read_text()))
    return rows


def shown(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """Progress on the terminal."""
    yield from track(items, description=title, total=total, transient=True)


def clock(path: Path) -> Callable[[], float]:
    """A function that gives the seconds spent so far, over all runs; a kill loses those since its last call."""
    last = time.monotonic()

    def spent() -> float:
        nonlocal last
        now = time.monotonic()
        seconds = (json.loads(path.read_text()) if path.is_file() else 0.0) + now - last
        last = now
        write_atomic(path, json.dumps(seconds))
        return seconds

    return spent


def study(name: str, seed: int, out: Path, jobs: int) -> None:
    """Fill the tables of a study."""
    subject, folder = SUBJECTS[name], out / name / f"seed{seed}"
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(data=load(subject.data), seed=seed, executor=execute, progress=shown, cache=work / "cache")

    spent = clock(work / "seconds.json")
    with joblib.parallel_config(n_jobs=jobs):
        start = trained(subject, bench.data, bench, work)
        bench = replace(bench, data=replace(bench.data, train=bench.data.train.take(slice(0, subject.later))))
        curve: list[Design] = []
        for design in pruned(subject, start, bench, work):
            curve.append(design)
            spent()
        points = chosen(subject, curve, bench, work)
        table = pruning_rows(curve, points, bench, work)
        write_csv(folder / "pruning.csv", table)
        whole = weight_bytes(start.graph)
        rows: list[dict[str, Any]] = []
        todo = [(point, replace(design, trail=()), bits) for point, design in points.items() for bits in BITS]
        found = joblib.Parallel(return_as="generator")(
            joblib.delayed(quantized)(*row, replace(bench, progress=silent), work, (subject, whole)) for row in todo
        )
        for part in shown(cast("Iterable[list[dict[str, Any]]]", found), "quantization", len(todo)):
            rows += part
            write_csv(folder / "quantization.csv", rows)
            spent()
    hours = spent() / 3600
    text = (
        f"# {name}\n\nSeed {seed}; {hours:.2f} hours on {joblib.cpu_count()} processors. Accuracy measured: of float "
        "networks by PyTorch, of integer ones by the executor that equals the firmware. Energy modelled for "
        f"{subject.target} from the instructions predicted for the int8 form.\n\n"
        f"## Pruning\n\n{markdown(table)}\n\n## Quantization\n\n{markdown(rows)}\n"
    )
    write_atomic(folder / "talk.md", text)
    write_atomic(folder / "panels.svg", panels(table, rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows])


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def panels(table: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """The talk's first two panels: accuracy over parameters, and over bits."""
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    curve, points = ([r for r in table if (r["network"] in POINTS) == is_point] for is_point in (False, True))
    left.plot([r["parameters"] for r in curve], [100 * r["test"] for r in curve], marker=".")
    left.plot([r["parameters"] for r in points], [100 * r["test"] for r in points], "x")
    for row in points:
        left.annotate(row["network"], (row["parameters"], 100 * row["test"]), xytext=(4, 4), textcoords="offset points")
    left.set(
        xscale="log",
        xlabel="parameters",
        ylabel="test accuracy, %",
        title="1. structured pruning (crosses: tuned once more)",
    )
    for i, point in enumerate(POINTS):
        for method, style in (("after training", ":"), ("trained for it", "-")):
            line = [(r["bits"], 100 * r["test"]) for r in rows if r["point"] == point and r["method"] == method]
            label = point if style == "-" else None
            right.plot(*zip(*line, strict=True), style, color=f"C{i}", marker=".", label=label)
    right.set(xlabel="bits of weights", title="2. quantization (dotted: after training)")
    right.invert_xaxis()
    right.legend()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def main() -> None:
    """Run a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SUBJECTS)
    parser.add_argument("--out", type=Path, default=Path("runs/talk"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes for sensitivity analysis and for quantization")
    given = parser.parse_args()
    study(given.name, given.seed, given.out, given.jobs)


if __name__ == "__main__":
    main()

"""Accuracy and weight memory over bits: uniform and mixed precision, with and without training for it.

    python studies/bits.py lenet5 | resnet8 | dscnn     [--out runs/bits] [--seed 0]

Each row is a recipe; what it shares with others is done once, and a killed run goes on where it was. Choices are made
on validation samples; the test figure is taken once, at the end of a row. Tables: OUT/<name>.md and OUT/<name>.csv.

resnet8 starts from the float weights of MLPerf Tiny (folder mlperf_tiny among the data sets), which were trained on all
50,000 CIFAR-10 training images, those that are validation samples here among them.
"""

import argparse
import csv
import io
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.progress import track

from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.errors import InputError
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import Recipe, run
from crosslayer.datasets import places
from crosslayer.datasets.catalog import load
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.mixed import MixedPrecision, Search
from crosslayer.quantize.precision import Precision
from crosslayer.quantize.ranges import RangeRule
from crosslayer.read.network import read_network
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.norms import FoldNorms

T = TypeVar("T")
SIMPLIFY: Recipe = (FoldNorms(), FuseActivations())
RESNET8 = "mlperf_tiny/image_classification/pretrainedResnet.tflite"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network and its data, how it gets its float weights, and how it is trained on with few bits."""

    data: Dataset
    graph: Graph
    learn: Recipe
    tune: tuple[Training, ...]
    """Ways to train for the integers; each row takes the one with the best validation accuracy."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: how it came to be, and the stages after the float network."""

    method: str
    bits: str
    tails: tuple[Recipe, ...]
    """The stages after the float network; of several the one with the best validation accuracy is taken."""


def subject(name: str, seed: int) -> Subject:
    """The float network of a study, before its weights are learned."""
    if name == "lenet5":
        data = load("mnist")
        return Subject(
            data=data,
            graph=network(name, data.shape, len(data.classes), seed),
            learn=(Train(epochs=12, shift=1), *SIMPLIFY),
            tune=(Training(epochs=6, rate=5e-4, decay=0.0, shift=1),),
        )
    if name == "dscnn":
        data = load("kws12")
        return Subject(
            data=data,
            graph=network(name, data.shape, len(data.classes), seed),
            learn=(Train(epochs=40, batch=64, shift=2), *SIMPLIFY),
            tune=(
                Training(epochs=15, batch=64, rate=3e-4, decay=0.0, shift=2),
                Training(epochs=40, batch=64, rate=1e-3, decay=0.0, shift=2),
            ),
        )
    found = [folder / RESNET8 for folder in places.search_folders() if (folder / RESNET8).is_file()]
    if not found:
        raise InputError(f"{RESNET8}: not found; let {places.VARIABLE} name the folder that holds mlperf_tiny/")
    return Subject(
        data=load("cifar10").scaled(255),
        graph=read_network(found[0]),
        learn=SIMPLIFY,
        tune=(
            Training(epochs=2, rate=2e-4, decay=0.0, shift=4, flip=True),
            Training(epochs=4, rate=5e-4, decay=0.0, shift=4, flip=True),
        ),
    )


def rows(name: str, about: Subject, float_bytes: int) -> Iterator[Row]:
    """What is compared: uniform bits, and mixed ones in the memory that the rest of float32's saving leaves."""

    def start(weights: int, activations: int, *, correct: bool = False) -> QuantizeAffine:
        ranges = RangeRule.MSE if activations < 8 else RangeRule.MIN_MAX
        precision = Precision(weights=weights, activations=activations)
        return QuantizeAffine(precision=precision, ranges=ranges, correct_biases=correct)

    def trained(weights: int, activations: int) -> Row:
        first = start(weights, activations, correct=weights < 8)
        tails = tuple((QuantizeAware(start=first, training=training),) for training in about.tune)
        return Row(method="trained for it", bits=f"W{weights}A{activations}", tails=tails)

    for weights in (8, 6, 5, 4, 3, 2, 1):
        yield Row(method="after training", bits=f"W{weights}A8", tails=((start(weights, 8),),))
        yield trained(weights, 8)
    if name == "lenet5":
        yield trained(4, 4)
        yield trained(2, 4)
    if name == "dscnn":
        return
    for saving in (4.0, 5.0, 6.2, 7.5, 10.0):
        for search in Search:
            samples = 256 if search is Search.LEAST_HARM else 2000
            mixed = MixedPrecision(budget=float(int(float_bytes / saving)), search=search, samples=samples)
            bits = f"{saving:g} times less"
            yield Row(method=f"{search}, after training", bits=bits, tails=((mixed,),))
            if search is Search.LEAST_HARM:
                tails = tuple((QuantizeAware(training=training, mixed=mixed),) for training in about.tune)
                yield Row(method=f"{search}, trained for it", bits=bits, tails=tails)


def shown(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """Progress on the terminal."""
    yield from track(items, description=title, total=total, transient=True)


def measured(row: Row, given: Subject, bench: Bench, work: Path, baseline: Design) -> dict[str, Any]:
    """One line of the table."""
    begin = time.monotonic()
    start = Design(graph=given.graph, target=load_target("stm32f769"))
    designs = [run((*given.learn, *t), start, bench, judge=lambda _: (), checkpoints=work) for t in row.tails]
    seen = [bench.accuracy(each.graph, given.data.validation) for each in designs]
    chosen = int(np.argmax(seen))
    design = designs[chosen]
    found, full = (bench.accuracy(each.graph, given.data.test) for each in (design, baseline))
    memory, whole = weight_bytes(design.graph), weight_bytes(baseline.graph)
    return {
        "method": row.method,
        "bits": row.bits,
        "epochs": design.trail[-1].notes.get("epochs", 0),
        "validation": [round(each, 4) for each in seen],
        "weights_bytes": memory,
        "saving": round(whole / memory, 2),
        "accuracy": round(found, 4),
        "float_accuracy": round(full, 4),
        "drop_points": round(100 * (full - found), 2),
        "seconds": round(time.monotonic() - begin),
        "layers": " ".join(str(design.graph.types[n.inputs[1]].quant.bits) for n in layers(design.graph)),
    }


def layers(graph: Graph) -> list[Any]:
    """The nodes that have weights."""
    return [node for node in graph.nodes if node.op.channel_axis is not None]


def main() -> None:
    """Fill the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("lenet5", "resnet8", "dscnn"))
    parser.add_argument("--out", type=Path, default=Path("runs/bits"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose method or bits contain this text")
    given = parser.parse_args()
    about = subject(given.name, given.seed)
    work = given.out / given.name / f"seed{given.seed}"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(data=about.data, seed=given.seed, executor=execute, progress=shown)
    start = Design(graph=about.graph, target=load_target("stm32f769"))
    baseline = run(about.learn, start, bench, judge=lambda _: (), checkpoints=work)
    for number, row in enumerate(rows(given.name, about, weight_bytes(baseline.graph))):
        done = work / f"row{number:02}.json"
        if not done.is_file() and given.only in f"{row.method} {row.bits}":
            write_atomic(done, json.dumps(measured(row, about, bench, work, baseline)))
            print(done.read_text(), flush=True)
        write(
            [json.loads(path.read_text()) for path in sorted(work.glob("row*.json"))],
            given.out / given.name,
            given.seed,
        )


def write(table: list[dict[str, Any]], stem: Path, seed: int) -> None:
    """The rows so far as Markdown and CSV."""
    if not table:
        return
    names = list(table[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in table]
    head = f"Seed {seed}; accuracy measured on the test samples.\n\n"
    write_atomic(stem.with_suffix(".md"), head + "\n".join(lines) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_atomic(stem.with_suffix(".csv"), text.getvalue())


if __name__ == "__main__":
    main()

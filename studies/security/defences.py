"""What defences that ship are worth, LeNet-5 in int8: the tables of docs/defences.md.

    python studies/security/defences.py inputs       # filters and few levels, attacked with and without knowing them
    python studies/security/defences.py smoothing    # certified accuracy of the vote over noise
    python studies/security/defences.py rejection    # known inputs against others

Seed 0. Each network is trained behind its defence, if it has one: `inputs` on the small digits, all else on MNIST.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from crosslayer.attack.apgd import Apgd
from crosslayer.attack.budget import Budget
from crosslayer.attack.filter import FilterInput, Window
from crosslayer.attack.levels import QuantizeInput
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Bench
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design
from crosslayer.core.rejection import Statistic
from crosslayer.core.score import Score, wilson
from crosslayer.core.stage import Recipe, run
from crosslayer.datasets.catalog import load
from crosslayer.emit.firmware import emit
from crosslayer.evaluate.attacked import evaluate_robustness
from crosslayer.evaluate.rejection import accepted_score, detections, unknown_inputs
from crosslayer.evaluate.smoothing import ABSTAINS, Smoothing, smooth
from crosslayer.execute import exact
from crosslayer.flow import RECIPE, execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.noisy import TrainNoisy
from crosslayer.learn.reject import RejectUnknown
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.simplify.softmax import DropSoftmax

INTEGERS = RECIPE[3:]
LEARN = {"digits": Train(epochs=20, batch=64), "mnist": Train(epochs=3)}
DEFENCES: dict[str, Recipe] = {
    "none": (),
    "mean, radius 1": (FilterInput(),),
    "disk, radius 1": (FilterInput(window=Window.DISK),),
    "gaussian, radius 1": (FilterInput(window=Window.GAUSSIAN),),
    "2 levels": (QuantizeInput(),),
    "2 levels, learned": (QuantizeInput(learned=True),),
    "4 levels": (QuantizeInput(levels=4),),
}


def made(recipe: Recipe, design: Design, data: Dataset) -> Design:
    """The design after a recipe."""
    return run(recipe, design, Bench(data=data, seed=0, executor=execute), judge=lambda _: ())


def fresh(data: Dataset) -> Design:
    """LeNet-5 with fresh weights."""
    return Design(graph=network("lenet5", data.shape, len(data.classes), 0), target=load_target("stm32f769"))


def figure(score: Score) -> list[float]:
    """Value and interval."""
    return [round(v, 4) for v in (score.value, score.low, score.high)]


def say(**figures: object) -> None:
    """One row, as JSON."""
    print(json.dumps(figures), flush=True)


def inputs(data: Dataset, samples: int, budgets: list[str], names: list[str]) -> None:
    """Each defence under attacks that were made on the undefended design, and under the whole set of attacks."""
    sensor, undefended = Sensor.of(data.train), made((LEARN[data.name], *INTEGERS), fresh(data), data)
    rows = np.sort(np.random.default_rng(0).permutation(len(data.test))[:samples])  # those of evaluate_robustness
    x, labels = sensor.shares(data.test.real(rows)), data.test.labels[rows]
    plain = Victim.of(undefended.graph, sensor, execute)
    moved = {
        text: Apgd(steps=50, stop=False)(plain, x, labels, Budget.parse(text), np.random.default_rng(0))
        for text in budgets
    }
    for name in names:
        front = DEFENCES[name]
        design = made((*front, LEARN[data.name], *INTEGERS), fresh(data), data) if front else undefended
        victim = Victim.of(design.graph, sensor, execute)
        accuracy = Bench(data=data, seed=0, executor=execute).accuracy(design.graph, data.test)
        with tempfile.TemporaryDirectory() as scratch:
            emit(design, Path(scratch) / "firmware", data.test.real(slice(0, 1)))
            for text, found in moved.items():
                left = int((~victim.fooled(found, labels) & ~victim.fooled(x, labels)).sum())
                robust, _ = evaluate_robustness(
                    design.graph,
                    data,
                    Budget.parse(text),
                    Path(scratch) / "firmware",
                    samples=samples,
                    executor=execute,
                    effort=2,
                )
                say(
                    defence=name,
                    budget=text,
                    accuracy=accuracy,
                    clean=figure(robust.clean),
                    transferred=[left / samples, *wilson(left, samples)],
                    adaptive=figure(robust.score),
                    attacks={one.name: f"{one.right}/{one.samples}" for one in robust.attacks},
                    failed=[f"{c.name}: {c.finding}" for c in robust.checks if not c.holds],
                    differing=robust.differing,
                )


def smoothing(data: Dataset, samples: int) -> None:
    """Certified accuracy of the vote over noise, by radius, and the accuracy of single inferences."""
    test, sensor = data.test.take(slice(0, samples)), Sensor.of(data.train)
    design = made((TrainNoisy(noise=0.25, epochs=3), *INTEGERS), fresh(data), data)
    found = smooth(design.graph, test.real(), sensor, Smoothing(noise=0.25), exact.run)
    right = found.classes == test.labels
    shares = {}
    for radius in (0.0, 0.25, 0.5, 0.75):
        hits = int((right & (found.radii > radius)).sum())
        shares[f"l2 {radius:g}"] = [hits / samples, *(round(end, 4) for end in wilson(hits, samples))]
    alone = Bench(data=data, seed=0, executor=execute).accuracy(design.graph, test)
    say(single=alone, certified=shares, undecided=int((found.classes == ABSTAINS).sum()))


def rejection(data: Dataset, samples: int) -> None:
    """How well known inputs are told from others, by what is looked at and by its statistic."""
    bench, sensor = Bench(data=data, seed=0, executor=execute), Sensor.of(data.train)
    trained, test = made((LEARN[data.name],), fresh(data), data), data.test
    others = unknown_inputs(sensor, data.shape, samples, np.random.default_rng(0))
    others["fashion-mnist"] = load("fashion-mnist").test.real(slice(0, samples))
    shares = made(INTEGERS, trained, data)
    logits = made((*INTEGERS[:-1], DropSoftmax(), INTEGERS[-1]), trained, data)
    for where, design, last in (
        *(("shares", shares, RejectUnknown(statistic=s)) for s in (Statistic.LARGEST, Statistic.MARGIN)),
        *(("logits", logits, RejectUnknown(statistic=s)) for s in (Statistic.LARGEST, Statistic.MARGIN)),
        *((n, logits, RejectUnknown(statistic=Statistic.NEAREST, after=n)) for n in ("maxpool1", "maxpool2")),
    ):
        ready = last(design, bench)
        say(
            where=where,
            statistic=last.statistic,
            notes=ready.trail[-1].notes,
            accepted=figure(accepted_score(ready, test, execute)),
            detections={
                d.unknown: {"auroc": figure(d.auroc), "fpr95": figure(d.fpr95), "accepted": figure(d.accepted)}
                for d in detections(ready, test, others, execute)
            },
        )


def main() -> None:
    """Print one row of figures for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("inputs", "smoothing", "rejection"))
    parser.add_argument("--samples", type=int)
    parser.add_argument("--data", choices=LEARN, help="Of `inputs`.", default="digits")
    parser.add_argument("--budgets", nargs="+", default=["linf 2/16"])
    parser.add_argument("--defences", nargs="+", choices=DEFENCES, default=list(DEFENCES))
    given = parser.parse_args()
    match given.part:
        case "inputs":
            inputs(load(given.data), given.samples or 300, given.budgets, given.defences)
        case "smoothing":
            smoothing(load("mnist"), given.samples or 300)
        case _:
            rejection(load("mnist"), given.samples or 10_000)


if __name__ == "__main__":
    main()

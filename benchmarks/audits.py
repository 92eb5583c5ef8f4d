"""Audits of trained networks: are planted backdoors found and clean networks left alone, what does a copy cost, what do
outputs tell of the training data. Tables go to stdout; LeNet-5 in int8, one thread.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Bench
from crosslayer.core.codec import to_plain
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design
from crosslayer.core.graph.edit import decoded
from crosslayer.core.score import Score
from crosslayer.core.stage import run
from crosslayer.datasets.catalog import load
from crosslayer.evaluate.backdoor import scan
from crosslayer.evaluate.extraction import Answers, extract
from crosslayer.evaluate.membership import infer_membership
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.integers import SimplifyIntegers
from crosslayer.testing.poison import poisoned, stamped


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set, how LeNet-5 is trained on it, the side of the planted square, and what audits take."""

    data: str
    epochs: int
    side: int
    samples: int
    seeds: int
    others: str | None = None
    """Another set of such samples, with which who copies can ask."""


CASES = (
    Case(data="digits", epochs=10, side=2, samples=300, seeds=10),
    Case(data="mnist", epochs=3, side=4, samples=500, seeds=4, others="fashion-mnist"),
)
POISON = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["backdoors", "extraction", "membership"])
    parser.add_argument("--data", choices=[case.data for case in CASES])
    chosen = parser.parse_args()
    parts: dict[str, Callable[[Case, Dataset], None]] = {
        "backdoors": backdoors,
        "extraction": extraction,
        "membership": membership,
    }
    for case in CASES:
        if chosen.data in (None, case.data):
            for part in chosen.parts:
                print(f"{part}, {case}", flush=True)
                parts[part](case, load(case.data))


def trained(case: Case, data: Dataset, seed: int, *, epochs: int | None = None) -> Design:
    recipe = (
        Train(epochs=epochs or case.epochs, batch=64),
        FuseActivations(),
        QuantizeAffine(),
        SimplifyIntegers(),
        PlanArena(),
    )
    design = Design(graph=network("lenet5", data.shape, len(data.classes), seed), target=load_target("stm32f769"))
    return run(recipe, design, Bench(data=data, seed=seed, executor=execute), judge=lambda _: ())


def backdoors(case: Case, data: Dataset) -> None:
    """A scan of a network with a backdoor into the class of its seed, and of one without."""
    sensor, classes = Sensor.of(data.train), len(data.classes)
    made, test = data.validation.take(slice(0, case.samples)), data.test.take(slice(0, 2 * case.samples))
    x, others = sensor.shares(made.real()), sensor.shares(test.real())
    for seed in range(case.seeds):
        for target in (seed % classes, None):
            rng = np.random.default_rng(seed)
            train = data.train if target is None else poisoned(data.train, target, POISON, case.side, rng)
            graph = trained(case, replace(data, train=train), seed).graph
            victim, twin = (Victim.of(g, sensor, execute) for g in (graph, decoded(graph)))
            line: dict[str, object] = {"seed": seed, "planted": target}
            line["accuracy"] = float((victim.logits(others).argmax(1) == test.labels).mean())
            if target is not None:
                marked = replace(test, codes=stamped(test.codes, case.side)).real()[test.labels != target]
                line["turned"] = float((victim.logits(sensor.shares(marked)).argmax(1) == target).mean())
            found = scan(victim, twin, x, made.labels, others, test.labels, seed=seed)
            line["flagged"] = found.flagged
            line["index"] = [round(trigger.index, 2) for trigger in found.triggers]
            line["places"] = [round(trigger.size, 2) for trigger in found.triggers]
            line["agreement"] = shown(found.agreement)
            print(json.dumps(line), flush=True)


def extraction(case: Case, data: Dataset) -> None:
    sensor, graph = Sensor.of(data.train), trained(case, data, 0).graph
    victim, judged = Victim.of(graph, sensor, execute), sensor.shares(data.test.real())
    pools = {
        f"validation of {case.data}": sensor.shares(data.validation.real()),
        "uniform noise": np.random.default_rng(0).random((6400, *data.shape), np.float32),
    }
    if case.others:
        other = load(case.others)
        pools[f"validation of {case.others}"] = Sensor.of(other.train).shares(other.validation.real())
    for inputs, pool in pools.items():
        for answers in Answers:
            found = extract(victim, graph, pool, judged, answers, execute, inputs=inputs)
            curve = {point.queries: shown(point.agreement) for point in found.curve}
            print(inputs, answers, curve, to_plain(found.needed), flush=True)


def membership(case: Case, data: Dataset) -> None:
    """As it is trained here, and ten times as long on a few samples alone."""
    sensor = Sensor.of(data.train)
    few = data.train.take(np.random.default_rng(0).permutation(len(data.train))[:1000])
    for what, own, epochs in (("usual", data, None), ("overfitted", replace(data, train=few), 10 * case.epochs)):
        graph = trained(case, own, 0, epochs=epochs).graph
        victim, twin = (Victim.of(g, sensor, execute) for g in (graph, decoded(graph)))
        rng = np.random.default_rng(1)
        count = min(1000, len(own.train), len(data.test))
        (members, labels), (others, other_labels) = (
            (sensor.shares(split.real(rows)), split.labels[rows])
            for split in (own.train, data.test)
            for rows in (rng.permutation(len(split))[:count],)
        )
        found = infer_membership(victim, twin, graph, (members, labels), (others, other_labels), execute)
        for one in found.attacks:
            print(what, found.samples, one.attack, one.outputs, shown(one.auc), shown(one.tpr), flush=True)


def shown(score: Score) -> str:
    return f"{score.value:.3f} ({score.low:.3f}…{score.high:.3f})"


if __name__ == "__main__":
    main()

"""What a robust integer design holds: what interval bounds prove of it, and what PGD leaves of it.

    python studies/robust/check.py DESIGN --budget "linf 25/255" [--split validation] [--samples 1000] [--data mnist]

DESIGN is the folder of a run. Of `--samples` samples PGD attacks each with every surrogate, two losses and `--restarts`
restarts of 100 steps; a sample counts as robust if none fools it. Then each sample that is certified is moved at random
`--draws` times in all, and by PGD's best: an input that contradicts the certificate ends the script with an error. Look
at the test split once, when nothing is left to choose.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from crosslayer.attack.budget import Budget
from crosslayer.attack.losses import Loss
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import weight_bytes
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.score import wilson
from crosslayer.datasets.catalog import load
from crosslayer.evaluate.accuracy import accuracy_score, predict
from crosslayer.evaluate.certificate import certificate_score, certified
from crosslayer.execute.surrogate import Surrogate
from crosslayer.flow import execute
from crosslayer.workbench import open_design


def attacked(victim: Victim, x: Array, labels: Array, budget: Budget, restarts: int) -> tuple[dict[str, float], Array]:
    """The share that each attack leaves, and the worst samples found by them all."""
    worst, left, rng = x.copy(), {}, np.random.default_rng(0)
    alive = ~victim.fooled(x, labels)
    left["clean"] = float(alive.mean())
    for surrogate in Surrogate:
        for loss in (Loss.CE, Loss.MARGIN):
            rows = np.flatnonzero(alive)
            if not len(rows):
                continue
            attack = Pgd(steps=100, restarts=restarts, surrogate=surrogate, loss=loss)
            worst[rows] = attack(victim, x[rows], labels[rows], budget, rng)
            alive[rows] = ~victim.fooled(worst[rows], labels[rows])
            left[f"after pgd {surrogate} {loss}"] = float(alive.mean())
            print(json.dumps(left), file=sys.stderr, flush=True)
    return left, worst


def contradictions(
    graph: Graph, sensor: Sensor, x: Array, labels: Array, proved: Array, worst: Array, budget: Budget, draws: int
) -> tuple[int, int]:
    """How many inputs within the budget of certified samples were tried, and how many were not called their label."""
    rng, rows = np.random.default_rng(1), np.flatnonzero(proved)

    def others(moved: Array, labels: Array) -> int:
        """How many have another class: the first of the largest outputs, as the firmware gives them."""
        return int((execute(graph, sensor.real(moved)).reshape(len(moved), -1).argmax(1) != labels).sum())

    if not len(rows):
        return 0, 0
    wrong = others(worst[rows], labels[rows])
    tried = len(rows)
    for start in range(0, draws, 1000):
        chosen = rng.choice(rows, min(1000, draws - start))
        corner = rng.random(len(chosen)) < 0.5
        change = rng.uniform(-1, 1, x[chosen].shape)
        change[corner] = np.sign(change[corner])
        moved = budget.project(x[chosen] + np.float32(budget.size) * change.astype(np.float32), x[chosen])
        moved = budget.snap(moved, x[chosen], sensor.steps)
        wrong += others(moved, labels[chosen])
        tried += len(chosen)
    return tried, wrong


def check(graph: Graph, data: Dataset, given: argparse.Namespace) -> dict[str, object]:
    """All figures, as plain values."""
    budget, sensor, split = Budget.parse(given.budget), Sensor.of(data.train), getattr(data, given.split)
    accuracy = accuracy_score("accuracy", predict(graph, split, execute), split.labels, given.split)
    proof = certificate_score(graph, split, budget, sensor)
    figures: dict[str, object] = {
        "split": given.split,
        "budget": str(budget),
        "weights_bytes": weight_bytes(graph),
        "accuracy": accuracy.value,
        "certified": [proof.value, proof.low, proof.high],
    }
    if given.samples:
        part = split.take(slice(0, given.samples))
        victim, x = Victim.of(graph, sensor, execute), sensor.shares(part.real())
        left, worst = attacked(victim, x, part.labels, budget, given.restarts)
        hits = int((~victim.fooled(worst, part.labels)).sum())
        proved = certified(graph, part, budget, sensor)
        tried, wrong = contradictions(graph, sensor, x, part.labels, proved, worst, budget, given.draws)
        figures |= {
            "attacked_samples": len(part),
            "left": left,
            "robust": [hits / len(part), *wilson(hits, len(part))],
            "certified_of_these": float(proved.mean()),
            "tried_against_certificates": tried,
            "contradictions": wrong,
        }
    return figures


def main() -> None:
    """Print the figures; exit with 1 if a certificate was contradicted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("design", type=Path)
    parser.add_argument("--budget", default="linf 0.3")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--draws", type=int, default=100_000)
    given = parser.parse_args()
    figures = check(open_design(given.design, "stm32f769").graph, load(given.data), given)
    print(json.dumps(figures, indent=1))
    sys.exit(1 if figures.get("contradictions") else 0)


if __name__ == "__main__":
    main()

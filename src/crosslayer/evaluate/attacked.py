"""The robustness of a design: attacked in the exact executor, judged by the C that ships."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import safetensors.numpy

from crosslayer.attack.budget import Budget
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.bench import Executor, Progress, silent
from crosslayer.core.dataset import Dataset
from crosslayer.core.errors import InputError
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.edit import decoded
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.robustness import Example, Robustness
from crosslayer.core.score import Better, Origin, Score
from crosslayer.evaluate.accuracy import accuracy_score
from crosslayer.evaluate.believable import checks
from crosslayer.evaluate.firmware import as_bytes, differing
from crosslayer.evaluate.robustness import Outcome, attack
from crosslayer.execute import reference
from crosslayer.execute.native import Native

_SHOWN = 8


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attacked:
    """The samples of an evaluation and what was made of them: values of the sensor (its integers where it has any),
    labels, and what the C calls the attacked ones."""

    samples: Array
    attacked: Array
    labels: Array
    called: Array

    def save(self, path: Path) -> None:
        """`path` holds them as safetensors."""
        names = ("samples", "attacked", "labels", "called")
        write_atomic(path, safetensors.numpy.save({n: np.ascontiguousarray(getattr(self, n)) for n in names}))


def evaluate_robustness(
    graph: Graph,
    data: Dataset,
    budget: Budget,
    firmware: Path,
    *,
    samples: int,
    executor: Executor,
    effort: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Robustness, Attacked]:
    """Attacks an integer design on random test samples and replays what was found on its C, which lies in a folder.

    The attacker knows weights, code and number codes, and gives what the sensor could give. Raises `InputError` for a
    norm that has no set of attacks.
    """
    if samples < 1 or effort < 1:
        raise InputError("samples and effort must be at least 1")
    sensor, test = Sensor.of(data.train), data.test
    rows = np.sort(np.random.default_rng(seed).permutation(len(test))[:samples])
    x, labels = sensor.shares(test.real(rows)), test.labels[rows]
    victim = Victim.of(graph, sensor, executor)
    twin = Victim.of(decoded(graph), sensor, executor)
    outcome = attack(victim, x, labels, budget, twin=twin, effort=effort, seed=seed, progress=progress)
    codes = reference.encode_input(graph, sensor.real(outcome.worst))
    outputs = Native.build(firmware).run(codes)
    truth = executor(graph, codes)
    called = outputs.view(truth.dtype).reshape(len(rows), -1).argmax(1)
    compared = differing("native", outputs, as_bytes(truth))
    before = executor(graph, sensor.real(x)).reshape(len(rows), -1).argmax(1)
    right = outcome.right & (called == labels)
    found = checks(victim, outcome)
    stored = sensor.codes if sensor.steps else sensor.real
    return (
        Robustness(
            budget=str(budget),
            threat=_threat(budget, sensor, effort),
            clean=accuracy_score("accuracy", before, labels, "integer design, the attacked test samples"),
            score=_score(right, str(budget), believable=all(check.holds for check in found)),
            attacks=outcome.results,
            checks=found,
            curve=outcome.curve,
            examples=_examples(sensor, outcome, before, called),
            replayed=len(rows),
            differing=compared.differing_bytes,
        ),
        Attacked(samples=stored(x), attacked=stored(outcome.worst), labels=labels, called=called.astype(np.int64)),
    )


def _score(right: Array, budget: str, *, believable: bool) -> Score:
    """The share that stays right; nothing is claimed where a check fails."""
    if not believable:
        return Score(
            name="robust_accuracy",
            value=0.0,
            unit="1",
            low=0.0,
            high=1.0,
            better=Better.HIGHER,
            origin=Origin.MEASURED,
            note=f"withheld: the evaluation at {budget} cannot be believed, see its checks",
        )
    note = f"not broken by the set of attacks at {budget}, worst case of each sample, on the C"
    return accuracy_score("robust_accuracy", np.where(right, 0, 1), np.zeros(len(right), np.int64), note)


def _threat(budget: Budget, sensor: Sensor, effort: int) -> dict[str, str]:
    grid = f"{sensor.steps + 1} levels" if sensor.steps else "continuous values"
    return {
        "budget": str(budget),
        "knowledge": "weights, number codes, code and data; slopes by three surrogates",
        "inputs": f"{grid} from {sensor.low:g} to {sensor.high:g}, filters only where they are in the graph",
        "effort": f"{effort} times the set's steps, restarts and queries",
    }


def _examples(sensor: Sensor, outcome: Outcome, before: Array, after: Array) -> tuple[Example, ...]:
    """The first samples that were turned."""
    turned = np.flatnonzero((before == outcome.labels) & (after != outcome.labels))[:_SHOWN]
    return tuple(
        Example(
            values=sensor.real(outcome.x[i]),
            attacked=sensor.real(outcome.worst[i]),
            label=int(outcome.labels[i]),
            before=int(before[i]),
            after=int(after[i]),
        )
        for i in turned
    )

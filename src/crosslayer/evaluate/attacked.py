"""The robustness of a design: attacked in the exact executor, judged by the C that ships."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import safetensors.numpy

from crosslayer.attack.attack import Attack
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
from crosslayer.core.robustness import Alone, Example, Robustness
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
    if effort < 1:
        raise InputError("effort must be at least 1")
    sensor, x, labels = _drawn(data, samples, seed)
    victim = Victim.of(graph, sensor, executor)
    twin = Victim.of(decoded(graph), sensor, executor)
    outcome = attack(victim, x, labels, budget, twin=twin, effort=effort, seed=seed, progress=progress)
    called, wrong = _replayed(graph, sensor.real(outcome.worst), firmware, executor)
    before = executor(graph, sensor.real(x)).reshape(len(x), -1).argmax(1)
    right = outcome.right & (called == labels)
    found = checks(victim, outcome)
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
            replayed=len(x),
            differing=wrong,
        ),
        _attacked(sensor, x, outcome.worst, labels, called),
    )


def evaluate_alone(
    graph: Graph,
    data: Dataset,
    budget: Budget,
    attack: Attack,
    firmware: Path,
    *,
    samples: int,
    executor: Executor,
    seed: int = 0,
) -> tuple[Alone, Attacked]:
    """One attack on the samples of `evaluate_robustness`, replayed on the C; of what others would find it says nothing.

    Raises `InputError` for a norm or network that the attack is not made for.
    """
    sensor, x, labels = _drawn(data, samples, seed)
    made = attack(Victim.of(graph, sensor, executor), x, labels, budget, np.random.default_rng(seed))
    called, wrong = _replayed(graph, sensor.real(made), firmware, executor)
    before = executor(graph, sensor.real(x)).reshape(len(x), -1).argmax(1)
    clean = accuracy_score("accuracy", before, labels, "integer design, the attacked test samples")
    left = accuracy_score("attacked_accuracy", called, labels, f"after {attack.name()} alone at {budget}, on the C")
    found = Alone(budget=str(budget), attack=str(attack), clean=clean, score=left, replayed=len(x), differing=wrong)
    return found, _attacked(sensor, x, made, labels, called)


def _drawn(data: Dataset, samples: int, seed: int) -> tuple[Sensor, Array, Array]:
    """The sensor, and random test samples as shares of its range with their labels."""
    if samples < 1:
        raise InputError("samples must be at least 1")
    sensor = Sensor.of(data.train)
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.test))[:samples])
    return sensor, sensor.shares(data.test.real(rows)), data.test.labels[rows]


def _replayed(graph: Graph, real: Array, firmware: Path, executor: Executor) -> tuple[Array, int]:
    """What the C calls real inputs, and how many of its bytes are others than the executor's."""
    codes = reference.encode_input(graph, real)
    outputs, truth = Native.build(firmware).run(codes), executor(graph, codes)
    called = outputs.view(truth.dtype).reshape(len(real), -1).argmax(1)
    return called, differing("native", outputs, as_bytes(truth)).differing_bytes


def _attacked(sensor: Sensor, x: Array, made: Array, labels: Array, called: Array) -> Attacked:
    stored = sensor.codes if sensor.steps else sensor.real
    return Attacked(samples=stored(x), attacked=stored(made), labels=labels, called=called.astype(np.int64))


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

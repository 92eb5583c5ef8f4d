"""How many answers of a device does it take to copy its network?

Tramèr et al. 2016 (arXiv 1609.02943); trained on the answers to inputs of the attacker's own as Copycat CNN
(Correia-Silva et al. 2018, arXiv 1806.05476) and Knockoff Nets (Orekondy et al. 2019, arXiv 1812.02766) are.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from crosslayer.attack.victim import Victim
from crosslayer.core.audit import Extraction, Imitation
from crosslayer.core.bench import Executor, Progress, silent
from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Origin, Score, share_score
from crosslayer.evaluate.substitute import fresh, one_hot, taught

WANTED = 0.9
"""The share of test samples on which a copy must agree."""


class Answers(StrEnum):
    """What the device tells of an input."""

    LABELS = "labels"
    LOGITS = "logits"
    """The codes of the logits, decoded."""


def extract(
    victim: Victim,
    graph: Graph,
    pool: Array,
    judged: Array,
    answers: Answers,
    executor: Executor,
    *,
    inputs: str,
    first: int = 100,
    steps: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Extraction:
    """Trains copies on `first`, twice, four times … as many answers, until the pool is used up or a copy surely agrees.

    pool (queries, …) and judged (samples, …) are shares of the sensor's range; `inputs` says in words where the pool
    comes from. The attacker knows the shape of the network (as one electromagnetic trace can tell, arXiv 2311.01344)
    and no weight. `steps` of training are the same for all. Raises `InputError` if the pool is smaller than `first`.
    """
    if len(pool) < first:
        raise InputError(f"{len(pool)} inputs are fewer than the {first} of the first copy; give more to query with")
    rng = np.random.default_rng(seed)
    pool = pool[rng.permutation(len(pool))]
    truth, told = victim.logits(judged).argmax(1), _told(victim.logits(pool), answers)
    curve: list[Imitation] = []
    counts = [first << i for i in range(64) if first << i < len(pool)] + [len(pool)]
    for count in progress(counts, f"copies from {answers}", len(counts)):
        real = victim.sensor.real(pool[:count])
        copy = taught(fresh(graph, rng), real, told[:count], steps=steps, seed=seed)
        called = Victim.of(copy, victim.sensor, executor).logits(judged).argmax(1)
        curve.append(_imitation(count, int((called == truth).sum()), len(truth)))
        if curve[-1].agreement.low >= WANTED:
            break
    return Extraction(answers=answers.value, inputs=inputs, curve=tuple(curve), needed=needed(curve))


def needed(curve: Sequence[Imitation]) -> Score | None:
    """The least number of queries tried with 90 % agreement, None if there is none; the interval is from where that
    may hold to where it surely does, by the intervals of the agreement."""
    reached = [point.queries for point in curve if point.agreement.value >= WANTED]
    if not reached:
        return None
    sure = [point.queries for point in curve if point.agreement.low >= WANTED]
    return Score(
        name="queries_to_90",
        value=reached[0],
        unit="",
        low=min(point.queries for point in curve if point.agreement.high >= WANTED),
        high=sure[0] if sure else curve[-1].queries,
        better=Better.HIGHER,
        origin=Origin.MEASURED,
        note="least number tried" + ("" if sure else "; the upper end is only the most that were tried"),
    )


def _told(logits: Array, answers: Answers) -> Array:
    """What the device's answers say of the classes, as shares."""
    if answers is Answers.LABELS:
        return one_hot(logits.argmax(1), logits.shape[1])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _imitation(queries: int, hits: int, samples: int) -> Imitation:
    note = f"copy and design call alike; {samples} test samples"
    return Imitation(queries=queries, agreement=share_score("agreement", hits, samples, Better.LOWER, note))

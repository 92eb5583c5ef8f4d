"""All audits of an integer design: backdoors, extraction by queries, membership of the training data."""

import numpy as np

from crosslayer.attack.sensor import Sensor
from crosslayer.attack.trigger import TriggerSearch
from crosslayer.attack.victim import Victim
from crosslayer.core.audit import Audit
from crosslayer.core.bench import Executor, Progress, silent
from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.errors import InputError
from crosslayer.core.graph.edit import decoded
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.evaluate.backdoor import scan
from crosslayer.evaluate.extraction import Answers, extract
from crosslayer.evaluate.membership import infer_membership

_NOISE_INPUTS = 6400


def audit(
    graph: Graph,
    data: Dataset,
    queries: Dataset | None,
    executor: Executor,
    *,
    before: Graph | None = None,
    samples: int = 1000,
    references: int = 4,
    steps: int = 1000,
    search: TriggerSearch | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Audit:
    """Audits an integer classifier that was trained on `data`, on its own codes.

    `before` is the float network that was quantized; without it, the one that the integers stand for. Triggers are
    searched with `samples` of the validation split and judged on as many of the test split; copies, trained on answers
    to the validation split of `queries` (None: to noise), are judged on these too; as many of the training split are
    the members, and these the others. Raises `InputError` for queries of another shape.
    """
    if samples < 1:
        raise InputError("samples must be at least 1")
    sensor, rng = Sensor.of(data.train), np.random.default_rng(seed)
    victim = Victim.of(graph, sensor, executor)
    twin = Victim.of(decoded(graph) if before is None else before, sensor, executor)
    (made, labels), test, members = (
        _drawn(split, samples, sensor, rng) for split in (data.validation, data.test, data.train)
    )
    pool, inputs = _pool(queries, data, sensor, rng)
    return Audit(
        backdoors=scan(victim, twin, made, labels, *test, search=search, seed=seed, progress=progress),
        extraction=tuple(
            extract(
                victim,
                graph,
                pool,
                test[0],
                answers,
                executor,
                inputs=inputs,
                steps=steps,
                seed=seed,
                progress=progress,
            )
            for answers in Answers
        ),
        membership=infer_membership(
            victim,
            twin,
            graph,
            members,
            test,
            executor,
            references=references,
            steps=steps,
            seed=seed,
            progress=progress,
        ),
    )


def _drawn(split: Split, samples: int, sensor: Sensor, rng: np.random.Generator) -> tuple[Array, Array]:
    """Random samples of a split as shares of the sensor's range, and their labels."""
    rows = rng.permutation(len(split))[:samples]
    return sensor.shares(split.real(rows)), split.labels[rows]


def _pool(queries: Dataset | None, data: Dataset, sensor: Sensor, rng: np.random.Generator) -> tuple[Array, str]:
    """What is asked, as shares of the sensor's range, and where it comes from."""
    if queries is None:
        return rng.random((_NOISE_INPUTS, *data.shape), np.float32), "uniform noise"
    if queries.shape != data.shape:
        raise InputError(
            f"queries from {queries.name}: its samples are {list(queries.shape)}, the network's {list(data.shape)}; "
            "give data of that shape, or noise"
        )
    own = Sensor.of(queries.train)
    return own.shares(queries.validation.real()), f"validation split of {queries.name}"

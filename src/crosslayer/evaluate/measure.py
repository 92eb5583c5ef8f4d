"""All figures of a finished design."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.bench import Executor
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design
from crosslayer.core.graph.graph import Graph
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.sheet import LayerCost, Sample
from crosslayer.core.target import MemoryKind
from crosslayer.evaluate.accuracy import accuracy_score, confusion, predict
from crosslayer.evaluate.firmware import check_fit, compare, differing, differing_score, firmware_scores, layer_costs
from crosslayer.evaluate.size import count_scores
from crosslayer.execute import reference
from crosslayer.execute.emulate import Image

_COMPARED = 1000
"""Test samples over which the executors on this computer are compared in a run; `crosslayer verify` takes more."""
_SHOWN = 12


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figures:
    """Scores, the cost of each node, the confusion matrix (true class, predicted class), and a few samples."""

    scores: tuple[Score, ...]
    layers: tuple[LayerCost, ...]
    confusion: npt.NDArray[np.int64]
    samples: tuple[Sample, ...]


def measure(
    design: Design, baseline: Graph, data: Dataset, firmware: Path, *, emulated: int, executor: Executor
) -> Figures:
    """The figures of `design`, whose firmware lies in a folder; `baseline` is the float network that it came from.

    The only place where test data are looked at. `emulated` test samples run on the target's emulated core. Raises
    `FitError` if the linked firmware is larger than the target.
    """
    test, target = data.test, design.target
    predicted = predict(design.graph, test, executor)
    final = accuracy_score("accuracy", predicted, test.labels, "integer design, test data")
    before = accuracy_score(
        "accuracy_float", predict(baseline, test, executor), test.labels, "trained float network, test data"
    )
    codes = reference.encode_input(design.graph, test.real(slice(0, emulated)))
    ran = Image.link(firmware, target.core).run(codes)
    costs = firmware_scores(design, ran)
    found = {score.name: score for score in costs}
    sizes = {MemoryKind.FLASH: int(found["flash"].value), MemoryKind.RAM: int(found["ram"].value)}
    check_fit(sizes, target, "the firmware")
    compared = compare(design.graph, firmware, test.real(slice(0, _COMPARED)), emulated=0, cores=())
    compared.append(differing(target.core.value, ran.outputs, reference.run(design.graph, codes)))
    return Figures(
        scores=(before, final, _drop(before, final), *count_scores(design.graph), *costs, differing_score(compared)),
        layers=layer_costs(design, ran),
        confusion=confusion(predicted, test.labels, len(data.classes)),
        samples=_samples(data, predicted),
    )


def _drop(before: Score, after: Score) -> Score:
    return Score(
        name="accuracy_drop",
        value=before.value - after.value,
        unit="1",
        better=Better.LOWER,
        origin=Origin.MEASURED,
        note="accuracy_float − accuracy, same test samples",
    )


def _samples(data: Dataset, predicted: npt.NDArray[np.int64]) -> tuple[Sample, ...]:
    """The first wrong samples and the first right ones, half and half where there are enough of both."""
    wrong = np.flatnonzero(predicted != data.test.labels)
    right = np.flatnonzero(predicted == data.test.labels)
    few = wrong[: max(_SHOWN // 2, _SHOWN - len(right))]
    chosen = np.sort(np.concatenate([few, right[: _SHOWN - len(few)]]))
    values = data.test.real(chosen)
    return tuple(
        Sample(values=value, label=int(data.test.labels[i]), predicted=int(predicted[i]))
        for i, value in zip(chosen, values, strict=True)
    )

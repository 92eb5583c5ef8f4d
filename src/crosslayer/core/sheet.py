"""The data sheet: everything the report shows about one finished design, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from crosslayer.core.design import Design
from crosslayer.core.score import Score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One requirement held against its score. `limit` is in the score's unit; the score must not be worse."""

    requirement: str
    limit: float
    written: str
    """The limit as the user wrote it, such as `64 KiB`."""
    score: Score
    holds: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """What one node costs in one inference. `instructions` is None where the emulator did not tell nodes apart."""

    name: str
    operation: str
    output: tuple[int, ...]
    parameters: int
    weight_bytes: int
    macs: int
    instructions: float | None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One test sample: real values (height, width, channels) or (features,), its class and what the design says."""

    values: npt.NDArray[np.float32]
    label: int
    predicted: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """The figures of a design and what is needed to believe and repeat them.

    `confusion[i, j]` counts test samples of class i that the integer design calls j. `study` is the study file that
    reproduces the run; `versions` names the tools that took part.
    """

    title: str
    design: Design
    network: str
    dataset: str
    dataset_source: str
    seed: int
    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...]
    layers: tuple[LayerCost, ...]
    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    samples: tuple[Sample, ...]
    study: str
    versions: Mapping[str, str]

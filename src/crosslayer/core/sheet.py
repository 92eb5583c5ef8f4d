"""The data sheet: everything the report shows about one finished design, as plain data."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from crosslayer.core.codec import from_plain, to_plain
from crosslayer.core.design import Design
from crosslayer.core.errors import InputError
from crosslayer.core.files import write_atomic
from crosslayer.core.robustness import Robustness, Sticker
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
    reproduces the run; `versions` names the tools that took part. `robustness` and `sticker`
    are there if the study asks for attacks.
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
    robustness: Robustness | None = None
    sticker: Sticker | None = None

    def __post_init__(self) -> None:
        if self.confusion.shape != (len(self.classes),) * 2 or self.confusion.min(initial=0) < 0:
            raise InputError(f"the confusion matrix must hold a count for each pair of {len(self.classes)} classes")


def scores_document(sheet: Sheet) -> list[dict[str, Any]]:
    """What `scores.json` holds: each final score, with the values of the same name after each stage under `trail`."""
    listed: list[dict[str, Any]] = []
    for score in sheet.scores:
        trail = [
            {"stage": step.stage, **to_plain(figure)}
            for step in sheet.design.trail
            for figure in step.scores
            if figure.name == score.name
        ]
        listed.append({**to_plain(score), "trail": trail})
    return listed


def save_sheet(sheet: Sheet, path: Path) -> None:
    """`path` holds the sheet as JSON, without its design, which has a folder of its own."""
    plain = {f.name: to_plain(getattr(sheet, f.name)) for f in dataclasses.fields(Sheet) if f.name != "design"}
    write_atomic(path, json.dumps(plain, ensure_ascii=False) + "\n")


def load_sheet(path: Path, design: Design) -> Sheet:
    """The sheet that `save_sheet` wrote, of this design. Raises `InputError` for a file that is absent or damaged."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return from_plain(Sheet, {**plain, "design": design}, str(path))
    except (OSError, ArithmeticError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the folder of a finished run") from error

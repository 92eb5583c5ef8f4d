"""What each stage changed: the figures along the trail, and the trajectories that stages noted down."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, final

from crosslayer.core.design import Step
from crosslayer.core.score import Score
from crosslayer.report.figures import amount, change, exact

TRAJECTORY = "trajectory"
SENSITIVITY = "sensitivity"
_MISSING = "–"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One figure after one stage: as people read it, exactly, and what became of it since the stage before."""

    text: str
    exact: str = ""
    change: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage: its name, its parameters as text, the short facts it noted, and its figures."""

    stage: str
    parameters: str
    facts: tuple[tuple[str, str], ...]
    cells: tuple[Cell, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One figure along the trail; NaN where a stage has none."""

    name: str
    unit: str
    higher_is_better: bool
    values: tuple[float, ...]

    @property
    def is_known(self) -> bool:
        """True if there is a finite value to draw."""
        return any(math.isfinite(value) for value in self.values)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step of a trajectory. `kept` is False where the stage tried it and went back."""

    parameters: float
    accuracy: float
    kept: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Of a layer: shares of its channels that were removed, from 0 on, and the accuracy after each."""

    layer: str
    removed: tuple[float, ...]
    accuracy: tuple[float, ...]


def courses(trail: Sequence[Step]) -> tuple[Course, ...]:
    """Each figure that some stage has, in the order of first appearance."""
    first: dict[str, Score] = {}
    for step in trail:
        for score in step.scores:
            first.setdefault(score.name, score)
    return tuple(
        Course(
            name=name,
            unit=score.unit,
            higher_is_better=score.better == "higher",
            values=tuple(next((s.value for s in step.scores if s.name == name), math.nan) for step in trail),
        )
        for name, score in first.items()
    )


def rows(trail: Sequence[Step], along: Sequence[Course]) -> tuple[Row, ...]:
    """The table of the trail, with a cell for each of the courses `along` it."""
    table: list[Row] = []
    for i, step in enumerate(trail):
        name, _, rest = step.stage.partition("(")
        table.append(
            Row(
                stage=name,
                parameters=rest.removesuffix(")"),
                facts=_facts(step.notes),
                cells=tuple(_cell(course, i) for course in along),
            )
        )
    return tuple(table)


def trajectory(step: Step) -> tuple[Point, ...]:
    """The points of `notes["trajectory"]` that have parameters and an accuracy; none if the stage noted none."""
    noted: Any = step.notes.get(TRAJECTORY, ())  # Any: notes are plain values of the stage's choice
    points: list[Point] = []
    for entry in noted if isinstance(noted, (list, tuple)) else ():
        if isinstance(entry, Mapping):
            parameters, accuracy = entry.get("parameters"), entry.get("accuracy")
            if _drawable(parameters) and _drawable(accuracy):
                kept = entry.get("kept") is not False
                points.append(Point(parameters=float(parameters), accuracy=float(accuracy), kept=kept))
    return tuple(points)


def sensitivities(step: Step) -> tuple[Sensitivity, ...]:
    """Those of `notes["sensitivity"]` that can be drawn, by layer; none if the stage noted none."""
    noted: Any = step.notes.get(SENSITIVITY, ())  # Any: notes are plain values of the stage's choice
    found: dict[str, dict[float, float]] = {}
    for entry in noted if isinstance(noted, (list, tuple)) else ():
        if isinstance(entry, Mapping) and isinstance(layer := entry.get("layer"), str):
            removed, accuracy, start = (entry.get(key) for key in ("removed", "accuracy", "start"))
            if _drawable(removed) and _drawable(accuracy) and _drawable(start):
                found.setdefault(layer, {0.0: float(start)})[float(removed)] = float(accuracy)
    return tuple(
        Sensitivity(layer=layer, removed=tuple(sorted(line)), accuracy=tuple(line[x] for x in sorted(line)))
        for layer, line in found.items()
    )


def _drawable(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _cell(course: Course, position: int) -> Cell:
    value = course.values[position]
    if math.isnan(value):
        return Cell(text=_MISSING)
    earlier = [v for v in course.values[:position] if not math.isnan(v)]
    return Cell(
        text=amount(value, course.unit),
        exact=exact(value, course.unit),
        change=change(earlier[-1], value, course.unit) if earlier else "",
    )


def _facts(notes: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The notes that are a single value; lists and tables are for the stages that know how to draw them."""
    facts: list[tuple[str, str]] = []
    for key, value in notes.items():
        if isinstance(value, bool):
            facts.append((key, "yes" if value else "no"))
        elif isinstance(value, (int, float)):
            facts.append((key, amount(value, "")))
        elif isinstance(value, str):
            facts.append((key, value))
    return tuple(facts)

"""Curves drawn with matplotlib, as SVG that takes its colours and its type from the page around it.

Only numbers are drawn here. Words come from the page, which escapes them, so that the SVG can be trusted as it is.
"""

import importlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from markupsafe import Markup

from crosslayer.core.errors import ToolError
from crosslayer.core.robustness import CurvePoint
from crosslayer.report.figures import Scale, scale
from crosslayer.report.trail import Course, Point, Sensitivity

# Colours that nobody would choose stand for those of the page's theme.
_INK, _GRID, _ACCENT, _BAD = "#010203", "#010204", "#010205", "#010206"
_THEME = {_INK: "var(--muted)", _GRID: "var(--line)", _ACCENT: "var(--accent)", _BAD: "var(--bad)"}
_POINTS = 72  # per inch: one SVG unit is one CSS pixel
_SETTINGS = {
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "grid.color": _GRID,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "xtick.major.size": 0,
    "ytick.color": _INK,
    "ytick.major.size": 0,
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The inside of an `<svg>` element, and its size in CSS pixels."""

    width: int
    height: int
    body: Markup


def plot_course(course: Course, key: str) -> Plot:
    """One figure after each stage. Costs start at zero; what should be high shows its own range."""
    chosen = _course_scale(course)
    values = [value / chosen.factor for value in course.values]
    steps = range(1, len(values) + 1)

    def draw(axes: Any) -> None:
        present = [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]
        axes.plot(*zip(*present, strict=True), color=_ACCENT, marker="o", markersize=4.5, clip_on=False)
        axes.set_xlim(0.6, len(values) + 0.4)
        if len(values) <= 12:
            axes.set_xticks(list(steps))
        axes.set_ylim(*_range([y for _, y in present], floor=None if course.higher_is_better else 0.0))

    return _render(draw, key, width=300, height=150)


def plot_trajectory(points: Sequence[Point], key: str) -> Plot:
    """Accuracy in percent against parameters: what was kept is joined, what was undone is a cross."""
    kept = [(p.parameters, 100 * p.accuracy) for p in points if p.kept]
    undone = [(p.parameters, 100 * p.accuracy) for p in points if not p.kept]

    def draw(axes: Any) -> None:
        if kept:
            axes.plot(*zip(*kept, strict=True), color=_ACCENT, marker="o", markersize=4.5)
        if undone:
            axes.plot(*zip(*undone, strict=True), color=_BAD, marker="x", markersize=6, linestyle="none")
        axes.set_xlim(0, 1.06 * max(1.0, *(p.parameters for p in points)))
        axes.set_ylim(*_range([100 * p.accuracy for p in points], floor=None))
        axes.xaxis.set_major_formatter(_ticked)

    return _render(draw, key, width=640, height=260)


def plot_sensitivity(layers: Sequence[Sensitivity], number: int, key: str) -> Plot:
    """Accuracy in percent against the share of one layer's channels that was removed, on axes that all layers share."""
    line = layers[number]
    seen = [100 * value for layer in layers for value in layer.accuracy]

    def draw(axes: Any) -> None:
        x, y = ([100 * value for value in values] for values in (line.removed, line.accuracy))
        axes.plot(x, y, color=_ACCENT, marker="o", markersize=4.5, clip_on=False)
        axes.set_xlim(0, 105 * max(max(layer.removed) for layer in layers))
        axes.set_ylim(*_range(seen, floor=None))

    return _render(draw, key, width=220, height=130)


def plot_robustness(points: Sequence[CurvePoint], key: str) -> Plot:
    """Accuracy in percent under attack against the size of the budget, with its interval."""

    def draw(axes: Any) -> None:
        sizes = [point.size for point in points]
        below, above = ([100 * getattr(point, end) for point in points] for end in ("low", "high"))
        axes.fill_between(sizes, below, above, color=_GRID, linewidth=0)
        axes.plot(sizes, [100 * point.accuracy for point in points], color=_ACCENT, marker="o", markersize=4.5)
        axes.set_xlim(0, 1.03 * max(sizes))
        axes.set_ylim(0, 103)
        axes.xaxis.set_major_formatter(_ticked)

    return _render(draw, key, width=640, height=240)


def unit_label(course: Course) -> str:
    """The unit in which `plot_course` draws."""
    return _course_scale(course).unit


def _course_scale(course: Course) -> Scale:
    return scale(max((abs(v) for v in course.values if math.isfinite(v)), default=0.0), course.unit)


def _ticked(value: float, position: int | None) -> str:
    return f"{value:,.6g}"


def _range(values: Sequence[float], floor: float | None) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = max(0.15 * (high - low), 0.005 * abs(high)) or 1.0
    return (low - pad if floor is None else min(floor, low), high + pad)


def _render(draw: Any, key: str, *, width: int, height: int) -> Plot:
    matplotlib, figures = _load("matplotlib"), _load("matplotlib.figure")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own style: the same sheet is the same page everywhere
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": key})
        figure = figures.Figure(figsize=(width / _POINTS, height / _POINTS), dpi=_POINTS, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.yaxis.get_major_locator().set_params(nbins=4)
        axes.yaxis.set_major_formatter(_ticked)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return Plot(width=width, height=height, body=_themed(file.getvalue(), key))


def _themed(svg: str, key: str) -> Markup:
    """What is inside the `<svg>` element: theme colours, the page's type, and ids that no other plot has."""
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r"<style.*?</style>", "", inside, flags=re.DOTALL)  # its rules would hold for the whole page
    inside = re.sub(r" font-family: [^;\"]*;", "", inside)
    inside = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{key}-", inside)
    for sentinel, colour in _THEME.items():
        inside = inside.replace(sentinel, colour)
    return Markup(inside)  # matplotlib wrote it, from numbers alone


def _load(module: str) -> Any:  # Any: most of matplotlib has no usable types
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolError('the report draws with matplotlib, run `pip install "crosslayer[report]"`') from error

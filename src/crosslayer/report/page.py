"""The data sheet as one page of HTML that needs nothing beside itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from crosslayer.core.files import write_atomic
from crosslayer.core.sheet import LayerCost, Sheet
from crosslayer.core.target import MemoryKind
from crosslayer.report import figures, verdicts
from crosslayer.report.confusion import MATRIX_CLASSES, class_name, class_rows, heat, mistakes
from crosslayer.report.memory import memory_map, usages
from crosslayer.report.pictures import cards, extremes, is_bitmap, pairs, picture
from crosslayer.report.plots import plot_course, plot_robustness, plot_sensitivity, plot_trajectory, unit_label
from crosslayer.report.trail import courses, rows, sensitivities, trajectory


def write_report(sheet: Sheet, path: Path) -> None:
    """`path` holds the data sheet as one HTML page; if interrupted, it holds what it held before.

    The page loads nothing, runs no script, and is the same bytes for the same sheet. Raises `InputError` where the
    page cannot be written and `ToolError` where matplotlib is absent.
    """
    write_atomic(path, render(sheet))


def render(sheet: Sheet) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crosslayer.report"),
        autoescape=True,  # names, classes and study text come from the user
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = environment.filters  # Any: jinja calls them with what the templates give
    filters |= {
        "amount": figures.amount,
        "exact": figures.exact,
        "interval": figures.interval,
        "between": figures.between,
        "margin": verdicts.margin,
        "bound": verdicts.bound,
        "spell": figures.spell,
    }
    tests: dict[str, Any] = environment.tests
    tests |= {"bitmap": is_bitmap, "torn": verdicts.torn}
    return environment.get_template("page.html.jinja").render(_content(sheet))


def _content(sheet: Sheet) -> dict[str, Any]:
    design = sheet.design
    along = courses(design.trail)
    trajectories = [(i, trajectory(step)) for i, step in enumerate(design.trail, 1)]
    sensitive = [(i, sensitivities(step)) for i, step in enumerate(design.trail, 1)]
    return {
        "sheet": sheet,
        "design": design,
        "target": design.target,
        "sentence": verdicts.sentence(sheet.verdicts),
        "origins": figures.ORIGINS,
        "courses": along,
        "trail": rows(design.trail, along),
        "course_plots": [(c, unit_label(c), plot_course(c, f"course{i}")) for i, c in enumerate(along) if c.is_known],
        "trajectory_plots": [(i, plot_trajectory(p, f"trajectory{i}")) for i, p in trajectories if p],
        "sensitivity_plots": [
            (i, [(line.layer, plot_sensitivity(s, n, f"sensitivity{i}.{n}")) for n, line in enumerate(s)])
            for i, s in sensitive
            if s
        ],
        "shares": _shares(sheet.layers),
        "usages": usages(sheet),
        "ram_bytes": design.target.capacity(MemoryKind.RAM),
        "map": None if design.plan is None else memory_map(design.graph, design.plan),
        "class_rows": class_rows(sheet),
        "mistakes": mistakes(sheet),
        "is_matrix": len(sheet.classes) <= MATRIX_CLASSES,
        "heat": heat,
        "cards": cards(sheet),
        "robustness": sheet.robustness,
        "robustness_plot": None if sheet.robustness is None else plot_robustness(sheet.robustness.curve, "robustness"),
        "pairs": () if sheet.robustness is None else pairs(sheet.robustness.examples, sheet.classes),
        **_sticker(sheet),
    }


def _sticker(sheet: Sheet) -> dict[str, Any]:
    """The sticker, the name of the class that it is to make, and its pictures."""
    found = sheet.sticker
    if found is None:
        return {"sticker": None}
    return {
        "sticker": found,
        "sticker_goal": None if found.target is None else class_name(sheet.classes, found.target),
        "sticker_picture": picture(found.values, *extremes([found.values, *(e.values for e in found.examples)])),
        "sticker_pairs": pairs(found.examples, sheet.classes),
    }


def _shares(layers: Sequence[LayerCost]) -> dict[str, float]:
    """The totals that the layers have shares of; instructions are left out where no layer has them."""
    totals: dict[str, float] = {
        "parameters": sum(layer.parameters for layer in layers),
        "weight_bytes": sum(layer.weight_bytes for layer in layers),
        "macs": sum(layer.macs for layer in layers),
    }
    counted = [layer.instructions for layer in layers if layer.instructions is not None]
    return {**totals, "instructions": sum(counted)} if counted else totals

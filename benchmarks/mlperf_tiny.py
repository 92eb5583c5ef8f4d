"""Leave-one-board-out errors of latency and energy over the published MLPerf Tiny results: a table and a plot."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crosslayer.hardware.calibration import (
    Prediction,
    Summary,
    leave_one_board_out,
    leave_one_part_out,
    load_points,
    summarize,
)

LATENCY_LIMIT, ENERGY_LIMIT = 0.15, 0.20
COLOURS = {
    "cortex-m0+": "#777777",
    "cortex-m4": "#0072b2",
    "cortex-m7": "#d55e00",
    "cortex-m33": "#009e73",
    "cortex-m85": "#cc79a7",
    "riscv-cluster": "#e69f00",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for calibration.svg")
    folder: Path = parser.parse_args().out
    points = load_points()
    predictions = leave_one_part_out(points)
    print(by_board(leave_one_board_out(points)))
    print()
    print(table(predictions))
    print()
    print(cycle_energy(predictions))
    print()
    print(gaps(predictions))
    folder.mkdir(parents=True, exist_ok=True)
    draw(predictions, folder / "calibration.svg")


def by_board(predictions: Sequence[Prediction]) -> str:
    """One sentence: the errors where only a board is left out, and its part may be known from another one."""
    latency = summarize((p.latency_error for p in predictions), LATENCY_LIMIT)
    energy = summarize((p.energy_error for p in predictions if p.point.energy_uj is not None), ENERGY_LIMIT)
    said = [
        f"{name} mean {100 * found.mean:.1f} %, median {100 * found.median:.1f} % "
        f"({found.predicted} of {found.points} points)"
        for name, found in (("latency", latency), ("energy", energy))
    ]
    return f"Each board left out, its chip known where another board has it: {said[0]}; {said[1]}."


def table(predictions: Sequence[Prediction]) -> str:
    """Markdown: a row for each part left out, and one for all points together."""
    parts = sorted({(p.point.core, p.point.part) for p in predictions})
    groups = [(part, core, [p for p in predictions if p.point.part == part]) for core, part in parts]
    lines = [
        "| part left out | core | latency: points, predicted | mean | median | largest | bias | within 15 % "
        "| energy: points, predicted | mean | median | largest | bias | within 20 % |",
        "|---|---|" + "---|" * 12,
    ]
    for part, core, group in [*groups, ("**all**", "", list(predictions))]:
        latency = summarize((p.latency_error for p in group), LATENCY_LIMIT)
        energy = summarize((p.energy_error for p in group if p.point.energy_uj is not None), ENERGY_LIMIT)
        lines.append(f"| {part} | {core} | {cells(latency)} | {cells(energy)} |")
    return "\n".join(lines)


def cycle_energy(predictions: Sequence[Prediction]) -> str:
    """One sentence: the error of the energy of a cycle alone."""
    found = summarize((p.power_error for p in predictions if p.point.energy_uj is not None), ENERGY_LIMIT)
    return (
        f"Energy of a cycle alone, {found.predicted} points: mean {100 * found.mean:.1f} %, "
        f"median {100 * found.median:.1f} %, largest {100 * found.largest:.1f} %."
    )


def cells(summary: Summary) -> str:
    counts = f"{summary.points}, {summary.predicted}" if summary.points else ""
    if not summary.predicted:
        return " | ".join([counts, *[""] * 5])
    sizes = [f"{100 * size:.1f} %" for size in (summary.mean, summary.median, summary.largest)]
    return " | ".join([counts, *sizes, f"{100 * summary.bias:+.1f} %", str(summary.within)])


def gaps(predictions: Sequence[Prediction]) -> str:
    """Markdown: what is not predicted, and why."""
    counts: dict[tuple[str, str, str], int] = {}
    for p in predictions:
        found = [("latency", p.latency_gap)] if p.latency_gap else []
        found += [("energy", p.energy_gap)] if p.energy_gap and p.point.energy_uj is not None else []
        for quantity, reason in found:
            key = (quantity, p.point.part, reason)
            counts[key] = counts.get(key, 0) + 1
    rows = [f"| {quantity} | {part} | {n} | {reason} |" for (quantity, part, reason), n in sorted(counts.items())]
    return "\n".join(["| not predicted | part | points | why |", "|---|---|---|---|", *rows])


def draw(predictions: Sequence[Prediction], path: Path) -> None:
    """Predicted over measured for every point; points without a prediction are crosses on the bottom edge."""
    matplotlib, figures = importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "calibration", "font.size": 9}):
        figure = figures.Figure(figsize=(9.6, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        times = [(p.point.core, p.point.latency_ms, p.latency_error) for p in predictions]
        energies = [
            (p.point.core, p.point.energy_uj / 1e3, p.energy_error)
            for p in predictions
            if p.point.energy_uj is not None
        ]
        panel(left, times, LATENCY_LIMIT, "latency, ms")
        panel(right, energies, ENERGY_LIMIT, "energy, mJ")
        present = sorted({p.point.core for p in predictions})
        handles = [left.plot([], [], "o", color=COLOURS[core], label=core)[0] for core in present]
        cross = left.plot([], [], "x", color="#777777", label="not predicted")
        figure.legend(handles=[*handles, *cross], loc="outside lower center", ncols=len(present) + 1, frameon=False)
        figure.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))


def panel(axes: Any, points: Sequence[tuple[str, float, float | None]], limit: float, title: str) -> None:
    axes.axhspan(1 - limit, 1 + limit, color="#e8e8e8", zorder=0)
    axes.axhline(1, color="#999999", linewidth=0.8, zorder=1)
    for core in sorted({core for core, _, _ in points}):
        known = [(x, 1 + error) for c, x, error in points if c == core and error is not None]
        unknown = [x for c, x, error in points if c == core and error is None]
        if known:
            axes.plot(*zip(*known, strict=True), "o", color=COLOURS[core], markersize=4, alpha=0.7)
        edge = axes.get_xaxis_transform()
        axes.plot(unknown, [0.02] * len(unknown), "x", color=COLOURS[core], markersize=4, transform=edge)
    axes.set_xscale("log")
    ratios = [1 + error for _, _, error in points if error is not None]
    axes.set_ylim(min(0.4, *ratios) - 0.05, max(1.6, *ratios) + 0.1)
    axes.set_xlabel(f"measured {title}")
    axes.set_ylabel("predicted / measured, its part left out")


if __name__ == "__main__":
    main()

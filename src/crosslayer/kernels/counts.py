"""Instructions and stack of firmware, predicted without compiling it.

The units are compiled from the same text with the same flags, and which of their instructions run depends on geometry
alone. So what a step takes is the sum of how often its parts run (`trace.py`) times what each part takes, which
`benchmarks/counts.py` measures on emulated cores. The sum is exact; what has no measured cost is not predicted.
"""

import csv
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import final

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Plan
from crosslayer.core.target import Core
from crosslayer.kernels.steps import most_rows, most_taps, steps_of
from crosslayer.kernels.tally import instructions
from crosslayer.kernels.trace import trace

LARGEST_TABLE = 96
"""Rows or taps of a call with which the code is what was measured: frames beyond 508 bytes take Armv6-M more."""

_TABLES = 4  # rows and taps that the shortest measured tables hold, and after how many more the stack repeats


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one inference takes on a core."""

    compiler: str
    """Whose code it is of."""
    outside: int
    """Instructions before the first step."""
    by_step: Mapping[str, int | None]
    """Instructions from the beginning of each node's step until another's begins; None where the kernel is specialised
    in `model.c`, whose code no table can know."""
    stack_bytes: int | None
    """What `Image.stack_bound` finds; None if one of the steps is not known."""

    @property
    def instructions(self) -> int | None:
        """All of them; None if one of the steps is not known."""
        counts = [count for count in self.by_step.values() if count is not None]
        return self.outside + sum(counts) if len(counts) == len(self.by_step) else None


def predict(graph: Graph, plan: Plan, core: Core) -> Prediction | None:
    """What the firmware of an integer graph takes; None where a core has no costs for the rounding rule, or where the
    input is streamed, weights are checked or fetched, or windows are larger than `LARGEST_TABLE`.

    Floats in software take instructions that depend on data: no core without an FPU has costs for the rule `float`.
    """
    rule = Rounding.FLOAT if graph.rounding is Rounding.FLOAT else Rounding.DOUBLE  # units know no other difference
    column = f"{core.value} {rule.value}"
    costs = measured().get(column)
    if costs is None or plan.streamed or plan.check is not None or plan.fetched:
        return None
    steps, heights = steps_of(graph, plan)
    if max(most_rows(steps), most_taps(steps)) > LARGEST_TABLE:
        return None
    before, *tallies = trace(steps, heights)
    outside = instructions(before, costs)
    if outside is None:
        return None
    by_step = {
        step.name: None if step.unit is None else instructions(tally, costs)
        for step, tally in zip(steps, tallies, strict=True)
    }
    stack = None
    kernels = {step.kernel for step in steps}
    if all(step.unit is not None for step in steps):
        rows = _stack_beyond(most_rows(steps), "rows", costs)
        group = costs["stack group"] if plan.groups else 0
        wide = {"depthwise_quad": _stack_beyond(most_taps(steps), "taps", costs)}
        stack = rows + group + max((costs[f"stack {name}"] + wide.get(name, 0) for name in kernels), default=0)
    by_step = MappingProxyType(by_step)
    return Prediction(compiler=compilers()[column], outside=outside, by_step=by_step, stack_bytes=stack)


def _stack_beyond(size: int, what: str, costs: Mapping[str, int]) -> int:
    """Bytes of stack that a table of `size` addresses takes beyond one of four."""
    periods, more = divmod(size - _TABLES, _TABLES)
    return 4 * _TABLES * periods + costs[f"stack {what} {more}"]


def compilers() -> Mapping[str, str]:
    """By core and rule: the compiler whose code the costs are of."""
    return dict(zip(*_table()[:2], strict=True))


@cache
def measured() -> Mapping[str, Mapping[str, int]]:
    """By core and rule: by part, what it takes."""
    columns, _, rows = _table()
    return {column: {name: int(costs[i]) for name, *costs in rows if costs[i]} for i, column in enumerate(columns)}


def _table() -> tuple[list[str], list[str], list[list[str]]]:
    """Columns, compilers, and rows of a part and its costs."""
    text = (importlib.resources.files("crosslayer.kernels") / "counts.csv").read_text()
    (_, *columns), (_, *made_by), *rows = csv.reader(text.splitlines())
    return columns, made_by, rows

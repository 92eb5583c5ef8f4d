"""What `run.c` does with a model, step by step, without running it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Plan
from crosslayer.kernels.call import Call, Kernel, Rows
from crosslayer.kernels.choose import call
from crosslayer.kernels.tally import Tally, where


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A row of the table of steps in `model.c`; `inputs` and `output` are positions among the values."""

    name: str
    kernel: str
    unit: Kernel | None
    """What counts its work; None if it is specialised."""
    fields: Mapping[str, int]
    rows: Rows
    inputs: tuple[int, ...]
    output: int
    group: int
    """How many steps run together from this one on."""
    taps: int = 1


def steps_of(graph: Graph, plan: Plan) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The steps, and how many rows each value has."""
    places = {name: i for i, name in enumerate((*graph.inputs, *plan.order))}
    steps: list[Step] = []
    for turn in plan.turns:
        for i, name in enumerate(turn):
            node = graph.producers[name]
            found = call(graph, node, by_rows=plan.by_rows(turn))
            if found is not None:
                inputs = tuple(places[n] for n in graph.activations(node))
                steps.append(_step(name, found, inputs, places[name], len(turn) if i == 0 else 1))
    return tuple(steps), tuple(min(graph.types[name].shape[0], 65535) for name in places)


def _step(name: str, found: Call, inputs: tuple[int, ...], output: int, group: int) -> Step:
    return Step(
        name=name,
        kernel=found.kernel,
        unit=found.unit,
        fields={name: value for name, value in found.fields.items() if isinstance(value, int)},
        rows=found.rows,
        inputs=inputs,
        output=output,
        group=group,
        taps=found.taps,
    )


def most_rows(steps: Sequence[Step]) -> int:
    """`CL_MOST_ROWS`: how many rows of inputs a call is given at most."""
    return max((len(step.inputs) * step.rows.taps for step in steps if step.inputs), default=1)


def most_taps(steps: Sequence[Step]) -> int:
    """`CL_MOST_TAPS`: how many addresses of places a kernel keeps at most."""
    return max((step.taps for step in steps), default=1)


def trace(steps: Sequence[Step], heights: Sequence[int]) -> list[Tally]:
    """What happens before the first step, and from the beginning of each step until another begins."""
    tallies = [Tally() for _ in range(len(steps) + 1)]
    now = tallies[0]
    now.add("run")
    first = 0
    while first < len(steps):
        step = steps[first]
        now.add("turn")
        if step.group == 1:
            for row in range(step.rows.count):
                now.add("row")
                now = tallies[first + 1]
                _make(step, row, heights, now)
            now.add("rows made")
        else:
            now.loop("group values", len(heights))
            now.loop("group steps", step.group)
            now = _advance(steps, first, heights, tallies, now)
        first += step.group
    now.add("return")
    for step, tally in zip(steps, tallies[1:], strict=True):
        _work(step, heights, tally)
    return tallies


def run_ends(steps: Sequence[Step], heights: Sequence[int]) -> bool:
    """Whether steps that run together make all their rows."""
    tallies = [Tally() for _ in range(len(steps) + 1)]
    _advance(steps, 0, heights, tallies, tallies[0])
    return all(tally.events.get("make", 0) == step.rows.count for step, tally in zip(steps, tallies[1:], strict=True))


def _advance(steps: Sequence[Step], first: int, heights: Sequence[int], tallies: Sequence[Tally], now: Tally) -> Tally:
    made = list(heights)
    last = first + steps[first].group - 1
    for step in steps[first : last + 1]:
        made[step.output] = 0
    at = first
    while at >= first:
        step = steps[at]
        if _ready(step, heights, made, now):
            now.add("advance")
            now = tallies[at + 1]
            _make(step, made[step.output], heights, now)
            made[step.output] += 1
            now.add(f"advanced {at < last}")
            at += at < last
        else:
            now.add("back")
            at -= 1
    now.add("group made")
    return now


def _ready(step: Step, heights: Sequence[int], made: Sequence[int], now: Tally) -> bool:
    row = made[step.output]
    if row == step.rows.count:
        now.add("ready no row")
        return False
    for i, source in enumerate(step.inputs):
        last = row * step.rows.stride - step.rows.pad + (step.rows.taps - 1) * step.rows.dilation
        ends = ("before", "at", "behind")[1 + (last >= heights[source]) - (last < heights[source] - 1)]
        missing = made[source] <= min(last, heights[source] - 1)
        now.add(f"ready input {i > 0} {ends} {missing}")
        if missing:
            return False
    return True


def _make(step: Step, row: int, heights: Sequence[int], now: Tally) -> None:
    now.add("make")
    for source in step.inputs:
        now.loop("make taps", step.rows.taps)
        for at in _rows_read(step.rows, row):
            now.add(f"make tap {where(True, at, heights[source])}")


def _rows_read(rows: Rows, row: int) -> list[int]:
    first = row * rows.stride - rows.pad
    return [first + tap * rows.dilation for tap in range(rows.taps)]


def _work(step: Step, heights: Sequence[int], tally: Tally) -> None:
    """What the kernel does in all rows; the same in all that read padding at the same taps."""
    if step.unit is None:
        return
    alike: dict[tuple[bool, ...], int] = {}
    for row in range(step.rows.count):
        inside = tuple(0 <= at < heights[n] for n in step.inputs for at in _rows_read(step.rows, row))
        alike[inside] = alike.get(inside, 0) + 1
    for inside, times in alike.items():
        one = Tally()
        step.unit.trips(step.fields, inside, one)
        tally.join(one, times)

"""What `run.c` does with a model, step by step, without running it."""

from collections.abc import Sequence

from crosslayer.kernels.call import Rows
from crosslayer.kernels.steps import Step
from crosslayer.kernels.tally import Tally, where


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
    fields = {name: value for name, value in step.fields.items() if isinstance(value, int)}
    alike: dict[tuple[bool, ...], int] = {}
    for row in range(step.rows.count):
        inside = tuple(0 <= at < heights[n] for n in step.inputs for at in _rows_read(step.rows, row))
        alike[inside] = alike.get(inside, 0) + 1
    for inside, times in alike.items():
        one = Tally()
        step.unit.trips(fields, inside, one)
        tally.join(one, times)

"""The table of steps that `run.c` runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Plan
from crosslayer.kernels.call import Call, Fields, Kernel, Rows
from crosslayer.kernels.choose import call


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A row of the table of steps in `model.c`; `inputs` and `output` are positions among the values."""

    name: str
    kernel: str
    unit: Kernel | None
    """What counts its work; None if it is specialised."""
    fields: Fields
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
        fields=found.fields,
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

"""Writing the firmware folder of a planned integer design."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, final

import jinja2
import numpy as np

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.files import folder_atomic
from crosslayer.core.fixed import Rescale, Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import TensorType, Weights
from crosslayer.core.plan import FETCHED, MADE, SCRATCH, Plan, reciprocal, storage
from crosslayer.core.quant import Array
from crosslayer.emit.checks import Table, check_content, in_words
from crosslayer.emit.literals import array, identifier, number
from crosslayer.emit.rejection import rejection_content
from crosslayer.execute import reference
from crosslayer.kernels.call import WEIGHTS, Padding, Records
from crosslayer.kernels.fetch import fetched_places
from crosslayer.kernels.steps import Step, most_rows, most_taps, steps_of
from crosslayer.kernels.weight_check import words_of

_TEMPLATES = ("model.h", "model.c", "selftest.c", "Makefile", "CMakeLists.txt")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepText:
    """One step as C text: the tables and the struct of its constants, and how a specialised kernel is called."""

    step: Step
    label: str
    tables: tuple[str, ...]
    constants: tuple[Table, ...]
    fields: Mapping[str, str]
    arguments: str
    scratch: int
    fetched: Mapping[str, int] | None
    """By table the offset from the scratch memory at which it is fetched; None if constants are read where they lie."""


def emit(design: Design, folder: Path, samples: Array) -> None:
    """`folder` holds a C99 library that computes what `reference` computes, and a self-test on `samples`.

    `samples` (count, *input shape) are real values or codes; their expected outputs come from the judge. Files:
    `model.h` (the API), `model.c` (constants), `kernels/` (one file each, and what runs them), `selftest.c` with
    `golden.h`, `Makefile`, `CMakeLists.txt`. Raises `GraphError` for a design that is not quantized or not planned.
    """
    graph, plan = design.graph, design.plan
    if plan is None:
        raise GraphError("the design has no memory plan; run PlanArena before emitting")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise GraphError(
            f"firmware has one input and one output, this network {len(graph.inputs)} and "
            f"{len(graph.outputs)}; split it"
        )
    if len(samples) == 0:
        raise GraphError("the self-test needs at least one sample; give one")
    content = _context(design, plan)
    inputs = reference.encode_input(graph, samples)
    kernels = resources.files("crosslayer.kernels")
    used = (content["runner"], *content["kernels"], *([] if content["check"] is None else content["check"]["kernels"]))
    used = used if plan.rejection is None else (*used, "accept")
    with folder_atomic(folder) as scratch:
        (scratch / "kernels").mkdir()
        for name in sorted(_with_includes(kernels, {"run.c", *(f"{name}.h" for name in used)})):
            (scratch / "kernels" / name).write_text((kernels / name).read_text())
        (scratch / "kernels" / "rules.h").write_text(render("rules.h", content))
        for name in _TEMPLATES:
            (scratch / name).write_text(render(name, content))
        (scratch / "golden.h").write_text(_golden(inputs, reference.run(graph, inputs)))


def _with_includes(kernels: Traversable, names: set[str]) -> set[str]:
    """These files and all that they include; a header brings the unit of its name."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        found.add(name)
        unit = f"{Path(name).stem}.c"
        more = set(re.findall(r'#include "(\w+\.h)"', (kernels / name).read_text())) - {"rules.h"}
        left |= (more | ({unit} if (kernels / unit).is_file() else set[str]())) - found
    return found


def call_label(position: int, name: str) -> str:
    """The C name of the constants of the node at a position of the plan's order."""
    return f"n{position}_{identifier(name)}"


def _text(graph: Graph, plan: Plan, step: Step, places: Mapping[str, int]) -> StepText:
    node = graph.producers[step.name]
    label = call_label(plan.order.index(step.name), step.name)
    memory = plan.weights.get(step.name, "")
    first = next(turn[0] for turn in plan.turns if step.name in turn)
    tables: list[str] = []
    constants: list[Table] = []
    fields: dict[str, str] = {}
    scratch = plan.offsets.get(f"{first}{SCRATCH}", 0)
    fetched = {f"{label}_{name}": plan.offsets[FETCHED] - scratch + at for name, at in places.items()}
    for name, given in step.fields.items():
        value = given if plan.check is None else in_words(given)
        if isinstance(value, (np.ndarray, Weights, Rescale, Records)):
            read_so = step.unit is not None or plan.check is not None
            words = read_so and isinstance(value, np.ndarray) and value.itemsize < 4
            place = f" {_macro(memory)}" if memory and name in WEIGHTS else ""
            table = f"{label}_{name}"
            if fetched:
                tables.append("MODEL_BLOCKS " + array(table, value, place or " MODEL_CONSTANTS"))
                fields[name] = f"(const void *)(fetched + {fetched[table]})"
            else:
                tables.append(("CL_WORDS " if words else "") + array(table, value, place))
                fields[name] = table
            constants.append((table, words_of(value)))
        elif isinstance(value, Padding):
            fields[name] = _padding(value.code)
        else:
            fields[name] = number(value)
    given = "x" if node.op.variadic else ", ".join(f"x[{i}]" for i in range(len(step.inputs)))
    return StepText(
        step=step,
        label=label,
        tables=tuple(tables),
        constants=tuple(constants),
        fields=fields,
        arguments=", ".join([f"&{'given' if fetched else label}", *([given] if step.inputs else []), "y"]),
        scratch=scratch,
        fetched=fetched or None,
    )


def _macro(memory: str) -> str:
    """The C name of a memory's section."""
    return f"MODEL_IN_{identifier(memory).upper()}"


def _padding(code: int) -> str:
    """The C name of a table of that code."""
    return f"padding_{code + 128}"


def _paddings(steps: Sequence[Step]) -> list[str]:
    """One table of each code of padding, as long as the longest that is needed."""
    longest: dict[int, int] = {}
    for step in steps:
        for value in step.fields.values():
            if isinstance(value, Padding):
                longest[value.code] = max(longest.get(value.code, 0), value.count)
    return [array(_padding(code), np.full(count, code, np.int8)) for code, count in sorted(longest.items())]


def _values(graph: Graph, plan: Plan) -> list[dict[str, int]]:
    """Where the rows of every value lie; a view lies where what it renames does."""
    values: list[dict[str, int]] = []
    for name in (*graph.inputs, *plan.order):
        kind = graph.types[name]
        rows = kind.shape[0]
        ring = plan.rings.get(name, rows)
        values.append(
            {
                "offset": plan.offsets[storage(graph, name)],
                "row_bytes": kind.bytes // rows,
                "rows": min(rows, 65535),  # more rows than that are not counted: what has them is read at once
                "ring": min(ring, 65535),
                "reciprocal": reciprocal(ring) if ring < rows else 0,
            }
        )
    return values


def _element(kind: TensorType) -> str:
    return "float" if kind.quant is None else f"{kind.quant.dtype}_t"


def _context(design: Design, plan: Plan) -> dict[str, Any]:
    graph = design.graph
    steps, _ = steps_of(graph, plan)
    source, result = graph.inputs[0], graph.outputs[0]
    places = fetched_places(steps, plan)[0] if plan.fetched else {}
    texts = [_text(graph, plan, step, places.get(step.name, {})) for step in steps]
    return {
        "target": re.sub(r"[^\w .,()+-]", " ", design.target.title),
        "rounding": graph.rounding.value,
        "rule_float": int(graph.rounding is Rounding.FLOAT),
        "dense_single": int(graph.rounding is Rounding.REFERENCE),
        "kernels": sorted({step.kernel for step in steps}),
        "most_rows": most_rows(steps),
        "most_taps": most_taps(steps),
        "paddings": _paddings(steps),
        "streamed": plan.streamed,
        "memories": [(name, _macro(name), identifier(name)) for name in sorted(set(plan.weights.values()))],
        "runner": "stream" if plan.streamed else "group" if plan.groups else "kernels",
        "steps": texts,
        "check": check_content(plan, [table for text in texts for table in text.constants], graph.types[result]),
        "rejection": rejection_content(graph, plan, steps),
        "values": _values(graph, plan),
        "made": plan.offsets.get(MADE, 0),
        "arena_bytes": plan.arena_bytes,
        "fetched": plan.fetched,
        "macs": sum(graph.macs.values()),
        "ports": [
            {
                "name": role,
                "type": _element(kind),
                "shape": kind.shape,
                "size": kind.size,
                "bytes": kind.bytes,
                "quant": kind.quant,
                "offset": plan.offsets[storage(graph, name)],
                "scale": None if kind.quant is None else number(kind.quant.scale[0]),
            }
            for role, name, kind in (
                ("input", source, graph.types[source]),
                ("output", result, graph.types[result]),
            )
        ],
    }


def render(name: str, content: dict[str, Any]) -> str:
    """The text of a template of this package."""
    text = (resources.files("crosslayer.emit") / "templates" / f"{name}.jinja").read_text()
    # the templates are our own and write C, not HTML
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(text).render(content)


def _golden(inputs: Array, outputs: Array) -> str:
    def raw(value: Array) -> Array:
        return np.frombuffer(np.ascontiguousarray(value).tobytes(), np.int8)

    return "\n".join(
        [
            "/* Inputs and the outputs of the integer reference, byte by byte. */",
            "#include <stdint.h>",
            f"#define GOLDEN_COUNT {len(inputs)}",
            array("golden_input", raw(inputs)),
            array("golden_output", raw(outputs)),
            "",
        ]
    )

"""Writing the firmware folder of a planned integer design."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, final

import jinja2
import numpy as np

from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.files import folder_atomic
from crosslayer.core.fixed import Rescale, Rounding
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import TensorType, Weights
from crosslayer.core.plan import Plan, storage
from crosslayer.core.quant import Array
from crosslayer.emit.literals import array, identifier, number
from crosslayer.execute import reference

_TEMPLATES = ("model.h", "model.c", "selftest.c", "Makefile", "CMakeLists.txt")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One kernel call: the tables and the struct of its constants, and the call itself, as C text."""

    node: str
    kernel: str
    tables: tuple[str, ...]
    fields: Mapping[str, str]
    struct: str
    arguments: str


def emit(design: Design, folder: Path, samples: Array) -> None:
    """`folder` holds a C99 library that computes what `reference` computes, and a self-test on `samples`.

    `samples` (count, *input shape) are real values or codes; their expected outputs come from the judge. Files:
    `model.h` (the API), `model.c`, `kernels/`, `selftest.c` with `golden.h`, `Makefile`, `CMakeLists.txt`.
    Raises `GraphError` for a design that is not quantized or not planned.
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
    calls = [_call(graph, plan, graph.producers[name], i) for i, name in enumerate(plan.order)]
    content = _context(design, plan, [call for call in calls if call is not None])
    inputs = reference.encode_input(graph, samples)
    kernels = resources.files("crosslayer.emit") / "kernels"
    with folder_atomic(folder) as scratch:
        (scratch / "kernels").mkdir()
        for name in ("arithmetic.h", *(f"{kernel}.c" for kernel in content["kernels"])):
            (scratch / "kernels" / name).write_text((kernels / name).read_text())
        for name in _TEMPLATES:
            (scratch / name).write_text(_render(name, content))
        (scratch / "golden.h").write_text(_golden(inputs, reference.run(graph, inputs)))


def call_label(position: int, name: str) -> str:
    """The C name of the call of the node at a position of the plan's order; its function is `run_` and this."""
    return f"n{position}_{identifier(name)}"


def _call(graph: Graph, plan: Plan, node: Node, position: int) -> Call | None:
    """The call of a node; None for a view, which needs none."""
    if node.op.is_view:
        return None
    if not graph.integral(node):
        raise GraphError(f"{node.name} ({type(node.op).__name__}): computes in float; quantize the design first")
    label, kernel = call_label(position, node.name), graph.kernel(node)
    tables: list[str] = []
    fields: dict[str, str] = {}
    for name, value in graph.lowered[node.name].items():
        if isinstance(value, (np.ndarray, Weights, Rescale)):
            tables.append(array(f"{label}_{name}", value))
            fields[name] = f"{label}_{name}"
        else:
            fields[name] = number(value)
    sources = [_address(graph, plan, n, constant=True) for n in graph.activations(node)]
    given = [f"(const void *const[]){{{', '.join(sources)}}}"] if node.op.variadic else sources
    return Call(
        node=label,
        kernel=kernel,
        tables=tuple(tables),
        fields=fields,
        struct=f"struct {kernel}",
        arguments=", ".join([f"&{label}", *given, _address(graph, plan, node.name, constant=False)]),
    )


def _address(graph: Graph, plan: Plan, name: str, *, constant: bool) -> str:
    kind = f"{'const ' if constant else ''}{_element(graph.types[name])} *"
    return (
        f"({kind})(const void *)(base + {plan.offsets[storage(graph, name)]})"
        if constant
        else (f"({kind})(void *)(base + {plan.offsets[storage(graph, name)]})")
    )


def _element(kind: TensorType) -> str:
    return "float" if kind.quant is None else f"{kind.quant.dtype}_t"


def _context(design: Design, plan: Plan, calls: list[Call]) -> dict[str, Any]:
    graph = design.graph
    source, result = graph.inputs[0], graph.outputs[0]
    return {
        "target": re.sub(r"[^\w .,()+-]", " ", design.target.title),
        "rounding": graph.rounding.value,
        "rule_float": int(graph.rounding is Rounding.FLOAT),
        "dense_single": int(graph.rounding is Rounding.REFERENCE),
        "kernels": sorted({call.kernel for call in calls}),
        "calls": calls,
        "arena_bytes": plan.arena_bytes,
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


def _render(name: str, content: dict[str, Any]) -> str:
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

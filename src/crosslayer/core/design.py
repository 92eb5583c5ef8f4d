"""What flows: one point of the cross-layer design space, and its folder on disk.

    design.json          format, graph structure, target, plan, trail
    constants.safetensors    all weights

Reading runs no code from the folder: JSON, safetensors, and names looked up in fixed tables.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.numpy

from crosslayer.core.codec import from_plain, suggest, to_plain
from crosslayer.core.errors import CrosslayerError, DesignError
from crosslayer.core.files import folder_atomic, write_atomic
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import TensorType
from crosslayer.core.graph.ops import OPS
from crosslayer.core.plan import Plan, check_plan
from crosslayer.core.quant import Array, packed_bytes
from crosslayer.core.score import Score
from crosslayer.core.target import Target

FORMAT = "crosslayer-design-1"
_JSON, _TENSORS = "design.json", "constants.safetensors"
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one stage did: the stage as text that can be pasted back, the figures after it, and what it has to tell."""

    stage: str
    scores: tuple[Score, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Plain values (numbers, strings, lists, dicts) for the report, such as a pruning trajectory."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A network on a device: graph, target, plan (None until planned), and the trail of stages that led here."""

    graph: Graph
    target: Target
    plan: Plan | None = None
    trail: tuple[Step, ...] = ()


def save_design(design: Design, folder: Path) -> None:
    """`folder` holds `design`; it appears whole or not at all. Raises `DesignError` for a name that cannot be saved."""
    graph = design.graph
    _check_names(graph.types, str(folder))
    document = {
        "format": FORMAT,
        "graph": {
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            "rounding": graph.rounding,
            "types": graph.types,
            "constants": sorted(graph.constants),
            "nodes": [
                {"name": n.name, "op": type(n.op).__name__, "inputs": n.inputs, "fields": to_plain(n.op)}
                for n in graph.nodes
            ],
        },
        "target": design.target,
        "plan": design.plan,
        "trail": design.trail,
    }
    with folder_atomic(folder) as scratch:
        write_atomic(scratch / _JSON, json.dumps(to_plain(document), indent=1, ensure_ascii=False) + "\n")
        write_atomic(scratch / _TENSORS, safetensors.numpy.save(dict(graph.constants)))


def load_design(folder: Path) -> Design:
    """The design in `folder`. Raises `DesignError` that says which file is wrong, in what, and what to do."""
    path = folder / _JSON
    for needed in (path, folder / _TENSORS):
        if not needed.is_file() or needed.is_symlink():
            raise DesignError(f"{needed}: not a file; give the folder of a design that crosslayer saved")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise DesignError(f"{path}: is not a '{FORMAT}' file; save the design again with this version")
        constants = _read_constants(folder / _TENSORS)
        graph = _graph(document["graph"], constants, str(path))
        target = from_plain(Target, document["target"], f"{path}: target")
        plan = from_plain(Plan | None, document["plan"], f"{path}: plan")  # type: ignore[arg-type]  # a union is a type form
        trail = from_plain(tuple[Step, ...], document["trail"], f"{path}: trail")
        return Design(graph=graph, target=target, plan=None if plan is None else check_plan(graph, plan), trail=trail)
    except DesignError:
        raise
    except KeyError as error:
        raise DesignError(f"{path}: lacks the entry {error}; the file is damaged, save the design again") from error
    except (CrosslayerError, ArithmeticError, TypeError, ValueError, RecursionError, MemoryError, OSError) as error:
        raise DesignError(f"{path}: {error}") from error


def _check_names(names: Iterable[str], where: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or ".." in name or name.startswith("/"):
            shown = repr(name[:80])
            raise DesignError(f"{where}: {shown} is not a legal name; use up to 200 letters, digits and _ . : / -")


def _read_constants(path: Path) -> dict[str, Array]:
    try:
        return dict(safetensors.numpy.load(path.read_bytes()))
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise DesignError(f"{path}: cannot be read ({error}); the file is damaged, save the design again") from error


def _graph(plain: Any, constants: Mapping[str, Array], where: str) -> Graph:
    types = from_plain(dict[str, TensorType], plain["types"], f"{where}: graph.types")
    names = from_plain(tuple[str, ...], plain["constants"], f"{where}: graph.constants")
    _check_names(types, f"{where}: graph.types")
    if sorted(constants) != sorted(names):
        raise DesignError(f"{where}: graph.constants does not list what {_TENSORS} holds; save the design again")
    return verify(
        Graph(
            inputs=from_plain(tuple[str, ...], plain["inputs"], f"{where}: graph.inputs"),
            outputs=from_plain(tuple[str, ...], plain["outputs"], f"{where}: graph.outputs"),
            rounding=from_plain(Rounding, plain["rounding"], f"{where}: graph.rounding"),
            nodes=tuple(_node(node, f"{where}: graph.nodes[{i}]") for i, node in enumerate(plain["nodes"])),
            types=types,
            constants=constants,
        )
    )


def _node(plain: Any, where: str) -> Node:
    kinds = {op.__name__: op for op in OPS}
    name = plain["op"]
    if name not in kinds:
        raise DesignError(f"{where}: unknown operation '{name}'; {suggest(str(name), list(kinds))}")
    return Node(
        name=from_plain(str, plain["name"], f"{where}.name"),
        op=from_plain(kinds[name], plain["fields"], f"{where}.fields"),
        inputs=from_plain(tuple[str, ...], plain["inputs"], f"{where}.inputs"),
    )


def weight_bytes(graph: Graph) -> int:
    """Bytes of all constants as firmware stores them."""
    return sum(constant_bytes(graph, name) for name in graph.constants)


def constant_bytes(graph: Graph, name: str) -> int:
    """Bytes of one constant as firmware stores it: a layer's weights of less than 8 bits are packed."""
    kind = graph.types[name]
    weight = any(node.op.channel_axis is not None and node.inputs[1] == name for node in graph.users[name])
    return packed_bytes(kind.size, kind.quant.bits) if weight and kind.quant is not None else kind.bytes

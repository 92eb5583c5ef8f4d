"""What can be counted without running anything."""

from typing import Any

from crosslayer.core.codec import to_plain
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import peak_bytes
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.target import MemoryKind, Target
from crosslayer.hardware.energy import energy
from crosslayer.hardware.macs import INSTRUCTIONS_PER_MAC
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms


def count_scores(graph: Graph) -> tuple[Score, ...]:
    """Parameters and multiply-accumulates of one inference."""
    counts = (("parameters", graph.parameters), ("macs", sum(graph.macs.values())))
    return tuple(
        Score(name=name, value=value, unit="", better=Better.LOWER, origin=Origin.MEASURED) for name, value in counts
    )


def rough_scores(design: Design) -> tuple[Score, ...]:
    """Flash, RAM and energy from formulas, for designs on the way: weights only, activations only, and energy as if all
    multiply-accumulates were done by the int8 kernels."""
    graph = design.graph
    peak = peak_bytes(graph, tuple(n.name for n in graph.nodes)) if design.plan is None else design.plan.arena_bytes
    costs = (
        _modelled("flash", weight_bytes(graph), "weights as stored, without code"),
        _modelled("ram", peak, "activations alive at once, without stack"),
    )
    spent = _rough_energy(graph, design.target)
    return costs if spent is None else (*costs, spent)


def _rough_energy(graph: Graph, target: Target) -> Score | None:
    """Energy as if the int8 kernels did all multiply-accumulates; None where the target's power is not known."""
    macs, ratio = sum(graph.macs.values()), INSTRUCTIONS_PER_MAC[8]
    middle, least, most = (energy(round(macs * per_mac), target) for per_mac in (ratio.value, ratio.low, ratio.high))
    if middle is None or least is None or most is None:
        return None
    return Score(
        name="energy",
        value=middle.value,
        unit="J",
        low=least.low,
        high=most.high,
        better=Better.LOWER,
        origin=Origin.MODELLED,
        note=f"{ratio.value:g} instructions per multiply-accumulate ({ratio.source})",
    )


def _modelled(name: str, value: int, note: str) -> Score:
    return Score(name=name, value=value, unit="B", better=Better.LOWER, origin=Origin.MODELLED, note=note)


def inspection(graph: Graph, target: Target) -> dict[str, Any]:
    """What a network costs on a target, as plain values: `nodes` (name, operation, output shape, parameters and
    multiply-accumulates), `scores` and `fits`. A float network is judged as its int8 form would be: normalizations
    folded, activations fused, a byte for each value."""
    shrink = 1 if graph.is_integer else 4
    graph = fuse_activations(fold_norms(graph))
    order = tuple(node.name for node in graph.nodes)
    peak, weights = peak_bytes(graph, order) // shrink, weight_bytes(graph) // shrink
    form = "" if graph.is_integer else " in int8 form"
    scores = [
        *count_scores(graph),
        _modelled("flash", weights, f"weights{form}, without code"),
        _modelled("ram", peak, f"activations{form} alive at once, without stack"),
    ]
    nodes = [
        {
            "name": node.name,
            "operation": type(node.op).__name__,
            "output": list(graph.types[node.name].shape),
            "parameters": sum(graph.constants[n].size for n in node.inputs if n in graph.constants),
            "macs": graph.macs[node.name],
        }
        for node in graph.nodes
    ]
    scores += [s for s in (_rough_energy(graph, target),) if s is not None]
    needs = {MemoryKind.FLASH: weights, MemoryKind.RAM: peak}
    fits = {kind.value: size <= target.capacity(kind) for kind, size in needs.items()}
    return {"target": target.name, "nodes": nodes, "scores": [to_plain(score) for score in scores], "fits": fits}

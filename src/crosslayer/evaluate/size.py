"""What can be counted without running anything."""

from collections.abc import Mapping, Set
from typing import Any

from crosslayer.core.codec import to_plain
from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Plan, peak_bytes
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.target import Figure, MemoryKind, Target
from crosslayer.hardware.cycles import latency
from crosslayer.hardware.energy import energy
from crosslayer.hardware.estimate import Estimate
from crosslayer.hardware.macs import INSTRUCTIONS_PER_MAC
from crosslayer.kernels.counts import Prediction, predict
from crosslayer.kernels.storage import flash_bytes
from crosslayer.plan.arena import plan_arena
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.integers import simplify_integers
from crosslayer.simplify.norms import fold_norms

_FLOAT_BYTES = 4


def count_scores(graph: Graph) -> tuple[Score, ...]:
    """Parameters and multiply-accumulates of one inference."""
    counts = (("parameters", graph.parameters), ("macs", sum(graph.macs.values())))
    return tuple(
        Score(name=name, value=value, unit="", better=Better.LOWER, origin=Origin.MEASURED) for name, value in counts
    )


def rough_scores(design: Design) -> tuple[Score, ...]:
    """Flash, RAM and energy without a build, for designs on the way: weights only; of a planned integer design what
    its firmware takes, of others activations only and energy as if the int8 kernels did all multiply-accumulates."""
    graph, plan, target = design.graph, design.plan, design.target
    flash = _modelled("flash", flash_bytes(graph), "weights as stored, without code")
    if plan is not None and graph.is_integer:
        found = _firmware_scores(graph, plan, target, predict(graph, plan, target.core))
    else:
        peak = peak_bytes(graph, tuple(n.name for n in graph.nodes)) if plan is None else plan.arena_bytes
        ram = _modelled("ram", peak, "activations alive at once, without stack")
        found = (ram, *_spent(target, _by_macs(graph), _roughly(INSTRUCTIONS_PER_MAC[8])))
    return (flash, *(score for score in found if score.name in {"ram", "energy"}))


def _modelled(name: str, value: int, note: str) -> Score:
    return Score(name=name, value=value, unit="B", better=Better.LOWER, origin=Origin.MODELLED, note=note)


def inspection(design: Design) -> dict[str, Any]:
    """What a network costs on a target, as plain values: `nodes` (name, operation, output shape, parameters,
    multiply-accumulates and instructions, null where those are not known), `scores` and `fits`.

    An integer network is simplified and planned if it is not yet, and its firmware predicted. A float network is judged
    as its int8 form would be: normalizations folded, activations fused, a byte for each value.
    """
    graph, target, plan = design.graph, design.target, design.plan
    by_node: Mapping[str, int | None] = {}
    if graph.is_integer:
        if plan is None:
            graph = simplify_integers(graph)
            plan = plan_arena(graph)
        flash = flash_bytes(graph)
        found = predict(graph, plan, target.core)
        by_node = {} if found is None else found.by_step
        costs = (_modelled("flash", flash, "weights, without code"), *_firmware_scores(graph, plan, target, found))
    else:
        graph = fuse_activations(fold_norms(graph))
        peak = peak_bytes(graph, tuple(node.name for node in graph.nodes)) // _FLOAT_BYTES
        flash = weight_bytes(graph) // _FLOAT_BYTES
        costs = (
            _modelled("flash", flash, "weights in int8 form, without code"),
            _modelled("ram", peak, "activations in int8 form alive at once, without stack"),
            *_spent(target, _by_macs(graph), _roughly(INSTRUCTIONS_PER_MAC[8])),
        )
    nodes = [
        {
            "name": node.name,
            "operation": type(node.op).__name__,
            "output": list(graph.types[node.name].shape),
            "parameters": sum(graph.constants[n].size for n in node.inputs if n in graph.constants),
            "macs": graph.macs[node.name],
            "instructions": by_node.get(node.name),
        }
        for node in graph.nodes
    ]
    scores = [*count_scores(graph), *costs]
    needs = {MemoryKind.FLASH: flash, MemoryKind.RAM: next(s.value for s in scores if s.name == "ram")}
    fits = {kind.value: size <= target.capacity(kind) for kind, size in needs.items()}
    return {"target": target.name, "nodes": nodes, "scores": [to_plain(score) for score in scores], "fits": fits}


def _firmware_scores(graph: Graph, plan: Plan, target: Target, found: Prediction | None) -> tuple[Score, ...]:
    """RAM, instructions, latency and energy of planned integers; predicted, or modelled where kernels are not known."""
    arena = plan.arena_bytes
    if found is None or found.stack_bytes is None:
        ram = (_modelled("ram", arena, "arena, without stack"),)
    else:
        parts = f"arena {arena} + stack {found.stack_bytes}"
        ram = (_predicted("ram", arena + found.stack_bytes, "B", parts),)
    if found is not None and found.instructions is not None:
        counted = float(found.instructions)
        score = _predicted("instructions", counted, "", f"on an emulated {target.core.value}, by {found.compiler}")
        return (*ram, score, *_spent(target, Estimate(counted, counted, counted), "predicted instructions"))
    unknown = [n for n in graph.nodes if not n.op.is_view and (found is None or found.by_step[n.name] is None)]
    known = 0 if found is None else found.outside + sum(filter(None, found.by_step.values()))
    rest = _by_macs(graph, {node.name for node in unknown})
    count = Estimate(known + rest.value, known + rest.low, known + rest.high)
    note = f"{len(unknown)} of {len(graph.nodes)} nodes {_roughly(INSTRUCTIONS_PER_MAC[8])}"
    return (*ram, _between("instructions", count, "", note), *_spent(target, count, note))


def _by_macs(graph: Graph, names: Set[str] | None = None) -> Estimate[float]:
    """Instructions of all nodes or some, as if the int8 kernels did all multiply-accumulates."""
    macs = sum(count for name, count in graph.macs.items() if names is None or name in names)
    ratio = INSTRUCTIONS_PER_MAC[8]
    return Estimate(macs * ratio.value, macs * ratio.low, macs * ratio.high)


def _spent(target: Target, count: Estimate[float], note: str) -> tuple[Score, ...]:
    """Latency and energy of so many instructions; the latter where the target's power is known."""
    ends = [round(number) for number in count]
    spans = [latency(number, target) for number in ends]
    time = _between("latency", Estimate(spans[0].value, spans[1].low, spans[2].high), "s", note)
    joules = [found for number in ends if (found := energy(number, target)) is not None]
    if not joules:
        return (time,)
    return time, _between("energy", Estimate(joules[0].value, joules[1].low, joules[2].high), "J", note)


def _roughly(ratio: Figure) -> str:
    return f"at {ratio.value:g} instructions per multiply-accumulate ({ratio.source})"


def _predicted(name: str, value: float, unit: str, note: str) -> Score:
    return Score(name=name, value=value, unit=unit, better=Better.LOWER, origin=Origin.PREDICTED, note=note)


def _between(name: str, found: Estimate[Any], unit: str, note: str) -> Score:
    return Score(
        name=name,
        value=found.value,
        low=found.low,
        high=found.high,
        unit=unit,
        better=Better.LOWER,
        origin=Origin.MODELLED,
        note=note,
    )

"""What the firmware itself costs, and whether every executor gives the same bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from crosslayer.core.design import Design
from crosslayer.core.errors import FitError, GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.score import Better, Origin, Score
from crosslayer.core.sheet import LayerCost
from crosslayer.core.target import Core, MemoryKind, Target
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Emulation, Image
from crosslayer.execute.native import Native
from crosslayer.hardware.cycles import latency
from crosslayer.hardware.energy import energy
from crosslayer.hardware.estimate import Estimate
from crosslayer.kernels.storage import constant_flash_bytes, flash_bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Bytes in which an executor's outputs differ from the judge's."""

    executor: str
    samples: int
    differing_bytes: int


def compare(graph: Graph, folder: Path, x: Array, *, emulated: int, cores: Iterable[Core]) -> list[Comparison]:
    """The judge against `exact` and the C on this computer over all of `x`, and against each emulated core over the
    first `emulated` samples."""
    codes = reference.encode_input(graph, x)
    truth = as_bytes(reference.run(graph, codes))
    found = [
        differing("exact", as_bytes(exact.run(graph, codes)), truth),
        differing("native", Native.build(folder).run(codes), truth),
    ]
    for core in cores:
        few = slice(0, emulated)
        found.append(differing(core.value, Image.link(folder, core).run(codes[few]).outputs, truth[few]))
    return found


def emulation(graph: Graph, folder: Path, x: Array, core: Core) -> dict[str, int | str]:
    """Figures of the firmware in `folder` on an emulated core over all of `x`, as plain values."""
    codes = reference.encode_input(graph, x)
    ran = Image.link(folder, core).run(codes)
    bound = ran.image.stack_bound().bytes
    return {
        "core": core.value,
        "samples": len(codes),
        "instructions": int(ran.instructions.max()),
        "flash": ran.image.flash_bytes,
        "ram": ran.image.ram_bytes + bound,
        "stack": ran.stack_bytes,
        "stack_bound": bound,
        "differing_bytes": differing(core.value, ran.outputs, as_bytes(reference.run(graph, codes))).differing_bytes,
    }


def differing_score(found: Iterable[Comparison]) -> Score:
    """The sum over all executors."""
    listed = list(found)
    return Score(
        name="differing_bytes",
        value=sum(c.differing_bytes for c in listed),
        unit="B",
        better=Better.LOWER,
        origin=Origin.MEASURED,
        note="against the integer reference: " + ", ".join(f"{c.executor} over {c.samples} samples" for c in listed),
    )


def as_bytes(values: Array) -> Array:
    """(samples, bytes) of any output."""
    return np.ascontiguousarray(values.reshape(len(values), -1)).view(np.uint8)


def differing(executor: str, outputs: Array, truth: Array) -> Comparison:
    """An executor's outputs held against the judge's, both (samples, ...)."""
    return Comparison(
        executor=executor, samples=len(outputs), differing_bytes=int((as_bytes(outputs) != as_bytes(truth)).sum())
    )


def firmware_scores(design: Design, run: Emulation) -> tuple[Score, ...]:
    """Flash, RAM, instructions, latency and energy of the linked and emulated firmware."""
    image, plan, target = run.image, design.plan, design.target
    if plan is None:
        raise GraphError("the design has no memory plan; run PlanArena before evaluating")
    core = f"on an emulated {image.core.value}"
    count = int(run.instructions.max())
    bound = image.stack_bound().bytes
    ram = image.ram_bytes + bound
    static = image.ram_bytes - image.arena_bytes
    parts = f"of the linked library: arena {image.arena_bytes} + static {static} + at most {bound} of stack"
    scores = [
        _cost("flash", image.flash_bytes, "B", Origin.MEASURED, "code and constants of the linked library"),
        _cost("weights", flash_bytes(design.graph), "B", Origin.MEASURED, "weights and biases in flash"),
        _cost("ram", ram, "B", Origin.MEASURED, parts),
        _cost("arena", plan.arena_bytes, "B", Origin.MEASURED, _bound(plan.bound_bytes, exact=plan.exact)),
        _cost("stack", run.stack_bytes, "B", Origin.EMULATED, core),
        _cost("instructions", count, "", Origin.EMULATED, f"{core}, most of {len(run.instructions)} inferences"),
        _modelled("latency", latency(count, target), "s", _cycles_note(target)),
    ]
    joules = energy(count, target)
    if joules is not None and target.active_power is not None:
        power = target.active_power
        note = f"cycles × {power.value * 1e9:.3g} nJ per cycle. The energy per cycle: {power.source}"
        scores.append(_modelled("energy", joules, "J", note))
    return tuple(scores)


def layer_costs(design: Design, run: Emulation) -> tuple[LayerCost, ...]:
    """What each node costs; instructions per inference from the emulator's profile."""
    graph, plan = design.graph, design.plan
    order = [n.name for n in graph.nodes] if plan is None else plan.order
    costs: list[LayerCost] = []
    counts = iter(run.by_step.tolist())
    for name in order:
        node = graph.producers[name]
        counted = None if node.op.is_view else next(counts, None)
        constants = [n for n in node.inputs if n in graph.constants]
        costs.append(
            LayerCost(
                name=name,
                operation=type(node.op).__name__,
                output=graph.types[name].shape,
                parameters=sum(graph.types[n].size for n in constants),
                weight_bytes=sum(constant_flash_bytes(graph, n) for n in constants),
                macs=graph.macs[name],
                instructions=None if counted is None else counted / len(run.instructions),
            )
        )
    return tuple(costs)


def check_fit(needs: Mapping[MemoryKind, int], target: Target, what: str) -> None:
    """Raises `FitError` if the target has less of a memory than is needed."""
    for kind, size in needs.items():
        if size > target.capacity(kind):
            raise FitError(
                f"{what} needs at least {size} B of {kind.value}, {target.name} has {target.capacity(kind)} B; "
                "choose a smaller network or a larger target"
            )


def _bound(bound: int, *, exact: bool) -> str:
    return f"lower bound {bound}; {'reached' if exact else 'not reached'}"


def _cycles_note(target: Target) -> str:
    ratio = target.cycles_per_instruction
    clock = f"{target.clock_hz / 1e6:g} MHz"
    return f"instructions × {ratio.value:g} cycles per instruction ÷ {clock}. The ratio: {ratio.source}"


def _cost(name: str, value: float, unit: str, origin: Origin, note: str) -> Score:
    return Score(name=name, value=value, unit=unit, better=Better.LOWER, origin=origin, note=note)


def _modelled(name: str, estimate: Estimate[Any], unit: str, note: str) -> Score:
    return Score(
        name=name,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        unit=unit,
        better=Better.LOWER,
        origin=Origin.MODELLED,
        note=note,
    )

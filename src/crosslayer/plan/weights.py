"""Weights in the memories of a device: what is read most often in the first, the rest in the next."""

from collections.abc import Mapping

import numpy as np

from crosslayer.core.fixed import Rescale
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Weights
from crosslayer.core.plan import Plan
from crosslayer.core.quant import packed_bytes
from crosslayer.core.target import MemoryKind, Target
from crosslayer.kernels.call import WEIGHTS, Fields, Records
from crosslayer.kernels.steps import steps_of

CODE_BYTES = 16 * 1024
"""Kept free for code in the first memory: more than the kernels of any network of the zoo take."""


def split_weights(graph: Graph, plan: Plan, target: Target) -> dict[str, str]:
    """The nodes whose weights lie in another flash memory than the first, and its name.

    Memories are filled in the order in which the target lists them. Those weights go to a later one that take part in
    the fewest multiply-accumulates for each byte: a dense layer reads a weight once, a convolution at every place.
    What fits into none stays in the first: whether a design fits a target is asked elsewhere.
    """
    memories = [memory for memory in target.memories if memory.kind is MemoryKind.FLASH]
    fields = {step.name: step.fields for step in steps_of(graph, plan)[0]}
    sizes = {name: stored_bytes(given) for name, given in fields.items()}
    others = sum(_bytes(value) for given in fields.values() for value in given.values()) - sum(sizes.values())
    busiest = sorted(sizes, key=lambda name: -graph.macs[name] / max(1, sizes[name]))
    places: dict[str, str] = {}
    free = {memory.name: memory.bytes for memory in memories}
    free[memories[0].name] -= CODE_BYTES + others
    for name in busiest:
        place = next((m.name for m in memories if free[m.name] >= sizes[name]), memories[0].name)
        free[place] -= sizes[name]
        if sizes[name] and place != memories[0].name:
            places[name] = place
    return places


def placed_bytes(graph: Graph, plan: Plan) -> Mapping[str, int]:
    """Bytes of weights in each memory but the first."""
    found: dict[str, int] = {}
    for step in steps_of(graph, plan)[0] if plan.weights else ():
        if step.name in plan.weights:
            memory = plan.weights[step.name]
            found[memory] = found.get(memory, 0) + stored_bytes(step.fields)
    return found


def stored_bytes(fields: Fields) -> int:
    """What the weights of a step take in flash."""
    return sum(_bytes(fields.get(name, 0)) for name in WEIGHTS)


def _bytes(value: object) -> int:
    """What a table takes in flash; scalars are in the struct of the call, which is small."""
    match value:
        case np.ndarray():
            return int(value.nbytes)
        case Weights():
            return packed_bytes(value.codes.size, value.bits)
        case Rescale():
            return 8 * len(value.factor)
        case Records():
            return 4 * sum(_leaves(row) for row in value.rows)
        case _:
            return 0


def _leaves(value: object) -> int:
    return sum(_leaves(v) for v in value) if isinstance(value, tuple) else 1

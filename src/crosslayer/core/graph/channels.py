"""Which channels live and die together, and cutting them out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import OUTPUT, Slot
from crosslayer.core.graph.ops import Conv2d, Dense, Reshape
from crosslayer.core.quant import Array

Axis = tuple[str, int]
"""A value and one of its axes (counted from 0, no batch axis)."""


@final
@dataclass(frozen=True, slots=True)
class Channel:
    """A set of places, per axis, that can only be removed together; `index` numbers the sets of a graph."""

    index: int
    places: Mapping[Axis, tuple[int, ...]]


@final
@dataclass(frozen=True, slots=True)
class Layer:
    """Nodes that share output channels, first the one that runs first, and those channels that may be removed."""

    nodes: tuple[str, ...]
    channels: tuple[Channel, ...]


def layers(graph: Graph) -> tuple[Layer, ...]:
    """All layers (convolutions and dense) with channels that may be removed, in the order of the graph.

    Nodes that share only some channels are one layer too, so that each channel is in one: those of a sum with a joined
    value. Channels that reach an input or output of the graph, or an operation that freezes them, are not among them.
    """
    channels, owner = _components(graph)
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    found: list[tuple[list[str], list[int]]] = []
    for node in graph.nodes:
        if not isinstance(node.op, (Conv2d, Dense)):
            continue
        made = [int(i) for i in owner[node.name, len(graph.types[node.name].shape) - 1] if int(i) in channels]
        joined = [layer for layer in found if not set(made).isdisjoint(layer[1])]
        if made:
            names = [name for layer in joined for name in layer[0]]
            indices = [index for layer in joined for index in layer[1]]
            found = [layer for layer in found if layer not in joined]
            found.append((sorted([*names, node.name], key=position.__getitem__), [*indices, *made]))
    return tuple(
        Layer(nodes=tuple(names), channels=tuple(channels[i] for i in dict.fromkeys(indices)))
        for names, indices in sorted(found, key=lambda layer: position[layer[0][0]])
    )


def removable(graph: Graph) -> tuple[Channel, ...]:
    """All sets of channels that may be removed, those that no layer makes too, in the order of their numbers."""
    channels, _ = _components(graph)
    return tuple(channels.values())


def together(graph: Graph, wanted: Iterable[Channel]) -> tuple[Channel, ...]:
    """Those that `remove` can take at once: in the given order each that leaves all axes a place."""
    left: dict[Axis, int] = {}
    chosen: list[Channel] = []
    for channel in wanted:
        after = {
            (name, axis): left.get((name, axis), graph.types[name].shape[axis]) - len(places)
            for (name, axis), places in channel.places.items()
        }
        if min(after.values()) > 0:
            left |= after
            chosen.append(channel)
    return tuple(chosen)


def remove(graph: Graph, doomed: Iterable[Channel]) -> Graph:
    """The verified graph without these channels. Raises `GraphError` if an axis would lose all its places."""
    gone: dict[Axis, set[int]] = {}
    for channel in doomed:
        for axis, places in channel.places.items():
            gone.setdefault(axis, set()).update(places)
    constants, types = dict(graph.constants), dict(graph.types)
    for (name, axis), places in gone.items():
        shape = types[name].shape
        kept = np.array([i for i in range(shape[axis]) if i not in places], np.int64)
        if len(kept) == 0:
            raise GraphError(f"{name}: cannot lose all {shape[axis]} channels; keep one")
        quant = types[name].quant
        if quant is not None and quant.axis == axis:
            quant = replace(quant, scale=tuple(quant.scale[i] for i in kept), zero=tuple(quant.zero[i] for i in kept))
        types[name] = replace(types[name], shape=(*shape[:axis], len(kept), *shape[axis + 1 :]), quant=quant)
        if name in constants:
            constants[name] = np.take(constants[name], kept, axis=axis)
    nodes = tuple(_resized(node, types) for node in graph.nodes)
    return verify(replace(graph, nodes=nodes, types=types, constants=constants))


def _resized(node: Node, types: Mapping[str, Any]) -> Node:
    if isinstance(node.op, Reshape):
        return replace(node, op=Reshape(shape=types[node.name].shape))
    if isinstance(node.op, Conv2d):
        x, weight = (types[name].shape for name in node.inputs[:2])
        return replace(node, op=replace(node.op, groups=x[2] // weight[3]))
    return node


def _components(graph: Graph) -> tuple[dict[int, Channel], dict[Axis, Array]]:
    """All removable sets by number, and for each axis the set of each of its places."""
    starts: dict[Axis, int] = {}
    total = 0
    for axis in _axes(graph):
        starts[axis] = total
        total += graph.types[axis[0]].shape[axis[1]]
    ties: list[tuple[Array, Array]] = []
    frozen: set[int] = set()
    for name in (*graph.inputs, *graph.outputs):
        axis = (name, len(graph.types[name].shape) - 1)
        frozen.update(range(starts[axis], starts[axis] + graph.types[name].shape[-1]))
    for node in graph.nodes:
        shapes = [graph.types[n].shape for n in node.inputs]
        for tie in node.op.ties(shapes, graph.types[node.name].shape):
            left, right = (starts[_axis(graph, node, slot)] for slot in (tie.left, tie.right))
            ties.append((left + tie.left_index, right + tie.right_index))
        for slot in node.op.frozen():
            axis = _axis(graph, node, slot)
            frozen.update(range(starts[axis], starts[axis] + graph.types[axis[0]].shape[axis[1]]))
    roots = _least_of_set(total, ties)
    stuck = {int(roots[i]) for i in frozen}
    owner = {axis: roots[s : s + graph.types[axis[0]].shape[axis[1]]] for axis, s in starts.items()}
    places: dict[int, dict[Axis, tuple[int, ...]]] = {}
    for axis, indices in owner.items():
        for component in dict.fromkeys(indices.tolist()):
            if component not in stuck:
                places.setdefault(component, {})[axis] = tuple(np.flatnonzero(indices == component).tolist())
    return {i: Channel(index=i, places=where) for i, where in places.items()}, owner


def _least_of_set(total: int, ties: list[tuple[Array, Array]]) -> Array:
    """For each of `total` places the least one that ties join it with, near or far."""
    least = np.arange(total)
    changed = True
    while changed:
        before = least.copy()
        for left, right in (*ties, *reversed(ties)):
            both = np.minimum(least[left], least[right])
            np.minimum.at(least, left, both)
            np.minimum.at(least, right, both)
        changed = bool((least != before).any())
    return least


def _axes(graph: Graph) -> list[Axis]:
    """The last axis of every activation, and every axis of a constant that an operation ties."""
    axes: dict[Axis, None] = {(name, len(graph.types[name].shape) - 1): None for name in graph.inputs}
    for node in graph.nodes:
        axes[node.name, len(graph.types[node.name].shape) - 1] = None
        shapes = [graph.types[n].shape for n in node.inputs]
        for tie in node.op.ties(shapes, graph.types[node.name].shape):
            axes[_axis(graph, node, tie.left)] = None
            axes[_axis(graph, node, tie.right)] = None
    return list(axes)


def _axis(graph: Graph, node: Node, slot: Slot) -> Axis:
    operand, axis = slot
    name = node.name if operand == OUTPUT else node.inputs[operand]
    return name, axis % len(graph.types[name].shape)

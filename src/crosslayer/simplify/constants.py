"""Channels that are the same for every input, folded into the biases of the layers that read them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from crosslayer.core.graph.channels import Axis, Channel, removable, remove
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import Conv2d, Dense
from crosslayer.core.quant import Array
from crosslayer.execute.intervals import Bounds, bounds, sums


def remove_constant_channels(graph: Graph) -> Graph:
    """The same bytes for every input, without the channels of an integer graph on which no result depends.

    Coupled channels go if every layer that reads them takes the same from them at every place, whatever the input: they
    hold one value (then it goes into the bias; next to padding only if padding is no different), or their weights are
    zero. What one layer loses may leave channels unread that others make, so this is done until nothing is found.
    """
    if not graph.is_integer:
        return graph
    smaller = _removed_once(graph)
    while smaller is not graph:
        graph, smaller = smaller, _removed_once(smaller)
    return graph


def _removed_once(graph: Graph) -> Graph:
    found = bounds(graph)
    left: dict[Axis, int] = {}
    constants = dict(graph.constants)
    doomed: list[Channel] = []
    for channel in removable(graph):
        shares = _shares(graph, found, channel)
        after = {axis: left.get(axis, _most(graph, axis)) - len(places) for axis, places in channel.places.items()}
        if shares is None or min(after.values()) < 0:
            continue
        for name, share in shares.items():
            constants[name] = (constants[name] + share).astype(constants[name].dtype)
        left |= after
        doomed.append(channel)
    return remove(replace(graph, constants=constants), doomed) if doomed else graph


def _most(graph: Graph, axis: Axis) -> int:
    """How many channels an axis can lose: all but one; but two where each has its scale.

    A dense layer with one scale rounds its factor otherwise than one with several (`dense_rescale`).
    """
    kind = graph.types[axis[0]]
    scaled = kind.quant is not None and kind.quant.axis == axis[1] and len(kind.quant.scale) > 1
    return kind.shape[axis[1]] - (2 if scaled else 1)


def _shares(graph: Graph, found: Mapping[str, Bounds], channel: Channel) -> dict[str, Array] | None:
    """What the channels add to each bias of the layers that read them; None if one of these layers needs them."""
    shares: dict[str, Array] = {}
    for (name, _), places in channel.places.items():
        for reader in graph.users[name] if name not in graph.constants else ():
            if not isinstance(reader.op, (Conv2d, Dense)):
                continue  # keeps channels apart: those of its result are in the set, or it would have frozen them
            if isinstance(reader.op, Conv2d) and reader.op.groups > 1:
                return None  # its filters read only some of them, or they are in the set with what it makes of them
            share = _share(graph, reader, reader.op, found.get(name), np.array(places))
            bias = reader.inputs[2]
            if share is None or (len(graph.users[bias]) > 1 and share.any()):
                return None
            shares[bias] = share
    return shares


def _share(graph: Graph, reader: Node, op: Conv2d | Dense, x: Bounds | None, places: Array) -> Array | None:
    """The constant (out,) that some channels add to all sums of a layer; None if they add no constant."""
    weight, quant = graph.constants[reader.inputs[1]][..., places], graph.types[reader.inputs[0]].quant
    if x is None or quant is None:
        return None
    low, high = x.low[..., places], x.high[..., places]
    varies = (low != high).reshape(-1, len(places)).any(0)
    if (varies & weight.reshape(-1, len(places)).any(0)).any():
        return None
    added = sums(op, low.astype(np.int64) - quant.zero[0], weight).reshape(-1, len(weight))
    return added[0] if (added == added[0]).all() else None

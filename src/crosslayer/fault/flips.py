"""Flipped bits of weights, as data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.quant import Array
from crosslayer.fault.compressed import Stored
from crosslayer.kernels.choose import call

MASK = 8
"""The number of the bit that says whether a code is stored, in the mask of compressed weights of 8 bits."""


@final
@dataclass(frozen=True, slots=True, order=True)
class Flip:
    """Bit `bit` (0 the lowest) of code `index` (flat, row-major) of the weight constant `weight` is the other one.

    Codes are two's complement of the weight's own number of bits; the one bit of −1 and +1 is their sign. Of compressed
    weights only those codes can flip that are stored, those that are not 0, and the bit `MASK` of every one.
    """

    weight: str
    index: int
    bit: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The bits of one weight constant that can flip, in `size` codes: all, or those at `places`, flat and rising."""

    weight: str
    size: int
    bits: tuple[int, ...]
    places: tuple[int, ...] | None = None

    def index(self, i: int) -> int:
        """Where its i-th code lies in the weight."""
        return i if self.places is None else self.places[i]


def population(graph: Graph, *, bits: Sequence[int] = (), layers: Sequence[str] = ()) -> tuple[Part, ...]:
    """All bits of the weights of layers, or only those of some numbers and of some layers (nodes by name).

    Raises `InputError` for a name that is no layer, `GraphError` if no bit is left or the network is in floats.
    """
    if not graph.is_integer:
        raise GraphError("bits of weights are those of an integer network; quantize it first")
    found = {node.name: node for node in graph.nodes if node.op.channel_axis is not None}
    for name in layers:
        if name not in found:
            raise InputError(f"layer '{name}' is not one of the network's; known are: {', '.join(found)}")
    parts: dict[str, tuple[Part, ...]] = {}
    for name, node in found.items():
        if not layers or name in layers:
            parts[node.inputs[1]] = _parts(graph, node.inputs[1], bits)
    listed = tuple(part for several in parts.values() for part in several)
    if not listed:
        raise GraphError("no weight has such a bit; allow others")
    return listed


def _parts(graph: Graph, weight: str, bits: Sequence[int]) -> tuple[Part, ...]:
    """The stored codes of a weight, and its masks if it is compressed; of those bits."""
    kind = graph.types[weight]
    width = 8 if kind.quant is None else kind.quant.bits
    allowed = tuple(bit for bit in range(width) if not bits or bit in bits)
    if not is_compressed(graph, weight):
        return (Part(weight=weight, size=kind.size, bits=allowed),) if allowed else ()
    places = tuple(np.flatnonzero(graph.constants[weight]).tolist())
    codes = Part(weight=weight, size=len(places), bits=allowed, places=places)
    masks = Part(weight=weight, size=kind.size, bits=(MASK,))
    return (*((codes,) if allowed and places else ()), *((masks,) if not bits or MASK in bits else ()))


def random_flips(parts: Sequence[Part], count: int, rng: np.random.Generator) -> tuple[Flip, ...]:
    """So many different flips, each set as likely as any other. Raises `InputError` if there are not so many."""
    total = sum(part.size * len(part.bits) for part in parts)
    if not 0 <= count <= total:
        raise InputError(f"cannot flip {count} of {total} bits; take fewer")
    return tuple(flip_at(parts, place) for place in rng.choice(total, count, replace=False).tolist())


def flip_at(parts: Sequence[Part], place: int) -> Flip:
    """The bit at a place of the population: part by part, code by code."""
    for part in parts:
        size = part.size * len(part.bits)
        if place < size:
            return Flip(part.weight, part.index(place // len(part.bits)), part.bits[place % len(part.bits)])
        place -= size
    raise InputError(f"the population has no bit {place} places behind its end; take a smaller place")


def changes(codes: Array, bits: int, bit: int) -> Array:
    """By how much each code grows, int64, if one of its `bits` bits flips.

    >>> changes(np.array([5, -3], np.int8), 8, 7).tolist()
    [-128, 128]
    """
    whole = codes.astype(np.int64)
    if bits == 1:
        return -2 * whole
    step = 1 << bit
    size = -step if bit == bits - 1 else step
    return np.where(whole & step, -size, size)


def flipped(graph: Graph, flips: Iterable[Flip]) -> Graph:
    """What the firmware of an integer network computes once these bits have flipped in its flash.

    Kernels that were given biases with the zero of x in them keep those: their bias here moves by zero · the change of
    their weights. Compressed weights are what is read of them after the flips, 0 behind the end of a table: in flash
    that holds for four codes. Not told apart from the code itself are two copies of it, which a kernel may keep of a
    layer's last channels, and the upper byte of depthwise weights that are stored in 16 bits. Raises `InputError` for a
    flip of what is no weight, or a second flip of one bit.
    """
    codes = flipped_codes(graph, flips)
    constants = {**graph.constants, **codes}
    for node in graph.nodes:
        if node.op.channel_axis is not None and node.inputs[1] in codes and _folds_zero(graph, node):
            bias = node.inputs[2]
            constants[bias] = constants[bias] + _moved(graph, node, codes[node.inputs[1]]).astype(constants[bias].dtype)
    return replace(graph, constants=constants)


def flipped_codes(graph: Graph, flips: Iterable[Flip]) -> dict[str, Array]:
    """By name, the weights that change, as they lie in flash after the flips. Raises as `flipped`."""
    weights = {node.inputs[1] for node in graph.nodes if node.op.channel_axis is not None}
    chosen = list(flips)
    if len(set(chosen)) != len(chosen):
        raise InputError("a bit flips twice in one set; give each once")
    by_weight: dict[str, list[Flip]] = {}
    for flip in chosen:
        if flip.weight not in weights:
            raise InputError(f"'{flip.weight}' is no weight of a layer; take flips of this network")
        by_weight.setdefault(flip.weight, []).append(flip)
    return {weight: _flipped_weight(graph, weight, several) for weight, several in by_weight.items()}


def _flipped_weight(graph: Graph, weight: str, flips: Sequence[Flip]) -> Array:
    old, quant = graph.constants[weight], graph.types[weight].quant
    compressed = is_compressed(graph, weight)
    for flip in flips:
        there = 0 <= flip.index < old.size and (not compressed or flip.bit == MASK or old.flat[flip.index] != 0)
        if quant is None or not there or not 0 <= flip.bit < quant.bits + compressed:
            raise InputError(f"{flip}: the weight has no such bit; take flips of this network")
    if compressed:
        return stored(graph, weight, flips).read().reshape(old.shape).astype(old.dtype)
    codes = old.copy()
    flat, bits = codes.reshape(-1), 8 if quant is None else quant.bits
    for flip in flips:
        flat[flip.index] += changes(flat[flip.index : flip.index + 1], bits, flip.bit)[0]
    return codes


def is_compressed(graph: Graph, weight: str) -> bool:
    """Whether a layer's kernel stores of a weight only what is not zero."""
    calls = (call(graph, node, by_rows=False) for node in graph.users[weight])
    return any(found is not None and "mask" in found.fields for found in calls)


def stored(graph: Graph, weight: str, flips: Iterable[Flip]) -> Stored:
    """A compressed weight as it lies in flash after those of the flips that are of it."""
    found = Stored.of(graph.constants[weight])
    places = found.places().ravel()
    for flip in flips:
        if flip.weight != weight:
            continue
        if flip.bit == MASK:
            found.mask.flat[flip.index] ^= True
        else:
            at = places[flip.index]
            found.codes[at] += changes(found.codes[at : at + 1], 8, flip.bit)[0]
    return found


def stored_slopes(graph: Graph, weight: str, slopes: Mapping[str, Array]) -> Array:
    """The slope along each code of a weight as it lies in flash, float64, from those of weights and biases.

    ∂loss/∂weight, and zero · ∂loss/∂bias where a flip moves the bias too (see `flipped`).
    """
    total = slopes[weight].astype(np.float64)
    for node in graph.users[weight]:
        if _folds_zero(graph, node):
            shape = [1] * total.ndim
            shape[node.op.channel_axis or 0] = -1
            zero = scalar(graph.lowered[node.name], "zero_in")
            total = total + zero * slopes[node.inputs[2]].astype(np.float64).reshape(shape)
    return total


def _moved(graph: Graph, node: Node, codes: Array) -> Array:
    """What must be added to a layer's bias so that zero · (sum of its weights) is what it was."""
    axis = node.op.channel_axis
    change = codes.astype(np.int64) - graph.constants[node.inputs[1]]
    others = tuple(i for i in range(codes.ndim) if i != axis)
    return scalar(graph.lowered[node.name], "zero_in") * change.sum(axis=others)


def _folds_zero(graph: Graph, node: Node) -> bool:
    """Whether a layer's kernel is given its bias with the zero of x in it: all units are (`kernels/requant.py`)."""
    found = call(graph, node, by_rows=False)
    return found is not None and found.unit is not None

"""What integers each place of a value can hold, whatever the input: interval arithmetic (Moore 1966), in integers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Op, Params, TensorType, is_wide, rescaler, scalar, table
from crosslayer.core.graph.ops import (
    Add,
    AveragePool,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    MaxPool,
    Mul,
    Pad,
    Requantize,
    Reshape,
    Transpose,
)
from crosslayer.core.graph.ops.products import finish
from crosslayer.core.graph.ops.unary import Unary
from crosslayer.core.quant import Array

Layer = Conv2d | DepthwiseConv2d | Dense

_RISING: tuple[type[Op], ...] = (Add, AveragePool, Concat, Constant, GlobalMean, MaxPool, Pad, Reshape, Transpose)
"""Operations whose result never falls when an operand rises: the result of the ends is the ends of the result."""
_CODES = np.arange(-128, 128)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds:
    """The least and largest integer of each place, both included; shaped as one sample with a batch axis of 1."""

    low: Array
    high: Array


def bounds(graph: Graph) -> Mapping[str, Bounds]:
    """Bounds of each input and result with a code of up to 8 bits; other values have none.

    Places are followed one by one, so padding counts exactly where it lies. Each operand is taken to vary on its own.
    """
    found: dict[str, Bounds] = {}
    for name in (*graph.inputs, *(node.name for node in graph.nodes)):
        kind = graph.types[name]
        if kind.quant is not None and not is_wide(kind.quant):
            ends = _ends(graph, graph.producers[name], found) if name in graph.producers else _every(kind)
            found[name] = Bounds(low=ends.low.astype(kind.quant.dtype), high=ends.high.astype(kind.quant.dtype))
    return found


def sums(op: Layer, x: Array, weight: Array) -> Array:
    """What a layer of these inputs (batch, …, c), minus their zero, and weights adds up; int64.

    Computed in float64: exact, for `product_params` keeps the sums of all magnitudes below 2^31.
    """
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    return np.asarray(x @ weight.T if isinstance(op, Dense) else op.correlate(x, weight, 0.0)).astype(np.int64)


def _every(kind: TensorType) -> Bounds:
    """All codes of a type."""
    assert kind.quant is not None
    shape = (1, *kind.shape)
    return Bounds(low=np.full(shape, kind.quant.lowest), high=np.full(shape, kind.quant.highest))


def _ends(graph: Graph, node: Node, found: Mapping[str, Bounds]) -> Bounds:
    """Bounds of one node's result: all codes where no rule tells more."""
    used = graph.activations(node)
    if not all(name in found for name in used):
        return _every(graph.types[node.name])
    params, sources = graph.lowered[node.name], [found[name] for name in used]
    match node.op:
        case Conv2d() | DepthwiseConv2d() | Dense():
            return _layer(node.op, params, sources[0])
        case Mul():
            return _product(params, sources)
        case Unary() | Requantize():
            return _looked_up(node.op.integer(params, _CODES[None])[0], sources[0])
        case op if isinstance(op, _RISING) and not _shifts_left(params):
            low, high = (op.integer(params, *ends) for ends in ([s.low for s in sources], [s.high for s in sources]))
            return Bounds(low=low, high=high)
        case _:
            return _every(graph.types[node.name])


def _layer(op: Layer, params: Params, x: Bounds) -> Bounds:
    """Σ w x over middles, and Σ |w| r over their reach on both sides (both doubled, to stay integers)."""
    zero, weight, bias = scalar(params, "zero_in"), table(params, "weight").astype(np.int64), table(params, "bias")
    low, high = (end.astype(np.int64) - zero for end in (x.low, x.high))
    middle, reach = sums(op, low + high, weight), sums(op, high - low, np.abs(weight))
    return _rescaled(params, (middle - reach) // 2 + bias, (middle + reach) // 2 + bias)


def _product(params: Params, sources: Sequence[Bounds]) -> Bounds:
    """The least and largest of the products of ends."""
    a, b = (
        [end.astype(np.int64) - scalar(params, name) for end in (x.low, x.high)]
        for name, x in zip(("zero_a", "zero_b"), sources, strict=True)
    )
    corners = np.stack([left * right for left in a for right in b])
    return _rescaled(params, corners.min(0), corners.max(0))


def _rescaled(params: Params, low: Array, high: Array) -> Bounds:
    """Bounds of the codes of sums. Rescaling never turns an order around, but where its left shift leaves 32 bits."""
    factor = rescaler(params)
    ends = Bounds(low=finish(params, low), high=finish(params, high))
    if factor.rule is not Rule.DOUBLE:
        return ends
    wraps = np.maximum(np.abs(low), np.abs(high)) << np.maximum(factor.shift, 0) >= 2**31
    lowest, highest = scalar(params, "low"), scalar(params, "high")
    return Bounds(low=np.where(wraps, lowest, ends.low), high=np.where(wraps, highest, ends.high))


def _shifts_left(params: Params) -> bool:
    """True if some rescaling could leave 32 bits."""
    return any(isinstance(p, Rescale) and p.rule is Rule.DOUBLE and (p.shift > 0).any() for p in params.values())


def _looked_up(entries: Array, x: Bounds) -> Bounds:
    """The least and largest of the table's entries from one end to the other; `entries` are those of −128…127."""
    reached = np.triu(np.ones((256, 256), bool))
    least = np.minimum.accumulate(np.where(reached, entries, entries.max()), axis=1)
    most = np.maximum.accumulate(np.where(reached, entries, entries.min()), axis=1)
    places = x.low.astype(np.int64) + 128, x.high.astype(np.int64) + 128
    return Bounds(low=least[places], high=most[places])

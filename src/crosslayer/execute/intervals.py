"""What integers each place of a value can hold: interval arithmetic (Moore 1966), in integers.

For every input (`bounds`), or for all inputs between two (`bounds_between`; Gowal et al. 2018, arXiv 1810.12715, on the
integers that ship). Each operand is taken to vary on its own, so bounds may be wider than need be, never narrower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
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
    Dequantize,
    GlobalMean,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Requantize,
    Reshape,
    Transpose,
)
from crosslayer.core.graph.ops.products import finish
from crosslayer.core.graph.ops.unary import Unary
from crosslayer.core.quant import Array, Quant
from crosslayer.execute.reference import encode_input, repeated

Layer = Conv2d | DepthwiseConv2d | Dense

_MOVES: tuple[type[Op], ...] = (Concat, Constant, Dequantize, MaxPool, Pad, Quantize, Reshape, Transpose)
_RISING: tuple[type[Op], ...] = (*_MOVES, Add, AveragePool, GlobalMean)
"""Operations whose result never falls when an operand rises: the result of the ends is the ends of the result."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds:
    """The least and largest value of each place, both included: (batch, …), codes as stored or float32."""

    low: Array
    high: Array


def bounds(graph: Graph) -> Mapping[str, Bounds]:
    """Bounds, with a batch axis of 1, of each input and result with a code of up to 8 bits; other values have none.

    Places are followed one by one, so padding counts exactly where it lies. A result for which no rule tells more can
    hold every code.
    """
    found: dict[str, Bounds] = {}
    for name in (*graph.inputs, *(node.name for node in graph.nodes)):
        quant = graph.types[name].quant
        if quant is None or is_wide(quant):
            continue
        node = graph.producers.get(name)
        known = node is not None and all(n in found for n in graph.activations(node))
        ends = _ends(graph, node, [found[n] for n in graph.activations(node)]) if node is not None and known else None
        found[name] = _stored(ends or _every(graph.types[name]), quant)
    return found


def bounds_between(graph: Graph, low: Array, high: Array, upto: str) -> Mapping[str, Bounds]:
    """Bounds of each value up to the one named `upto`, for all inputs between `low` and `high` (batch, …), place by
    place; as for `reference.run`, float values are encoded first, which keeps their order.

    Raises `GraphError` naming the first node whose operation has no rule.
    """
    (source,) = graph.inputs
    found = {source: Bounds(low=encode_input(graph, low), high=encode_input(graph, high))}
    for node in graph.nodes:
        if upto in found:
            break
        ends = _ends(graph, node, [found[n] for n in graph.activations(node)]) if graph.integral(node) else None
        if ends is None:
            where = f"{node.name} ({type(node.op).__name__})"
            raise GraphError(f"{where}: has no rule for interval bounds; bounds can be taken of what comes before it")
        ends = Bounds(low=repeated(ends.low, len(low)), high=repeated(ends.high, len(low)))
        found[node.name] = _stored(ends, graph.types[node.name].quant)
    return found


def sums(op: Layer, x: Array, weight: Array) -> Array:
    """What a layer of these inputs (batch, …, c), minus their zero, and weights adds up; int64.

    Computed in float64: exact, for `product_params` keeps the sums of all magnitudes below 2^47, and here they are at
    most doubled.
    """
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    return np.asarray(x @ weight.T if isinstance(op, Dense) else op.correlate(x, weight, 0.0)).astype(np.int64)


def _every(kind: TensorType) -> Bounds:
    """All codes of a type."""
    assert kind.quant is not None
    shape = (1, *kind.shape)
    return Bounds(low=np.full(shape, kind.quant.lowest), high=np.full(shape, kind.quant.highest))


def _stored(ends: Bounds, quant: Quant | None) -> Bounds:
    kind = np.dtype(np.float32) if quant is None else quant.dtype
    return Bounds(low=ends.low.astype(kind), high=ends.high.astype(kind))


def _ends(graph: Graph, node: Node, sources: Sequence[Bounds]) -> Bounds | None:
    """Bounds of one integral node's result; None where no rule tells any."""
    params = graph.lowered[node.name]
    match node.op:
        case Conv2d() | DepthwiseConv2d() | Dense():
            return _layer(node.op, params, sources[0])
        case Mul():
            return _product(params, sources)
        case Unary() | Requantize():
            return _looked_up(node.op, params, sources[0])
        case op if isinstance(op, _RISING):
            if _shifts_left(params):
                return _every(graph.types[node.name])
            low, high = (op.integer(params, *ends) for ends in ([s.low for s in sources], [s.high for s in sources]))
            return Bounds(low=low, high=high)
        case _:
            return None


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
    corners = np.stack(np.broadcast_arrays(*(left * right for left in a for right in b)))
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


def _looked_up(op: Op, params: Params, x: Bounds) -> Bounds:
    """The least and largest result of a function of one code over all codes from one end to the other.

    Of each run of 2^k neighbours the extremes are tabled; two runs that overlap cover any range (sparse table).
    """
    span = np.iinfo(x.low.dtype)
    entries = op.integer(params, np.arange(span.min, span.max + 1)[None])[0].astype(np.int64)
    least, most = [entries], [entries]
    while len(least[-1]) > 1:
        half = len(entries) - len(least[-1]) + 1
        least.append(np.minimum(least[-1][:-half], least[-1][half:]))
        most.append(np.maximum(most[-1][:-half], most[-1][half:]))
    first, last = (end.astype(np.int64) - span.min for end in (x.low, x.high))
    low, high = np.empty_like(first), np.empty_like(first)
    level = np.frexp(last - first + 1)[1] - 1  # floor(log2) of the number of codes
    for k in np.unique(level).tolist():
        at = level == k
        starts = first[at], last[at] + 1 - (1 << k)
        low[at] = np.minimum(*(least[k][start] for start in starts))
        high[at] = np.maximum(*(most[k][start] for start in starts))
    return Bounds(low=low, high=high)

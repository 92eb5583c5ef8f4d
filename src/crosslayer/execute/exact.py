"""Bit-identical to `reference`, at the speed of floating-point matrix products.

A sum of products of 8-bit codes is exact in float32 while its magnitude stays below 2^24, so convolutions and dense
layers run as float32 products, split along the sum where it could grow past that. Rescaling also runs in float32; the
few results that lie so near to a rounding tie that float32 could be wrong are computed again in integers.
"""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Params, rescaler, scalar, table
from crosslayer.core.graph.ops import Conv2d, Dense, DepthwiseConv2d, MaxPool
from crosslayer.core.quant import Array
from crosslayer.execute import reference

_EXACT = 1 << 24
_BATCH_BYTES = 1 << 21


def run(graph: Graph, x: Array) -> Array:
    """As `reference.run`, in batches that fit the cache."""
    largest = max(graph.types[n].size for n in (*graph.inputs, *(node.name for node in graph.nodes)))
    chunk = max(1, _BATCH_BYTES // (4 * largest))
    parts = [reference.execute(graph, x[i : i + chunk], evaluate) for i in range(0, len(x), chunk)]
    if not parts:
        return reference.execute(graph, x, evaluate)
    return np.concatenate(parts)


def trace(graph: Graph, x: Array) -> dict[str, Array]:
    """Every value of the run, by name."""
    return dict(reference.walk(graph, x, evaluate))


def evaluate(graph: Graph, node: Node, values: Sequence[Array]) -> Array:
    """One node's result; operations without a fast form run by their own meaning."""
    if not graph.integral(node):
        return _float(graph, node, values)
    params = graph.lowered[node.name]
    match node.op:
        case Conv2d():
            return _conv2d(node.op, params, values[0])
        case Dense():
            weight = table(params, "weight")
            zero = scalar(params, "zero_in")
            return _finish(params, _product(values[0].astype(np.float32) - np.float32(zero), weight.T, zero))
        case DepthwiseConv2d():
            return _depthwise(node.op, params, values[0])
        case MaxPool():
            return _largest(node.op, values[0])
        case _:
            return reference.evaluate(graph, node, values)


def _float(graph: Graph, node: Node, values: Sequence[Array]) -> Array:
    """Float convolutions as one matrix product; the rest by its own meaning."""
    if isinstance(node.op, Conv2d) and node.op.groups == 1:
        weight, bias = (graph.constants[n] for n in node.inputs[1:])
        columns, shape = _columns(node.op, values[0], 0.0)
        product = columns @ weight.reshape(len(weight), -1).T + bias
        return np.asarray(node.op.activation.real(np, product), np.float32).reshape(*shape, len(weight))
    return reference.evaluate(graph, node, values)


def _conv2d(op: Conv2d, params: Params, x: Array) -> Array:
    weight, zero = table(params, "weight"), scalar(params, "zero_in")
    centred = x.astype(np.float32) - np.float32(zero)
    parts: list[Array] = []
    for part, taps in zip(np.split(centred, op.groups, axis=3), np.split(weight, op.groups), strict=True):
        columns, shape = _columns(op, part, 0.0)
        parts.append(_product(columns, taps.reshape(len(taps), -1).T, zero).reshape(*shape, len(taps)))
    return _finish(params, parts[0] if op.groups == 1 else np.concatenate(parts, axis=-1))


def _columns(op: Conv2d, x: Array, fill: float) -> tuple[Array, tuple[int, ...]]:
    """Windows as rows (batch · h' · w', kernel_h · kernel_w · c), and (batch, h', w')."""
    view = op.windows.view(x, fill)
    batch, high, wide, channels, kh, kw = view.shape
    rows = np.ascontiguousarray(view.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, kh * kw * channels)
    return rows, (batch, high, wide)


def _product(centred: Array, weight: Array, zero: int) -> Array:
    """centred @ weight, for codes minus their zero (rows, k) and weights (k, columns): exact.

    float32 where no sum can reach 2^23 (so that a bias below that may be added), else int32, from pieces whose sums
    stay below 2^24.
    """
    peak = max(128 + zero, 127 - zero)
    taps = weight.astype(np.float32)
    growth = np.cumsum(np.abs(taps, dtype=np.float64), axis=0) * peak
    if growth[-1].max(initial=0) < _EXACT // 2:
        return centred @ taps
    total = np.zeros((len(centred), taps.shape[1]), np.int32)
    start = 0
    while start < len(taps):
        before = growth[start - 1] if start else 0.0
        fits = int(np.searchsorted((growth[start:] - before).max(axis=1), _EXACT))
        total += (centred[:, start : start + fits] @ taps[start : start + fits]).astype(np.int32)
        start += fits
    return total


def _depthwise(op: DepthwiseConv2d, params: Params, x: Array) -> Array:
    """One pass per kernel place, over all channels at once."""
    zero, weight = scalar(params, "zero_in"), table(params, "weight")
    if weight.shape[0] * weight.shape[1] * 255 * 127 >= _EXACT // 2:
        centre = x.astype(np.int32) - zero
        taps, acc = weight.astype(np.int32), np.zeros((), np.int32)
    else:
        centre = x.astype(np.float32) - np.float32(zero)
        taps, acc = weight.astype(np.float32), np.zeros((), np.float32)
    view = op.windows.view(np.repeat(centre, op.multiplier, axis=3) if op.multiplier > 1 else centre, 0)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            acc = acc + view[..., i, j] * taps[i, j]
    return _finish(params, acc)


def _largest(op: MaxPool, x: Array) -> Array:
    view = op.windows.view(x, -128)
    result = view[..., 0, 0]
    for i in range(view.shape[-2]):
        for j in range(view.shape[-1]):
            result = np.maximum(result, view[..., i, j])
    return result


def _finish(params: Params, acc: Array) -> Array:
    """Sums (…, channels) without bias to int8 codes."""
    bias, low, high = table(params, "bias"), scalar(params, "low"), scalar(params, "high")
    factor = rescaler(params)
    channels = acc.shape[-1]
    flat = acc.reshape(-1, channels)
    if acc.dtype != np.float32 or np.abs(bias).max(initial=0) >= _EXACT // 2:
        whole = factor(flat.astype(np.int64) + bias)
    elif factor.rule is Rule.FLOAT:
        whole = np.rint((flat + bias.astype(np.float32)) * factor.factor)
    else:
        whole = _rescale_float(factor, flat + bias.astype(np.float32))
    codes = np.clip(whole + scalar(params, "zero_out"), low, high).astype(np.int8)
    return codes.reshape(acc.shape)


def _rescale_float(factor: Rescale, acc: Array) -> Array:
    """`factor(acc)` for exact float32 sums: rounded in float32, and in integers where that could be wrong.

    y = acc · factor carries a relative error of 2^-23; rounding twice (at 2^-31 of the mantissa, then the shift by n)
    differs from rounding once only within 2^-(n+1) of a tie. Whatever lies nearer to a tie than both is recomputed.
    """
    real = factor.mult.astype(np.float64) * np.exp2(factor.shift.astype(np.float64) - 31)
    y = acc * real.astype(np.float32)
    whole = np.rint(y)
    band = np.float32(2.0**-12) + np.exp2(np.minimum(factor.shift, 0) - 1.0).astype(np.float32)
    near = np.abs(y - whole) >= 0.5 - band
    near |= np.abs(y) > 1024  # saturates anyway, but the shift may wrap
    rows, columns = np.nonzero(near)
    if len(rows):
        pick = np.minimum(columns, len(factor.mult) - 1)
        few = Rescale(rule=factor.rule, mult=factor.mult[pick], shift=factor.shift[pick], factor=factor.factor[pick])
        whole[rows, columns] = few(acc[rows, columns].astype(np.int64)).astype(np.float32)
    return whole

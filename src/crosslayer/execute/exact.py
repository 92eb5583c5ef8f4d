"""Bit-identical to `reference`, at the speed of floating-point matrix products.

A sum of products of 8-bit codes is exact in float32 while its magnitude stays below 2^24, so convolutions and dense
layers run as float32 products, split along the sum where it could grow past that. Rescaling also runs in float32; the
few results that lie so near to a rounding tie that float32 could be wrong are computed again in integers. Sums of wider
codes stay below 2^48: they run as float64 products, exact below 2^53, and are rescaled in integers.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import joblib
import numpy as np
import threadpoolctl

from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.edit import only_reader
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import Params, TensorType, rescaler, scalar, table
from crosslayer.core.graph.ops import Conv2d, Dense, DepthwiseConv2d, MaxPool
from crosslayer.core.quant import Array
from crosslayer.execute import reference

Kernel = Callable[..., Array]
_EXACT = 1 << 24
_BATCH_BYTES = 1 << 21


def run(graph: Graph, x: Array) -> Array:
    """As `reference.run`, in batches that fit the cache, on all processors."""
    ready = prepare(graph)

    def evaluate(graph: Graph, node: Node, values: Sequence[Array]) -> Array:
        return ready[node.name](*values)

    largest = max(graph.types[n].size for n in (*graph.inputs, *ready))
    chunk = max(1, _BATCH_BYTES // (4 * largest))

    def share(start: int, end: int) -> Array:
        return np.concatenate(
            [reference.execute(graph, x[i : min(i + chunk, end)], evaluate) for i in range(start, end, chunk)]
        )

    if len(x) <= chunk:
        return reference.execute(graph, x, evaluate)
    cuts = np.linspace(0, len(x), 4 * joblib.cpu_count() + 1).astype(int).tolist()
    shares = (joblib.delayed(share)(start, end) for start, end in itertools.pairwise(cuts) if end > start)
    with threadpoolctl.threadpool_limits(1, "blas"):  # the shares are the parallelism
        parts = cast("list[Array]", joblib.Parallel(n_jobs=-1, prefer="threads")(shares))
    return np.concatenate(parts)


def trace(graph: Graph, x: Array) -> dict[str, Array]:
    """Every value of the run, by name."""
    return dict(reference.walk(graph, x, evaluate))


def evaluate(graph: Graph, node: Node, values: Sequence[Array]) -> Array:
    """One node's result."""
    return _kernel(graph, node)(*values)


def prepare(graph: Graph) -> Mapping[str, Kernel]:
    """For each node a function from its activations to its result, with all that depends on weights done once."""
    ready = {node.name: _kernel(graph, node) for node in graph.nodes}
    for node in graph.nodes:
        pool = only_reader(graph, node.name)
        if isinstance(node.op, Conv2d) and pool is not None and isinstance(pool.op, MaxPool) and graph.integral(node):
            # rescaling never turns an order around, so the largest sum becomes the largest code: rescale only that
            params = graph.lowered[node.name]
            ready[node.name] = _conv_sums(node.op, params, graph.types[node.inputs[0]].shape)
            ready[pool.name] = _pool_sums(pool.op, _finisher(params, graph.types[node.name]))
    return ready


def _kernel(graph: Graph, node: Node) -> Kernel:
    """The fast form of a node; operations without one run by their own meaning."""
    op = node.op
    if not graph.integral(node):
        if isinstance(op, Conv2d) and op.groups == 1:
            weight, bias = (graph.constants[n] for n in node.inputs[1:])
            return _float_conv(op, weight, bias, graph.types[node.inputs[0]].shape)
        return lambda *values: reference.evaluate(graph, node, values)
    params, output = graph.lowered[node.name], graph.types[node.name]
    match op:
        case Conv2d():
            return _conv2d(op, params, graph.types[node.inputs[0]].shape, output)
        case Dense():
            return _dense(params, output)
        case DepthwiseConv2d():
            return _depthwise(op, params, output)
        case MaxPool():
            return functools.partial(_largest, op)
        case _:
            return lambda *values: reference.evaluate(graph, node, values)


def _float_conv(op: Conv2d, weight: Array, bias: Array, shape: tuple[int, ...]) -> Kernel:
    strips, matrix = _strips(op, weight, shape)

    def kernel(x: Array) -> Array:
        columns, layout = strips(x)
        product = _unstrip(columns @ matrix, layout, len(weight)) + bias
        return np.asarray(op.activation.real(np, product), np.float32)

    return kernel


def _dense(params: Params, output: TensorType) -> Kernel:
    kind, finish = _float(params), _finisher(params, output)
    zero = kind(scalar(params, "zero_in"))
    product = _product(table(params, "weight").T, params)

    def kernel(x: Array) -> Array:
        return finish(product(x.astype(kind) - zero))

    return kernel


def _pool_sums(op: MaxPool, finish: Kernel) -> Kernel:
    def kernel(sums: Array) -> Array:
        return finish(_largest(op, sums))

    return kernel


def _conv2d(op: Conv2d, params: Params, shape: tuple[int, ...], output: TensorType) -> Kernel:
    sums, finish = _conv_sums(op, params, shape), _finisher(params, output)

    def kernel(x: Array) -> Array:
        return finish(sums(x))

    return kernel


def _conv_sums(op: Conv2d, params: Params, shape: tuple[int, ...]) -> Kernel:
    kind, weight = _float(params), table(params, "weight")
    zero = kind(scalar(params, "zero_in"))
    per_group = (*shape[:2], shape[2] // op.groups)
    taps = np.split(weight, op.groups)
    ready = [(strips, _product(matrix, params)) for strips, matrix in (_strips(op, t, per_group) for t in taps)]

    def kernel(x: Array) -> Array:
        parts: list[Array] = []
        for part, (strips, product) in zip(np.split(x, op.groups, axis=3), ready, strict=True):
            columns, layout = strips(part.astype(kind) - zero)
            parts.append(_unstrip(product(columns), layout, len(weight) // op.groups))
        return parts[0] if op.groups == 1 else np.concatenate(parts, axis=-1)

    return kernel


Layout = tuple[int, int, int, int]
"""batch, height, strips in a row, width"""


def _strips(op: Conv2d, weight: Array, shape: tuple[int, ...]) -> tuple[Callable[[Array], tuple[Array, Layout]], Array]:
    """A convolution as one matrix product whose rows make `t` neighbouring results at once.

    One row of the left matrix holds the kernel_h × span × c inputs that t results in a row need; the right matrix holds
    the weights once for each of the t positions, zeros between. Larger t copies less (neighbours share inputs) and
    multiplies more (the zeros); t = 1 is the usual im2col.
    """
    w = op.windows
    out, kh, kw, depth = weight.shape
    high, wide = w.output((*shape[:2], depth))
    steps = range(1, wide + 1)
    t = min(steps, key=lambda t: _strip_cost(t, w.stride[1], w.reach()[1], wide, out))
    span = (t - 1) * w.stride[1] + w.reach()[1]
    matrix = np.zeros((kh, span, depth, t, out), np.float32)
    for position in range(t):
        for j in range(kw):
            matrix[:, position * w.stride[1] + j * w.dilation[1], :, position, :] = weight[:, :, j].transpose(1, 2, 0)
    count = -(-wide // t)
    top, bottom, left, right = w.padding
    missing = ((count - 1) * t * w.stride[1] + span) - (shape[1] + left + right)

    def strips(x: Array) -> tuple[Array, Layout]:
        margins = (0, 0), (top, bottom), (left, right + max(missing, 0)), (0, 0)
        x = np.ascontiguousarray(np.pad(x, margins))  # transposed or repeated values keep their order in memory
        n, y, z, c = x.strides
        view = np.lib.stride_tricks.as_strided(
            x,
            (len(x), high, count, kh, span * depth),
            (n, y * w.stride[0], z * t * w.stride[1], y * w.dilation[0], c),
            writeable=False,
        )
        return view.reshape(-1, kh * span * depth), (len(x), high, count, wide)

    return strips, matrix.reshape(kh * span * depth, t * out)


def _strip_cost(t: int, stride: int, reach: int, wide: int, out: int) -> float:
    """Time per result in a row, up to a factor: copying one value costs about as much as 20 multiplications."""
    waste = -(-wide // t) * t / wide
    return ((t - 1) * stride + reach) * (out + 20 / t) * waste


def _unstrip(product: Array, layout: Layout, out: int) -> Array:
    """Rows of t results as (batch, height, width, out)."""
    batch, high, count, wide = layout
    return product.reshape(batch, high, count * (product.shape[1] // out), out)[:, :, :wide]


def _float(params: Params) -> type[np.float32] | type[np.float64]:
    """The float type in which a layer multiplies: that of wide codes, whose parameters name a rule, has 53 bits."""
    return np.float64 if "rule" in params else np.float32


def _product(weight: Array, params: Params) -> Callable[[Array], Array]:
    """centred ↦ centred @ weight, for codes minus their zero (rows, k) and weights (k, columns): exact.

    float64 for wide codes; else float32 where no sum can reach 2^23 (so that a bias below that may be added), else
    int32, from pieces whose sums stay below 2^24.
    """
    if _float(params) is np.float64:
        wide = weight.astype(np.float64)
        return lambda centred: centred @ wide
    zero = scalar(params, "zero_in")
    peak = max(128 + zero, 127 - zero)
    taps = weight.astype(np.float32)
    growth = np.cumsum(np.abs(taps, dtype=np.float64), axis=0) * peak
    if growth[-1].max(initial=0) < _EXACT // 2:
        return lambda centred: centred @ taps
    cuts = [0]
    while cuts[-1] < len(taps):
        before = growth[cuts[-1] - 1] if cuts[-1] else 0.0
        cuts.append(cuts[-1] + int(np.searchsorted((growth[cuts[-1] :] - before).max(axis=1), _EXACT)))

    def pieces(centred: Array) -> Array:
        total = np.zeros((len(centred), taps.shape[1]), np.int32)
        for start, end in itertools.pairwise(cuts):
            total += (centred[:, start:end] @ taps[start:end]).astype(np.int32)
        return total

    return pieces


def _depthwise(op: DepthwiseConv2d, params: Params, output: TensorType) -> Kernel:
    """One pass per kernel place, over all channels at once."""
    weight, zero, finish = table(params, "weight"), scalar(params, "zero_in"), _finisher(params, output)
    short = weight.shape[0] * weight.shape[1] * 255 * 128 < _EXACT // 2
    kind = _float(params) if short or "rule" in params else np.int32
    taps = weight.astype(kind)

    def kernel(x: Array) -> Array:
        centred = x.astype(kind) - kind(zero)
        view = op.windows.view(np.repeat(centred, op.multiplier, axis=3) if op.multiplier > 1 else centred, 0)
        acc = np.zeros((), kind)
        for i in range(weight.shape[0]):
            for j in range(weight.shape[1]):
                acc = acc + view[..., i, j] * taps[i, j]
        return finish(acc)

    return kernel


def _largest(op: MaxPool, x: Array) -> Array:
    view = op.windows.view(x, -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min)
    result = view[..., 0, 0]
    for i in range(view.shape[-2]):
        for j in range(view.shape[-1]):
            result = np.maximum(result, view[..., i, j])
    return result


def _finisher(params: Params, output: TensorType) -> Kernel:
    """Sums (…, channels) without bias ↦ codes as stored."""
    assert output.quant is not None
    stored = output.quant.dtype
    bias, low, high = table(params, "bias"), scalar(params, "low"), scalar(params, "high")
    zero, factor = scalar(params, "zero_out"), rescaler(params)
    small = bool(np.abs(bias.astype(np.int64)).max(initial=0) < _EXACT // 2)
    real_bias = bias.astype(np.float32)
    round_float = _rounder(factor)

    def finish(acc: Array) -> Array:
        if acc.dtype != np.float32 or not small:
            whole = factor(acc.astype(np.int64) + bias)
            return np.clip(whole + zero, low, high).astype(stored)
        whole = round_float(acc + real_bias)
        np.clip(whole, low - zero, high - zero, out=whole)
        codes = whole.astype(np.int16)
        codes += zero
        return codes.astype(stored)

    return finish


def _rounder(factor: Rescale) -> Callable[[Array], Array]:
    """`factor` for exact float32 sums: rounded in float32, and in integers where that could be wrong.

    y = acc · factor carries a relative error of 2^-23; rounding twice (at 2^-31 of the mantissa, then the shift by n)
    differs from rounding once only within 2^-(n+1) of a tie. Whatever lies nearer to a tie than both is recomputed.
    """
    if factor.rule is Rule.FLOAT:
        return lambda acc: np.rint(acc * factor.factor)
    real = (factor.mult * np.exp2(factor.shift.astype(np.float64) - 31)).astype(np.float32)
    band = np.float32(2.0**-12) + np.exp2(np.minimum(factor.shift, 0) - 1.0).astype(np.float32)
    edge = np.float32(0.5) - band
    wraps = bool((factor.shift > 0).any())  # a left shift wraps as int32; without one, large values only saturate

    def rounded(acc: Array) -> Array:
        y = acc * real
        whole = np.rint(y)
        gap = np.subtract(y, whole)
        near = np.abs(gap, out=gap) >= edge
        if wraps:
            near |= np.abs(y) > 1024
        places = np.flatnonzero(near)
        if len(places):
            pick = np.minimum(places % acc.shape[-1], len(factor.mult) - 1)
            few = Rescale(
                rule=factor.rule, mult=factor.mult[pick], shift=factor.shift[pick], factor=factor.factor[pick]
            )
            np.put(whole, places, few(acc.ravel()[places].astype(np.int64)))
        return whole

    return rounded

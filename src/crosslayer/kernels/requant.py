"""Constants of `cl_requantize`, and the conditions under which it gives the bytes of the integer meaning."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.operation import Params, Weights, rescaler, scalar, table
from crosslayer.core.quant import Array

_LARGEST_SHIFT = 22  # 128 · 2^22 and a product below 2^30 are below 2^31 together


def plain_codes(params: Params) -> bool:
    """Whether the results of a layer saturate at the ends of int8, which costs nothing extra."""
    return (scalar(params, "low"), scalar(params, "high")) == (-128, 127)


def requants(rescale: Rescale, zero_out: int, largest: Array) -> tuple[tuple[int | float, ...], ...] | None:
    """The C struct `cl_requant` of each factor, for sums up to `largest` in magnitude; None if there is none.

    There is none for factors from 1/2 on, and for such small ones that the offset would not fit, unless all they make
    is zero.
    """
    if rescale.rule is Rule.FLOAT:
        return tuple((float(factor),) for factor in np.broadcast_to(rescale.factor, largest.shape))
    if rescale.rule is not Rule.DOUBLE:
        return None
    rows: list[tuple[int, ...]] = []
    for mult, shift, top in zip(*np.broadcast_arrays(rescale.mult, rescale.shift, largest), strict=True):
        right = -int(shift)
        if mult == 0 or (int(top) * int(mult) >> 31) + 1 < 1 << max(right - 1, 0):
            mult, right = 0, 1
        if not 1 <= right <= _LARGEST_SHIFT:
            return None
        rows.append((int(mult), (1 << (right - 1)) + zero_out * (1 << right), right))
    return tuple(rows)


def folded_bias(params: Params, axis: int) -> tuple[Array, Array] | None:
    """The bias less zero_in · (the sum of the weights of each output), and the largest magnitude of each sum.

    The weights of an output lie along `axis`. None if a sum could reach 2^30, or a part of it 2^31.
    """
    weight = table(params, "weight").astype(np.int64)
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    zero, taps = scalar(params, "zero_in"), np.abs(weight).sum(axis=others)
    bias = table(params, "bias").astype(np.int64)
    folded = bias - zero * weight.sum(axis=others)
    largest = np.abs(bias) + max(127 - zero, zero + 128) * taps
    if largest.max() >= 1 << 30 or (np.abs(folded) + 128 * taps).max() >= 1 << 31:
        return None
    return folded.astype(np.int32), largest


def layer_constants(params: Params, axis: int) -> tuple[Array, tuple[tuple[int | float, ...], ...]] | None:
    """Folded biases and one `cl_requant` for each output of a layer with weights of 8 bits; None if it cannot be."""
    weight = params["weight"]
    if not isinstance(weight, Weights) or weight.bits != 8 or "rule" in params or not plain_codes(params):
        return None
    folded = folded_bias(params, axis)
    if folded is None:
        return None
    bias, largest = folded
    rows = requants(rescaler(params), scalar(params, "zero_out"), largest)
    return None if rows is None else (bias, rows)


def groups(count: int, size: int) -> list[list[int]]:
    """0…count−1 in groups of `size`; the last one is filled from its left neighbours.

    >>> groups(5, 2)
    [[0, 1], [2, 3], [3, 4]]
    """
    starts = [*range(0, count - size + 1, size), *([count - size] if count % size else [])]
    return [list(range(start, start + size)) for start in starts]


def records(
    bias: Array, rows: Sequence[tuple[int | float, ...]], picked: Sequence[Sequence[int]]
) -> tuple[object, ...]:
    """For each group of outputs its biases and its `cl_requant`s."""
    return tuple((tuple(int(bias[o]) for o in group), tuple(rows[o] for o in group)) for group in picked)

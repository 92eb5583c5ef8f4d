"""ONNX operators on constants, computed while reading: exporters compute shapes this way."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crosslayer.core.quant import Array
from crosslayer.read.onnx_file import TYPES, Attributes
from crosslayer.read.problems import Unreadable, checked_size

Spend = Callable[[int], None]
"""Refuses to compute more elements than a reader may."""
Fold = Callable[..., Array]
"""(spend, attributes, operands …) -> result; an operand that is left out is None."""


def _elementwise(function: Callable[..., Any]) -> Fold:
    def fold(spend: Spend, attributes: Attributes, *operands: Array) -> Array:
        spend(checked_size(np.broadcast_shapes(*(operand.shape for operand in operands))))
        result = np.asarray(function(*operands))
        same = len({operand.dtype for operand in operands[-2:]}) == 1
        return result.astype(operands[-1].dtype) if same and result.dtype != np.bool_ else result

    return fold


def _divide(a: Array, b: Array) -> Array:
    """Integers towards zero, as C does."""
    if np.issubdtype(a.dtype, np.integer):
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1))).astype(a.dtype)
    return a / b


def _cast(spend: Spend, attributes: Attributes, x: Array) -> Array:
    kind = TYPES.get(attributes.integer("to", 0))
    if kind is None or kind in ("bfloat16", "int4", "uint4"):
        raise Unreadable("turns constants into an unknown type", "use a usual one")
    spend(x.size)
    return x.astype(kind)


def _concat(spend: Spend, attributes: Attributes, *parts: Array) -> Array:
    spend(sum(part.size for part in parts))
    return np.concatenate(parts, axis=attributes.integer("axis", 0))


def _gather(spend: Spend, attributes: Attributes, x: Array, indices: Array) -> Array:
    axis = attributes.integer("axis", 0)
    spend(checked_size((indices.size, x.size // max(x.shape[axis], 1))))
    return np.take(x, indices.astype(np.int64), axis=axis)


def _slice(spend: Spend, attributes: Attributes, x: Array, *given: Array | None) -> Array:
    def numbers(i: int, name: str, default: Sequence[int]) -> list[int]:
        array = given[i] if i < len(given) else None
        return [int(v) for v in (attributes.integers(name) or default if array is None else array.ravel())]

    starts, ends = numbers(0, "starts", ()), numbers(1, "ends", ())
    axes, steps = numbers(2, "axes", range(len(starts))), numbers(3, "steps", [1] * len(starts))
    chosen = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        past = step < 0 and end < -x.shape[axis]  # before the first element
        chosen[axis] = slice(start, None if past else end, step)
    return x[tuple(chosen)]


def _shape(spend: Spend, attributes: Attributes, shape: Array) -> Array:
    end = attributes.integer("end", len(shape))
    return shape[slice(attributes.integer("start", 0), end)]


def _size(spend: Spend, attributes: Attributes, shape: Array) -> Array:
    return np.asarray(math.prod(shape.tolist()), np.int64)


def _filled(spend: Spend, attributes: Attributes, shape: Array) -> Array:
    value = attributes.tensor("value")
    sides = tuple(int(side) for side in shape.ravel())
    spend(checked_size(sides))
    return np.zeros(sides, np.float32) if value is None else np.full(sides, value.ravel()[0], value.dtype)


def _expand(spend: Spend, attributes: Attributes, x: Array, shape: Array) -> Array:
    sides = np.broadcast_shapes(x.shape, tuple(int(side) for side in shape.ravel()))
    spend(checked_size(sides))
    return np.broadcast_to(x, sides)


def _range(spend: Spend, attributes: Attributes, start: Array, end: Array, step: Array) -> Array:
    first, last, by = (operand.item() for operand in (start, end, step))
    spend(checked_size((max(math.ceil((last - first) / by), 0),)))
    return np.arange(first, last, by, dtype=start.dtype)


def _product(spend: Spend, attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
    chosen = attributes.integers("axes") if axes is None else tuple(int(axis) for axis in axes.ravel())
    return np.prod(x, axis=chosen, keepdims=bool(attributes.integer("keepdims", 1)), dtype=x.dtype)


FOLDS: Mapping[str, Fold] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Max": _elementwise(lambda *operands: np.max(np.stack(np.broadcast_arrays(*operands)), axis=0)),
    "Min": _elementwise(lambda *operands: np.min(np.stack(np.broadcast_arrays(*operands)), axis=0)),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Pow": _elementwise(np.power),
    "Range": _range,
    "Reciprocal": _elementwise(np.reciprocal),
    "ReduceProd": _product,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Sub": _elementwise(np.subtract),
    "Where": _elementwise(np.where),
}
"""What is computed where all operands are constants; of a computed tensor, its `Shape` and `Size`."""

"""The tensors of a file that counts axes (batch, channels, …), and how they lie in our graph of one sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.quant import Array, Quant
from crosslayer.read.problems import Unreadable

Order = tuple[int | None, ...]
"""For each axis of a value, the axis of the tensor that it is; None for an axis of one place that is none of them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A tensor computed at run time. `shape` is the tensor's, `batch` its batch axis (None: all axes are a sample's).

    Axes of one place may be missing in `order`. `code` is set where the file holds integers: the tensor's elements are
    codes, and the value is what they stand for.
    """

    name: str
    shape: Shape
    batch: int | None
    order: Order
    code: Quant | None = None
    is_open: bool = False
    """The elements are integers of the input, and the file has not said yet what they stand for."""

    @property
    def sides(self) -> tuple[int, ...]:
        """The axes of a sample with more than one place."""
        return tuple(i for i, side in enumerate(self.shape) if i != self.batch and side > 1)

    def moved(self, *order: int) -> "Live":
        """With axes in another order."""
        place = {axis: i for i, axis in enumerate(order)}
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in order),
            batch=None if self.batch is None else place[self.batch],
            order=tuple(None if axis is None else place[axis] for axis in self.order),
        )

    def of_rank(self, rank: int) -> "Live":
        """With axes of one place in front."""
        more = rank - len(self.shape)
        order = tuple(None if axis is None else axis + more for axis in self.order)
        batch = None if self.batch is None else self.batch + more
        return replace(self, shape=(*(1 for _ in range(more)), *self.shape), batch=batch, order=order)

    def squeezed(self, axes: Sequence[int]) -> "Live":
        """Without axes of one place."""
        left = {axis: i for i, axis in enumerate(a for a in range(len(self.shape)) if a not in axes)}
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in left),
            batch=None if self.batch is None else left.get(self.batch),
            order=tuple(None if axis is None else left[axis] for axis in self.order),
        )

    def batch_after(self, shape: Shape) -> int | None:
        """Which axis of a new shape is the batch axis."""
        if self.batch is None:
            return None
        size, before = self.shape[self.batch], math.prod(self.shape[: self.batch])
        done = 1
        for i, side in enumerate(shape):
            if done == before and side == size:
                return i
            done *= side
        if size == 1:
            return None  # the model at batch size 1: an axis of one place may go
        raise Unreadable(f"mixes the {size} samples of a batch", "export the network with batch size 1")

    def check_samples_apart(self, axes: Sequence[int]) -> None:
        """Raises `Unreadable` unless these axes are there and none of them runs over several samples."""
        if any(not 0 <= axis < len(self.shape) for axis in axes) or len(set(axes)) != len(axes):
            raise Unreadable(f"works along axes {list(axes)} of {list(self.shape)}", "name axes that are there")
        if self.batch in axes and self.shape[self.batch or 0] > 1:
            raise Unreadable("mixes the samples of a batch", "export the network with batch size 1")

    def image(self) -> Order:
        """(height, width, channels) of a tensor (batch, channels, height, width) or (batch, channels, length)."""
        if len(self.shape) not in (3, 4) or self.batch not in (0, None) or (self.batch is None and self.shape[0] != 1):
            raise Unreadable(
                f"slides over a tensor of shape {list(self.shape)}",
                "use (batch, channels, height, width) or (batch, channels, length)",
            )
        return (2, 3, 1) if len(self.shape) == 4 else (None, 2, 1)

    def channels_last(self) -> Order:
        """The axes with axis 1, the channels, last: `image` where there is one."""
        if len(self.shape) in (3, 4) and self.batch in (0, None) and (self.batch == 0 or self.shape[0] == 1):
            return self.image()
        return (*(axis for axis in self.order if axis is not None and axis != 1), 1)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fixed:
    """A constant tensor. With `code`, `value` holds codes and the tensor is what they stand for."""

    value: Array
    code: Quant | None = None

    @property
    def shape(self) -> Shape:
        """Of the tensor."""
        return self.value.shape

    def real(self) -> Array:
        """The real values, float32 (or the integers of a file that computes shapes)."""
        return self.value if self.code is None else self.code.decode(self.value)

    def moved(self, *order: int) -> "Fixed":
        """With axes in another order."""
        code = self.code
        if code is not None and code.axis is not None:
            code = replace(code, axis=order.index(code.axis))
        return Fixed(value=self.value.transpose(order), code=code)

    def reshaped(self, shape: Shape) -> "Fixed":
        """Under another shape; scales per channel follow their axis, or the values become real."""
        code = self.code
        if code is not None and code.axis is not None:
            before, after = math.prod(self.shape[: code.axis]), 1
            axis = 0
            while axis < len(shape) and after < before:
                after, axis = after * shape[axis], axis + 1
            while axis < len(shape) and shape[axis] == 1 and len(code.scale) > 1:
                axis += 1
            if after != before or axis == len(shape) or shape[axis] != len(code.scale):
                return Fixed(value=self.real().reshape(shape))
            code = replace(code, axis=axis)
        return Fixed(value=self.value.reshape(shape), code=code)

    def inverse(self) -> "Fixed":
        """1 / x."""
        return Fixed(value=(1.0 / self.real().astype(np.float64)).astype(np.float32))


Tensor = Live | Fixed


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """How a tensor of the file lies in an input or output of the graph."""

    shape: Shape
    batch: int | None
    order: Order

    def stored(self, tensor: Array) -> Array:
        """Samples as the graph takes them, (samples, …), from a tensor of the file; its batch may have any size."""
        batch = 0 if self.batch is None else self.batch
        samples = tensor[None] if self.batch is None else np.moveaxis(tensor, batch, 0)
        axes = [i for i in range(len(self.shape)) if i != self.batch]
        sides = [axis for axis in self.order if axis is not None]
        samples = samples.transpose(0, *(axes.index(a) + 1 for a in (*sides, *(a for a in axes if a not in sides))))
        return samples.reshape(len(samples), *(1 if axis is None else self.shape[axis] for axis in self.order))

    def tensor(self, stored: Array) -> Array:
        """The tensor of the file from values of the graph, (samples, …): the inverse of `stored`."""
        axes = [i for i in range(len(self.shape)) if i != self.batch]
        sides = [axis for axis in self.order if axis is not None]
        units = [axis for axis in axes if axis not in sides]
        samples = stored.reshape(len(stored), *(self.shape[a] for a in (*sides, *units)))
        samples = samples.transpose(0, *((*sides, *units).index(axis) + 1 for axis in axes))
        return samples[0] if self.batch is None else np.moveaxis(samples, 0, self.batch)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A network that was read, and how its one input and its outputs lie in the file."""

    graph: Graph
    source: Port
    results: tuple[Port, ...]


def constant(x: Tensor, place: str) -> Fixed:
    """`x`, which must be constant; `place` says which operand it is."""
    if isinstance(x, Live):
        raise Unreadable(f"needs a constant as its {place}, which is computed", "make it a constant")
    return x


def live_and_fixed(a: Tensor, b: Tensor) -> tuple[Live, Fixed]:
    """The computed and the constant one of two tensors."""
    if isinstance(a, Live) and isinstance(b, Fixed):
        return a, b
    if isinstance(b, Live) and isinstance(a, Fixed):
        return b, a
    raise Unreadable("combines two constants", "compute them before")


def units_out(order: Order, shape: Shape) -> Order:
    """`order` with None for axes of one place."""
    return tuple(None if axis is None or shape[axis] == 1 else axis for axis in order)

"""The nodes of a graph as a reader writes them: under names near those of the file, and within bounds."""

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import BatchNorm, Constant, Reshape, Transpose
from crosslayer.core.quant import Array
from crosslayer.read.integers import Coded
from crosslayer.read.names import Names
from crosslayer.read.problems import Unreadable
from crosslayer.read.tensors import Fixed, Live, Order

_MOST_COMPUTED = 1 << 24
"""Elements of all constants that a reader computes or repeats: a bound on what a damaged file costs."""
_LARGEST_VALUE = 1 << 24
"""Elements of one run-time value: far beyond any small device."""


@final
class Nodes:
    """Writes values, each by its name; what a value is of a tensor is for `ChannelsFirst` to know."""

    def __init__(self) -> None:
        """None yet."""
        self.coded = Coded()
        """Where the file holds integers, and their codes."""
        self._builder = Builder()
        self._names = Names()
        self._here = "value"
        self._left = _MOST_COMPUTED

    def at(self, name: str) -> None:
        """What follows is written for this operator of the file."""
        self._here = name

    def spend(self, elements: int) -> None:
        """Raises `Unreadable` when all constants computed so far are too large together."""
        self._left -= elements
        if self._left < 0:
            raise Unreadable(
                f"its constants, computed, have more than {_MOST_COMPUTED} elements", "simplify the network"
            )

    def input(self, name: str, shape: Shape) -> str:
        """The one input."""
        _check_value(shape)
        return self._builder.input(self._names.fresh(name), shape)

    def shape(self, name: str) -> Shape:
        """Of a value."""
        return self._builder.shape(name)

    def graph(self, *outputs: str) -> Graph:
        """All that was written."""
        return self._builder.graph(*outputs)

    def add(self, op: Op, *inputs: str) -> str:
        """An operation of the file."""
        name = self._builder.add(op, *inputs, name=self._names.fresh(self._here))
        _check_value(self.shape(name))
        return name

    def layout(self, op: Op, name: str) -> str:
        """An operation that only brings another one's operand into its form."""
        return self._builder.add(op, name, name=self._names.fresh(f"{self._here}.layout"))

    def reshape(self, name: str, shape: Shape) -> str:
        """A value under another shape, of at least one axis."""
        shape = shape or (1,)
        return name if self.shape(name) == shape else self.layout(Reshape(shape=shape), name)

    def arranged(self, x: Live, order: Order) -> str:
        """A value whose axes are these of the tensor, None for one of one place."""
        now = [axis for axis in x.order if axis is not None]
        wanted = [axis for axis in order if axis is not None and x.shape[axis] > 1]
        name = x.name
        if now != wanted:
            name = self.reshape(name, tuple(x.shape[axis] for axis in now))
            name = self.layout(Transpose(permutation=tuple(now.index(axis) for axis in wanted)), name)
        return self.reshape(name, tuple(1 if axis is None else x.shape[axis] for axis in order))

    def fixed(self, role: str, value: Fixed) -> str:
        """A constant of the operator that is read."""
        real = value.real()
        if not np.issubdtype(real.dtype, np.number) or np.iscomplexobj(real):
            raise Unreadable(f"has constants of type {real.dtype}", "use numbers")
        if not np.isfinite(real).all():
            raise Unreadable("has constants that are not finite", "train the network again")
        name = self._builder.constant(self._names.fresh(f"{self._here}.{role}"), real)
        if value.code is not None:
            self.coded.constants[name] = (value.value, value.code)
        return name

    def constant_in(self, fixed: Fixed, order: Order, batch: int | None) -> str:
        """A constant as a value, in a given order of its axes."""
        if fixed.code is not None and fixed.code.axis is not None:
            fixed = Fixed(value=fixed.real())
        if batch is not None and fixed.shape[batch] != 1:
            raise Unreadable("joins samples with a constant for each", "export the network with batch size 1")
        sides = [axis for axis in order if axis is not None]
        units = [axis for axis in range(len(fixed.shape)) if axis not in sides]
        sizes = tuple(1 if axis is None else fixed.shape[axis] for axis in order) or (1,)
        if math.prod(sizes) != fixed.value.size:
            raise Unreadable(f"repeats a computed tensor to the shape {list(fixed.shape)}", "give it that shape before")
        stored = fixed.moved(*sides, *units).reshaped(sizes)
        return self.add(Constant(), self.fixed("value", stored))

    def layer(self, op: Op, name: str, weight: Fixed, bias: Fixed | None, out: int) -> str:
        """An operation with weight and bias; no bias is `out` zeros."""
        bias = Fixed(value=np.zeros(out, np.float32)) if bias is None else bias
        return self.add(op, name, self.fixed("weight", weight), self.fixed("bias", bias))

    def norm(self, name: str, constants: Sequence[Array], epsilon: float) -> str:
        """A normalization by scale, shift, mean and variance."""
        roles = ("gamma", "beta", "mean", "variance")
        names = [self.fixed(role, Fixed(value=value)) for role, value in zip(roles, constants, strict=True)]
        return self.add(BatchNorm(epsilon=epsilon), name, *names)


def _check_value(shape: Shape) -> None:
    if math.prod(shape) > _LARGEST_VALUE:
        raise GraphError(f"a value of shape {list(shape)} has more than {_LARGEST_VALUE} elements; use a smaller input")

"""Networks written channels first, with a batch axis, as nodes on channels-last values of one sample.

ONNX and PyTorch number the axes of a tensor (batch, channels, height, width). Here each run-time tensor is a `Live`:
the name of a value of our graph, and which axis of the tensor each axis of that value is. Transpositions, and most
reshapes, then only change this bookkeeping; a `Transpose` node is written where an operation needs another order.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import (
    Add,
    AveragePool,
    BatchNorm,
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
    Softmax,
    Transpose,
    Windows,
)
from crosslayer.core.graph.ops.windows import Pair
from crosslayer.core.quant import Array, Quant
from crosslayer.read.integers import Coded, finished
from crosslayer.read.names import Names
from crosslayer.read.problems import Unreadable, checked_size

Order = tuple[int | None, ...]
"""For each axis of a value, the axis of the tensor that it is; None for an axis of one place that is none of them."""
_MOST_COMPUTED = 1 << 24
"""Elements of all constants that a reader computes or repeats: a bound on what a damaged file costs."""
_LARGEST_VALUE = 1 << 24
"""Elements of one run-time value: far beyond any small device."""
_UNIT = 1e-12
"""The epsilon of a normalization that only scales and shifts: 1 + epsilon is 1 in float32."""


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


@final
class ChannelsFirst:
    """Writes a graph from operations on tensors.

    The graph is built in floats. Where the file holds integers, `mark` records their codes, and `reading` makes the
    integer graph from that. Methods raise `Unreadable` or `GraphError` for what our operations cannot say.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._builder = Builder()
        self._names = Names()
        self._coded = Coded()
        self._input: Live | None = None
        self._shifts: set[str] = set()
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

    def input(self, name: str, shape: Shape, batch: int | None, order: Order, *, integers: bool = False) -> Live:
        """The one input. `order` names its axes as the graph takes them."""
        live = Live(name="", shape=shape, batch=batch, order=_units_out(order, shape), is_open=integers)
        sizes = tuple(1 if axis is None else shape[axis] for axis in order) or (1,)
        _check_value(sizes)
        live = replace(live, name=self._builder.input(self._names.fresh(name), sizes), order=live.order or (None,))
        self._input = live
        return live

    def mark(self, x: Tensor, code: Quant) -> Tensor:
        """The codes of a tensor."""
        if isinstance(x, Fixed) and x.code is None:
            return Fixed(value=code.encode(x.value.astype(np.float32)), code=code)
        if isinstance(x, Fixed):
            if x.code == code:
                return x
            x = self.live(x)
        if code.axis is not None:
            raise Unreadable("gives a computed tensor one scale per channel", "quantize activations per tensor")
        if x.code is not None or x.is_open:
            raise Unreadable("quantizes integers", "quantize real values")
        name = self._add(Requantize(), x.name)
        self._coded.marks[name] = code
        return replace(x, name=name, code=code)

    def unmark(self, x: Tensor, code: Quant, shift: int) -> Tensor:
        """What the codes of a tensor stand for; those of `code` are less than the file's by `shift`.

        The first use of an integer input says what its code is.
        """
        if isinstance(x, Fixed):
            if x.code not in (None, code):
                raise Unreadable("gives integers another scale or zero than they were made with", "use the same ones")
            if code.axis is not None and (code.axis >= len(x.shape) or len(code.scale) != x.shape[code.axis]):
                raise Unreadable(
                    f"has {len(code.scale)} scales along axis {code.axis} of {list(x.shape)}", "correct them"
                )
            if x.code is not None:
                return x
            return Fixed(value=(x.value.astype(np.int64) - shift).astype(code.dtype), code=code)
        if x.is_open:
            assert self._input is not None
            if self._coded.inputs.setdefault(self._input.name, code) != code:
                raise Unreadable("gives the integers of the input a second meaning", "use one scale and zero for them")
            return replace(x, is_open=False)
        if x.code != code:
            raise Unreadable("gives integers another scale or zero than they were made with", "use the same ones")
        return replace(x, code=None)

    # what needs no arithmetic

    def transposed(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """Axes in another order."""
        if sorted(order) != list(range(len(x.shape))):
            raise Unreadable(f"{list(order)} does not order the axes of {list(x.shape)}", "name each axis once")
        if isinstance(x, Fixed):
            return x.moved(*order)
        place = {axis: i for i, axis in enumerate(order)}
        return replace(
            x,
            shape=tuple(x.shape[axis] for axis in order),
            batch=None if x.batch is None else place[x.batch],
            order=tuple(None if axis is None else place[axis] for axis in x.order),
        )

    def reshaped(self, x: Tensor, shape: Shape) -> Tensor:
        """The same elements in row-major order under another shape; the batch axis must stay apart."""
        if math.prod(shape) != math.prod(x.shape):
            raise Unreadable(
                f"cannot give the elements of {list(x.shape)} the shape {list(shape)}", "correct the shape"
            )
        if isinstance(x, Fixed):
            return x.reshaped(shape)
        batch = self._batch_after(x, shape)
        sides = tuple(i for i, side in enumerate(shape) if i != batch and side > 1)
        blocks = _blocks([x.shape[i] for i in x.sides], [shape[i] for i in sides])
        before = [tuple(x.sides[i] for i in block[0]) for block in blocks]
        after = [tuple(sides[i] for i in block[1]) for block in blocks]
        if all(len(left) == len(right) == 1 for left, right in blocks):  # only axes of one place come or go
            renumbered = {left[0]: right[0] for left, right in zip(before, after, strict=True)}
            order: Order = tuple(None if axis is None else renumbered[axis] for axis in x.order)
            return replace(x, shape=shape, batch=batch, order=order)
        stored = [axis for axis in x.order if axis is not None]
        turns = sorted(range(len(blocks)), key=lambda i: stored.index(before[i][0]))
        name = self.arranged(x, tuple(axis for i in turns for axis in before[i]))
        order = tuple(axis for i in turns for axis in after[i])
        name = self._reshape(name, tuple(shape[axis] for axis in order))
        return replace(x, name=name, shape=shape, batch=batch, order=order or (None,))

    def arranged(self, x: Live, order: Order) -> str:
        """A value whose axes are these of the tensor, None for one of one place."""
        now = [axis for axis in x.order if axis is not None]
        wanted = [axis for axis in order if axis is not None and x.shape[axis] > 1]
        name = x.name
        if now != wanted:
            name = self._reshape(name, tuple(x.shape[axis] for axis in now))
            name = self._layout(Transpose(permutation=tuple(now.index(axis) for axis in wanted)), name)
        return self._reshape(name, tuple(1 if axis is None else x.shape[axis] for axis in order))

    def _reshape(self, name: str, shape: Shape) -> str:
        return (
            name if self._builder.shape(name) == (shape or (1,)) else self._layout(Reshape(shape=shape or (1,)), name)
        )

    def _layout(self, op: Op, name: str) -> str:
        return self._builder.add(op, name, name=self._names.fresh(f"{self._here}.layout"))

    def _batch_after(self, x: Live, shape: Shape) -> int | None:
        """Which axis of the new shape is the batch axis."""
        if x.batch is None:
            return None
        size, before = x.shape[x.batch], math.prod(x.shape[: x.batch])
        done = 1
        for i, side in enumerate(shape):
            if done == before and side == size:
                return i
            done *= side
        if size == 1:
            return None  # the model at batch size 1: an axis of one place may go
        raise Unreadable(f"mixes the {size} samples of a batch", "export the network with batch size 1")

    # arithmetic

    def unary(self, op: Op, x: Live) -> Live:
        """A function of each element."""
        return replace(x, name=self._add(op, self.real(x).name))

    def live(self, x: Tensor) -> Live:
        """A tensor as one that is computed at run time; a constant has no batch axis."""
        if isinstance(x, Live):
            return x
        if x.code is None and np.issubdtype(x.value.dtype, np.integer):
            raise Unreadable("takes constant integers for real values", "dequantize them")
        order = tuple(range(len(x.shape)))
        name = self._constant_in(x, order, None)
        return Live(name=name, shape=x.shape, batch=None, order=_units_out(order, x.shape) or (None,))

    def real(self, x: Live) -> Live:
        """`x`, which holds real values."""
        if x.code is not None or x.is_open:
            raise Unreadable("computes with integers as if they were numbers", "dequantize them first")
        return x

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a · b."""
        if isinstance(a, Live) and isinstance(b, Live):
            return self._combined(Mul(), a, b)
        live, fixed = _sorted(a, b)
        vector = None if fixed.code is not None else self._per_channel(live, fixed)
        if vector is not None:
            return self._affine(live, vector, np.zeros_like(vector))
        return self._combined(Mul(), live, self._constant(fixed, live))

    def sum(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b."""
        if isinstance(a, Live) and isinstance(b, Live):
            return self._combined(Add(), a, b)
        live, fixed = _sorted(a, b)
        vector = None if fixed.code is not None and fixed.code.bits != 32 else self._per_channel(live, fixed)
        if vector is not None:
            return self._affine(live, np.ones_like(vector), vector)
        return self._combined(Add(), live, self._constant(fixed, live))

    def negated(self, x: Tensor) -> Tensor:
        """−x."""
        if isinstance(x, Live):
            return self.product(x, Fixed(value=np.full((), -1, np.float32)))
        if x.code is None:
            return Fixed(value=-x.value.astype(np.float32))
        if len(x.code.zero) == 1 and x.code.zero[0] == 0 and int(x.value.min(initial=0)) > x.code.lowest:
            return Fixed(value=-x.value, code=x.code)
        return Fixed(value=-x.real())

    def norm(self, x: Live, constants: Sequence[Array], epsilon: float) -> Live:
        """Batch normalization along axis 1; `constants` are scale, shift, mean and variance."""
        if len(x.shape) < 2:
            raise Unreadable(f"normalizes channels, its input has the shape {list(x.shape)}", "give it a channel axis")
        if not np.all(constants[3] + epsilon > 0):
            raise Unreadable("has a negative variance", "train the network again")
        order = self._channels_last(x)
        name = self._norm(self.arranged(self.real(x), order), constants, epsilon)
        return replace(x, name=name, order=_units_out(order, x.shape))

    def conv(self, x: Live, weight: Fixed, bias: Fixed | None, windows: Windows, groups: int) -> Live:
        """Convolution over the axes after the channels; weight (out, in / groups, height, width), 1-D with height 1."""
        if groups < 1:
            raise Unreadable(f"has {groups} groups", "use at least 1")
        order = self._image(x)
        name = self.arranged(self.real(x), order)
        if len(weight.shape) == 3:
            weight = weight.reshaped((*weight.shape[:2], 1, weight.shape[2]))
        if len(weight.shape) != 4:
            raise Unreadable(f"has a weight of shape {list(weight.shape)}", "use 1-D or 2-D convolutions")
        out, channels = weight.shape[0], self._builder.shape(name)[2]
        if groups > 1 and groups == channels and weight.shape[1] == 1 and out % channels == 0:
            op: Op = DepthwiseConv2d(windows=windows, multiplier=out // channels)
            kernel = weight.moved(2, 3, 0, 1).reshaped((*weight.shape[2:], out))
        else:
            op, kernel = Conv2d(windows=windows, groups=groups), weight.moved(0, 2, 3, 1)
        result = self._layer(op, name, kernel, bias, out)
        high, wide, _ = self._builder.shape(result)
        sides = (wide,) if len(x.shape) == 3 else (high, wide)
        return self._imaged(x, result, order, (out, *sides))

    def dense(self, x: Live, weight: Fixed, bias: Fixed | None) -> Live:
        """W x + b along the last axis; weight (out, in)."""
        last = len(x.shape) - 1
        if len(weight.shape) != 2 or last < 0 or last == x.batch or weight.shape[1] != x.shape[last]:
            raise Unreadable(f"multiplies {list(x.shape)} by {list(weight.shape)[::-1]}", "correct the shapes")
        others = tuple(axis for axis in x.order if axis is not None and axis != last)
        rows, out = math.prod(x.shape[axis] for axis in others), weight.shape[0]
        name = self.arranged(self.real(x), (*others, last))
        if rows == 1:
            result = self._layer(Dense(), self._reshape(name, (x.shape[last],)), weight, bias, out)
        else:
            sides = tuple(x.shape[axis] for axis in others)
            op, kernel = Conv2d(windows=Windows(kernel=(1, 1))), weight.reshaped((out, 1, 1, weight.shape[1]))
            image = sides if len(sides) == 2 else (1, rows)
            result = self._layer(op, self._reshape(name, (*image, x.shape[last])), kernel, bias, out)
            result = self._reshape(result, (*sides, out))
        shape = (*x.shape[:last], out)
        return replace(x, name=result, shape=shape, order=_units_out((*others, last), shape))

    def max_pool(self, x: Live, windows: Windows, *, ceil: bool) -> Live:
        """The largest element of each window over the axes after the channels; `ceil`: the size is rounded up."""
        order = self._image(x)
        name = self.arranged(x, order)
        if ceil:
            windows = _rounded_up(windows, self._builder.shape(name))
        return self._pooled(x, order, self._add(MaxPool(windows=windows), name))

    def average_pool(self, x: Live, windows: Windows, *, ceil: bool, counts: bool) -> Live:
        """The mean of each window; `counts`: padding counts as zeros, but not what rounding the size up adds."""
        order = self._image(x)
        name = self.arranged(self.real(x), order)
        wide = _rounded_up(windows, self._builder.shape(name)) if ceil else windows
        if counts and any(windows.padding):
            name = self._layout(Pad(margins=windows.padding), name)
            extra = tuple(more - least for more, least in zip(wide.padding, windows.padding, strict=True))
            wide = replace(wide, padding=(0, extra[1], 0, extra[3]))
        return self._pooled(x, order, self._add(AveragePool(windows=wide), name))

    def mean(self, x: Live, axes: Sequence[int], *, keep: bool) -> Live:
        """The mean over some axes, which stay with one place if `keep`."""
        self._check_samples_apart(x, axes)
        kept = tuple(axis for axis in x.order if axis is not None and axis not in axes)
        gone = tuple(axis for axis in x.order if axis is not None and axis in axes)
        shape = tuple(1 if i in axes else side for i, side in enumerate(x.shape))
        result = self.real(x)
        if gone:
            name = self.arranged(x, (*gone, *kept))
            sizes = math.prod(x.shape[axis] for axis in gone), math.prod(x.shape[axis] for axis in kept)
            if len(gone) != 2 or len(kept) != 1:
                name = self._reshape(name, (1, *sizes))
            name = self._reshape(self._add(GlobalMean(), name), tuple(x.shape[axis] for axis in kept))
            result = replace(x, name=name, order=kept or (None,))
        result = replace(result, shape=shape)
        return result if keep else self._squeezed(result, axes)

    def softmax(self, x: Live, axes: Sequence[int]) -> Live:
        """Shares that add up to 1 over some axes together."""
        self._check_samples_apart(x, axes)
        kept = tuple(axis for axis in x.order if axis is not None and axis not in axes)
        order = (*kept, *axes)
        name = self.arranged(self.real(x), order)
        sizes = self._builder.shape(name)
        rows = tuple(x.shape[axis] for axis in kept)
        name = self._add(Softmax(), self._reshape(name, (*rows, math.prod(x.shape[axis] for axis in axes))))
        return replace(x, name=self._reshape(name, sizes), order=_units_out(order, x.shape))

    def joined(self, parts: Sequence[Tensor], axis: int) -> Live:
        """One after the other along an axis."""
        lives = [part for part in parts if isinstance(part, Live)]
        first = lives[0]
        self._check_samples_apart(first, [axis])
        if any(part.code != first.code for part in lives):
            raise Unreadable("joins integers of several scales", "requantize them first")
        if any(
            (len(part.shape), part.shape[:axis], part.shape[axis + 1 :])
            != (len(first.shape), first.shape[:axis], first.shape[axis + 1 :])
            for part in parts
        ):
            raise Unreadable(f"joins {[list(part.shape) for part in parts]} along axis {axis}", "correct the shapes")
        order: Order = tuple(a for a in max(lives, key=lambda part: len(part.sides)).order if a is not None)
        if axis not in order:
            order = (*order, axis)
        names = [
            self.arranged(part, order) if isinstance(part, Live) else self._constant_in(part, order, first.batch)
            for part in parts
        ]
        shape = list(first.shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        name = names[0] if len(names) == 1 else self._add(Concat(axis=order.index(axis)), *names)
        return replace(first, name=name, shape=tuple(shape), order=_units_out(order, tuple(shape)))

    def padded(self, x: Live, margins: Sequence[Pair]) -> Live:
        """Zeros before and after each axis."""
        if len(margins) != len(x.shape) or any(side < 0 for pair in margins for side in pair):
            raise Unreadable(f"pads {list(x.shape)} by {[list(pair) for pair in margins]}", "use margins of at least 0")
        axes = [axis for axis, pair in enumerate(margins) if any(pair)]
        self._check_samples_apart(x, axes)
        sides = [axis for axis in x.order if axis is not None]
        order: Order = (*sides, *(axis for axis in axes if axis not in sides))
        image = (2, 3, 1) if len(x.shape) == 4 else (None, 2, 1)
        if len(x.shape) in (3, 4) and [axis for axis in image if axis in sides] == sides and not {0, 1} & set(axes):
            order = image
        name, shape = self.arranged(self.real(x), order), list(x.shape)
        for axis in axes:
            shape[axis] += sum(margins[axis])
        todo = [axis for axis in order if axis in axes]
        if len(order) == 3 and order[2] not in axes:
            (top, bottom), (left, right) = ((0, 0) if axis is None else margins[axis] for axis in order[:2])
            name, todo = self._add(Pad(margins=(top, bottom, left, right)), name), []
        for axis in todo:
            sizes = self._builder.shape(name)
            place = order.index(axis)
            name = self._reshape(name, (math.prod(sizes[:place]), sizes[place], math.prod(sizes[place + 1 :])))
            name = self._add(Pad(margins=(0, 0, *margins[axis])), name)
            name = self._reshape(name, (*sizes[:place], shape[axis], *sizes[place + 1 :]))
        return replace(x, name=name, shape=tuple(shape), order=_units_out(order, tuple(shape)))

    def reading(self, outputs: Sequence[Tensor], rounding: Rounding) -> Reading:
        """The graph with these outputs, in integers where the file's are."""
        assert self._input is not None
        lives = [self.live(out) for out in outputs]
        graph = self._builder.graph(*(live.name for live in lives))
        if any(live.is_open for live in lives):
            raise Unreadable("has integers without a scale as an output", "dequantize them")
        codes = tuple(live.code is not None for live in lives)
        source = Port(shape=self._input.shape, batch=self._input.batch, order=self._input.order)
        return Reading(
            graph=finished(graph, self._coded, codes, frozenset(self._shifts), rounding),
            source=source,
            results=tuple(Port(shape=live.shape, batch=live.batch, order=live.order) for live in lives),
        )

    # pieces

    def _add(self, op: Op, *inputs: str) -> str:
        name = self._builder.add(op, *inputs, name=self._names.fresh(self._here))
        _check_value(self._builder.shape(name))
        return name

    def _fixed(self, role: str, value: Fixed) -> str:
        real = value.real()
        if not np.issubdtype(real.dtype, np.number) or np.iscomplexobj(real):
            raise Unreadable(f"has constants of type {real.dtype}", "use numbers")
        if not np.isfinite(real).all():
            raise Unreadable("has constants that are not finite", "train the network again")
        name = self._builder.constant(self._names.fresh(f"{self._here}.{role}"), real)
        if value.code is not None:
            self._coded.constants[name] = (value.value, value.code)
        return name

    def _layer(self, op: Op, name: str, weight: Fixed, bias: Fixed | None, out: int) -> str:
        bias = Fixed(value=np.zeros(out, np.float32)) if bias is None else bias
        return self._add(op, name, self._fixed("weight", weight), self._fixed("bias", bias))

    def _norm(self, name: str, constants: Sequence[Array], epsilon: float) -> str:
        roles = ("gamma", "beta", "mean", "variance")
        names = [self._fixed(role, Fixed(value=value)) for role, value in zip(roles, constants, strict=True)]
        return self._add(BatchNorm(epsilon=epsilon), name, *names)

    def _affine(self, x: Live, factor: Array, term: Array) -> Live:
        """factor · x + term along the last axis of the value."""
        x = self.real(x)
        size = len(factor)
        name = self._norm(x.name, (factor, term, np.zeros(size), np.ones(size)), _UNIT)
        if np.all(factor == 1):
            self._shifts.add(name)
        return replace(x, name=name)

    def _per_channel(self, x: Live, fixed: Fixed) -> Array | None:
        """The constant as one number for each place of the value's last axis; None if it differs along others too."""
        self._check_spread(x, fixed)
        offset = len(x.shape) - len(fixed.shape)
        sides = [axis + offset for axis, side in enumerate(fixed.shape) if side > 1]
        channels = self._builder.shape(x.name)[-1]
        self.spend(channels)
        if not sides:
            return np.full(channels, fixed.real().ravel()[0], np.float32)
        return fixed.real().ravel().astype(np.float32) if sides == [x.order[-1]] else None

    def _check_spread(self, x: Live, fixed: Fixed) -> None:
        """Raises `Unreadable` unless the constant can be repeated to the shape of a sample."""
        sides = dict(enumerate(fixed.shape, len(x.shape) - len(fixed.shape)))
        for axis, side in sides.items():
            if side > 1 and (axis < 0 or axis == x.batch or side != x.shape[axis]):
                raise Unreadable(
                    f"combines {list(x.shape)} with a constant of shape {list(fixed.shape)}",
                    "use a constant that is the same for all samples and no larger than one",
                )

    def _constant(self, fixed: Fixed, x: Live) -> Live:
        """A constant repeated to the shape and order of `x`."""
        self._check_spread(x, fixed)
        rank = len(x.shape)
        spread = fixed.reshaped((*(1 for _ in range(rank - len(fixed.shape))), *fixed.shape[-rank:]))
        sides = tuple(1 if i == x.batch else side for i, side in enumerate(x.shape))
        self.spend(checked_size(sides))
        repeated = Fixed(value=np.broadcast_to(spread.value, sides), code=spread.code)
        return replace(x, name=self._constant_in(repeated, x.order, x.batch), code=None)

    def _constant_in(self, fixed: Fixed, order: Order, batch: int | None) -> str:
        """A constant in a given order of its axes."""
        if fixed.code is not None and fixed.code.axis is not None:
            fixed = Fixed(value=fixed.real())
        if batch is not None and fixed.shape[batch] != 1:
            raise Unreadable("joins samples with a constant for each", "export the network with batch size 1")
        sides = [axis for axis in order if axis is not None]
        units = [axis for axis in range(len(fixed.shape)) if axis not in sides]
        sizes = tuple(1 if axis is None else fixed.shape[axis] for axis in order) or (1,)
        if math.prod(sizes) != fixed.value.size:
            raise Unreadable(f"repeats a computed tensor to the shape {list(fixed.shape)}", "give it that shape before")
        stored = replace(fixed.moved(*sides, *units), code=fixed.code)
        return self._add(Constant(), self._fixed("value", Fixed(value=stored.value.reshape(sizes), code=fixed.code)))

    def _combined(self, op: Op, a: Live, b: Live) -> Live:
        """An operation on two tensors of one shape, but for axes of one place."""
        rank = max(len(a.shape), len(b.shape))
        a, b = (self._of_rank(self.real(x), rank) for x in (a, b))
        shape = tuple(max(sides) for sides in zip(a.shape, b.shape, strict=True))
        for x in (a, b):
            if any(side != x.shape[axis] for axis, side in enumerate(shape)):
                raise Unreadable(
                    f"combines computed tensors of shapes {list(a.shape)} and {list(b.shape)}",
                    "give both one shape: only constants are repeated",
                )
        batch = a.batch if a.batch is not None else b.batch
        if a.batch != b.batch and any(x is not None and shape[x] > 1 for x in (a.batch, b.batch)):
            raise Unreadable("combines tensors whose batch axes differ", "export the network with batch size 1")
        order = a.order
        names = a.name, self.arranged(replace(b, batch=batch), order)
        return replace(a, name=self._add(op, *names), shape=shape, batch=batch)

    def _of_rank(self, x: Live, rank: int) -> Live:
        """With axes of one place in front."""
        more = rank - len(x.shape)
        order = tuple(None if axis is None else axis + more for axis in x.order)
        batch = None if x.batch is None else x.batch + more
        return replace(x, shape=(*(1 for _ in range(more)), *x.shape), batch=batch, order=order)

    def _squeezed(self, x: Live, axes: Sequence[int]) -> Live:
        """Without axes of one place."""
        left = {axis: i for i, axis in enumerate(a for a in range(len(x.shape)) if a not in axes)}
        return replace(
            x,
            shape=tuple(x.shape[axis] for axis in left),
            batch=None if x.batch is None else left.get(x.batch),
            order=tuple(None if axis is None else left[axis] for axis in x.order),
        )

    def _check_samples_apart(self, x: Live, axes: Sequence[int]) -> None:
        if any(not 0 <= axis < len(x.shape) for axis in axes) or len(set(axes)) != len(axes):
            raise Unreadable(f"works along axes {list(axes)} of {list(x.shape)}", "name axes that are there")
        if x.batch in axes and x.shape[x.batch or 0] > 1:
            raise Unreadable("mixes the samples of a batch", "export the network with batch size 1")

    def _image(self, x: Live) -> Order:
        """(height, width, channels) of a tensor (batch, channels, height, width) or (batch, channels, length)."""
        if len(x.shape) not in (3, 4) or x.batch not in (0, None) or (x.batch is None and x.shape[0] != 1):
            raise Unreadable(
                f"slides over a tensor of shape {list(x.shape)}",
                "use (batch, channels, height, width) or (batch, channels, length)",
            )
        return (2, 3, 1) if len(x.shape) == 4 else (None, 2, 1)

    def _channels_last(self, x: Live) -> Order:
        if len(x.shape) in (3, 4) and x.batch in (0, None) and (x.batch == 0 or x.shape[0] == 1):
            return self._image(x)
        return (*(axis for axis in x.order if axis is not None and axis != 1), 1)

    def _pooled(self, x: Live, order: Order, name: str) -> Live:
        high, wide, channels = self._builder.shape(name)
        return self._imaged(x, name, order, (channels, wide) if len(x.shape) == 3 else (channels, high, wide))

    def _imaged(self, x: Live, name: str, order: Order, sides: Shape) -> Live:
        shape = (x.shape[0], *sides)
        return replace(x, name=name, shape=shape, order=_units_out(order, shape))


def fewest_moves(build: Callable[[Order], Reading], shape: Shape, *, batched: bool) -> Reading:
    """The network read with the order of its input's axes that needs fewest transpositions.

    A file does not say which axis of its input holds the channels: images may come either way, and so may sequences.
    Four axes are first tried as (batch, channels, height, width), three as (batch, length, channels).
    """
    sample = range(1 if batched and shape else 0, len(shape))
    orders: list[Order] = [tuple(sample) or (None,)]
    if len(shape) == 4 and len(sample) == 3:
        orders.insert(0, (2, 3, 1))
    if len(shape) == 3 and len(sample) == 2:
        orders.append((None, 2, 1))
    best, least = build(orders[0]), math.inf
    for i, order in enumerate(orders):
        reading = best if i == 0 else build(order)
        graph = reading.graph
        moved = sum(graph.types[node.name].size for node in graph.nodes if isinstance(node.op, Transpose))
        if moved < least:
            best, least = reading, moved
        if moved == 0:
            break
    return best


def _sorted(a: Tensor, b: Tensor) -> tuple[Live, Fixed]:
    """The computed and the constant one of two tensors."""
    if isinstance(a, Live) and isinstance(b, Fixed):
        return a, b
    if isinstance(b, Live) and isinstance(a, Fixed):
        return b, a
    raise Unreadable("combines two constants", "compute them before")


def _units_out(order: Order, shape: Shape) -> Order:
    """`order` with None for axes of one place."""
    return tuple(None if axis is None or shape[axis] == 1 else axis for axis in order)


def _check_value(shape: Shape) -> None:
    if math.prod(shape) > _LARGEST_VALUE:
        raise GraphError(f"a value of shape {list(shape)} has more than {_LARGEST_VALUE} elements; use a smaller input")


def pair(values: Sequence[int]) -> Pair:
    """(height, width) of one or two numbers, one for each axis that is slid over.

    >>> pair([3])
    (1, 3)
    """
    if len(values) not in (1, 2):
        raise Unreadable(f"slides over {len(values)} axes", "slide over one or two")
    return (values[0], values[1]) if len(values) == 2 else (1, values[0])


def _rounded_up(windows: Windows, shape: Shape) -> Windows:
    """Padding below and to the right as far as pools that round their size up reach: no window starts in it."""
    margins: list[int] = []
    top, bottom, left, right = windows.padding
    for side, reach, stride, (before, after) in zip(
        shape[:2], windows.reach(), windows.stride, ((top, bottom), (left, right)), strict=True
    ):
        free = side + before + after - reach
        places = -(-free // stride) + 1
        if (places - 1) * stride >= side + before:
            places -= 1
        margins += [before, after + max((places - 1) * stride - free, 0)]
    return replace(windows, padding=(margins[0], margins[1], margins[2], margins[3]))


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest pairs of runs of sides with equal products: which axes of one shape become which of another.

    >>> _blocks([6, 4], [2, 3, 4])
    [([0], [0, 1]), ([1], [2])]
    """
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before):
        left, right = [i], [j]
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                left.append(i)
                a, i = a * before[i], i + 1
            else:
                right.append(j)
                b, j = b * after[j], j + 1
        blocks.append((left, right))
    return blocks

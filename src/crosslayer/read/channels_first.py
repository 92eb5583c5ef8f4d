"""Networks written channels first, with a batch axis, as nodes on channels-last values of one sample.

ONNX and PyTorch number the axes of a tensor (batch, channels, height, width). Here each run-time tensor is a `Live`:
the name of a value of our graph, and which axis of the tensor each axis of that value is. Transpositions, and most
reshapes, then only change this bookkeeping; a `Transpose` node is written where an operation needs another order.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import Op, Shape
from crosslayer.core.graph.ops import (
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Requantize,
    Softmax,
    Transpose,
    Windows,
)
from crosslayer.core.graph.ops.windows import Pair
from crosslayer.core.quant import Array, Quant
from crosslayer.read.integers import finished
from crosslayer.read.nodes import Nodes
from crosslayer.read.problems import Unreadable, checked_size
from crosslayer.read.shapes import blocks, rounded_up
from crosslayer.read.tensors import Fixed, Live, Order, Port, Reading, Tensor, live_and_fixed, units_out

_UNIT = 1e-12
"""The epsilon of a normalization that only scales and shifts: 1 + epsilon is 1 in float32."""


@final
class ChannelsFirst:
    """Writes a graph from operations on tensors.

    The graph is built in floats. Where the file holds integers, `mark` records their codes, and `reading` makes the
    integer graph from that. Methods raise `Unreadable` or `GraphError` for what our operations cannot say.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._nodes = Nodes()
        self._input: Live | None = None
        self._shifts: set[str] = set()

    def at(self, name: str) -> None:
        """What follows is written for this operator of the file."""
        self._nodes.at(name)

    def spend(self, elements: int) -> None:
        """Raises `Unreadable` when all constants computed so far are too large together."""
        self._nodes.spend(elements)

    def input(self, name: str, shape: Shape, batch: int | None, order: Order, *, integers: bool = False) -> Live:
        """The one input. `order` names its axes as the graph takes them."""
        live = Live(name="", shape=shape, batch=batch, order=units_out(order, shape), is_open=integers)
        sizes = tuple(1 if axis is None else shape[axis] for axis in order) or (1,)
        live = replace(live, name=self._nodes.input(name, sizes), order=live.order or (None,))
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
        name = self._nodes.add(Requantize(), x.name)
        self._nodes.coded.marks[name] = code
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
            if self._nodes.coded.inputs.setdefault(self._input.name, code) != code:
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
        return x.moved(*order)

    def reshaped(self, x: Tensor, shape: Shape) -> Tensor:
        """The same elements in row-major order under another shape; the batch axis must stay apart."""
        if math.prod(shape) != math.prod(x.shape):
            raise Unreadable(
                f"cannot give the elements of {list(x.shape)} the shape {list(shape)}", "correct the shape"
            )
        if isinstance(x, Fixed):
            return x.reshaped(shape)
        batch = x.batch_after(shape)
        sides = tuple(i for i, side in enumerate(shape) if i != batch and side > 1)
        runs = blocks([x.shape[i] for i in x.sides], [shape[i] for i in sides])
        before = [tuple(x.sides[i] for i in left) for left, _ in runs]
        after = [tuple(sides[i] for i in right) for _, right in runs]
        if all(len(left) == len(right) == 1 for left, right in runs):  # only axes of one place come or go
            renumbered = {left[0]: right[0] for left, right in zip(before, after, strict=True)}
            order: Order = tuple(None if axis is None else renumbered[axis] for axis in x.order)
            return replace(x, shape=shape, batch=batch, order=order)
        stored = [axis for axis in x.order if axis is not None]
        turns = sorted(range(len(runs)), key=lambda i: stored.index(before[i][0]))
        name = self._nodes.arranged(x, tuple(axis for i in turns for axis in before[i]))
        order = tuple(axis for i in turns for axis in after[i])
        name = self._nodes.reshape(name, tuple(shape[axis] for axis in order))
        return replace(x, name=name, shape=shape, batch=batch, order=order or (None,))

    # arithmetic

    def unary(self, op: Op, x: Live) -> Live:
        """A function of each element."""
        return replace(x, name=self._nodes.add(op, self.real(x).name))

    def prelu(self, x: Live, slope: Fixed) -> Live:
        """Of negative elements the multiple by a slope, which all share."""
        slopes = slope.real().ravel()
        if slopes.size != 1:
            raise Unreadable(f"has {slopes.size} slopes", "use one slope for all channels")
        return self.unary(LeakyRelu(slope=float(slopes[0])), x)

    def live(self, x: Tensor) -> Live:
        """A tensor as one that is computed at run time; a constant has no batch axis."""
        if isinstance(x, Live):
            return x
        if x.code is None and np.issubdtype(x.value.dtype, np.integer):
            raise Unreadable("takes constant integers for real values", "dequantize them")
        order = tuple(range(len(x.shape)))
        name = self._nodes.constant_in(x, order, None)
        return Live(name=name, shape=x.shape, batch=None, order=units_out(order, x.shape) or (None,))

    def real(self, x: Live) -> Live:
        """`x`, which holds real values."""
        if x.code is not None or x.is_open:
            raise Unreadable("computes with integers as if they were numbers", "dequantize them first")
        return x

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a · b."""
        if isinstance(a, Live) and isinstance(b, Live):
            return self._combined(Mul(), a, b)
        live, fixed = live_and_fixed(a, b)
        vector = None if fixed.code is not None else self._per_channel(live, fixed)
        if vector is not None:
            return self._affine(live, vector, np.zeros_like(vector))
        return self._combined(Mul(), live, self._constant(fixed, live))

    def sum(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b."""
        if isinstance(a, Live) and isinstance(b, Live):
            return self._combined(Add(), a, b)
        live, fixed = live_and_fixed(a, b)
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
        order = x.channels_last()
        name = self._nodes.norm(self._nodes.arranged(self.real(x), order), constants, epsilon)
        return replace(x, name=name, order=units_out(order, x.shape))

    def conv(self, x: Live, weight: Fixed, bias: Fixed | None, windows: Windows, groups: int) -> Live:
        """Convolution over the axes after the channels; weight (out, in / groups, height, width), 1-D with height 1."""
        if groups < 1:
            raise Unreadable(f"has {groups} groups", "use at least 1")
        order = x.image()
        name = self._nodes.arranged(self.real(x), order)
        if len(weight.shape) == 3:
            weight = weight.reshaped((*weight.shape[:2], 1, weight.shape[2]))
        if len(weight.shape) != 4:
            raise Unreadable(f"has a weight of shape {list(weight.shape)}", "use 1-D or 2-D convolutions")
        out, channels = weight.shape[0], self._nodes.shape(name)[2]
        if groups > 1 and groups == channels and weight.shape[1] == 1 and out % channels == 0:
            op: Op = DepthwiseConv2d(windows=windows, multiplier=out // channels)
            kernel = weight.moved(2, 3, 0, 1).reshaped((*weight.shape[2:], out))
        else:
            op, kernel = Conv2d(windows=windows, groups=groups), weight.moved(0, 2, 3, 1)
        result = self._nodes.layer(op, name, kernel, bias, out)
        high, wide, _ = self._nodes.shape(result)
        sides = (wide,) if len(x.shape) == 3 else (high, wide)
        return _imaged(x, result, order, (out, *sides))

    def dense(self, x: Live, weight: Fixed, bias: Fixed | None) -> Live:
        """W x + b along the last axis; weight (out, in)."""
        last = len(x.shape) - 1
        if len(weight.shape) != 2 or last < 0 or last == x.batch or weight.shape[1] != x.shape[last]:
            raise Unreadable(f"multiplies {list(x.shape)} by {list(weight.shape)[::-1]}", "correct the shapes")
        others = tuple(axis for axis in x.order if axis is not None and axis != last)
        rows, out = math.prod(x.shape[axis] for axis in others), weight.shape[0]
        name = self._nodes.arranged(self.real(x), (*others, last))
        if rows == 1:
            result = self._nodes.layer(Dense(), self._nodes.reshape(name, (x.shape[last],)), weight, bias, out)
        else:
            sides = tuple(x.shape[axis] for axis in others)
            op, kernel = Conv2d(windows=Windows(kernel=(1, 1))), weight.reshaped((out, 1, 1, weight.shape[1]))
            image = sides if len(sides) == 2 else (1, rows)
            result = self._nodes.layer(op, self._nodes.reshape(name, (*image, x.shape[last])), kernel, bias, out)
            result = self._nodes.reshape(result, (*sides, out))
        shape = (*x.shape[:last], out)
        return replace(x, name=result, shape=shape, order=units_out((*others, last), shape))

    def max_pool(self, x: Live, windows: Windows, *, ceil: bool) -> Live:
        """The largest element of each window over the axes after the channels; `ceil`: the size is rounded up."""
        order = x.image()
        name = self._nodes.arranged(x, order)
        if ceil:
            windows = rounded_up(windows, self._nodes.shape(name))
        return self._pooled(x, order, self._nodes.add(MaxPool(windows=windows), name))

    def average_pool(self, x: Live, windows: Windows, *, ceil: bool, counts: bool) -> Live:
        """The mean of each window; `counts`: padding counts as zeros, but not what rounding the size up adds."""
        order = x.image()
        name = self._nodes.arranged(self.real(x), order)
        wide = rounded_up(windows, self._nodes.shape(name)) if ceil else windows
        if counts and any(windows.padding):
            name = self._nodes.layout(Pad(margins=windows.padding), name)
            extra = tuple(more - least for more, least in zip(wide.padding, windows.padding, strict=True))
            wide = replace(wide, padding=(0, extra[1], 0, extra[3]))
        return self._pooled(x, order, self._nodes.add(AveragePool(windows=wide), name))

    def mean(self, x: Live, axes: Sequence[int], *, keep: bool) -> Live:
        """The mean over some axes, which stay with one place if `keep`."""
        x.check_samples_apart(axes)
        kept = tuple(axis for axis in x.order if axis is not None and axis not in axes)
        gone = tuple(axis for axis in x.order if axis is not None and axis in axes)
        shape = tuple(1 if i in axes else side for i, side in enumerate(x.shape))
        result = self.real(x)
        if gone:
            name = self._nodes.arranged(x, (*gone, *kept))
            sizes = math.prod(x.shape[axis] for axis in gone), math.prod(x.shape[axis] for axis in kept)
            if len(gone) != 2 or len(kept) != 1:
                name = self._nodes.reshape(name, (1, *sizes))
            name = self._nodes.reshape(self._nodes.add(GlobalMean(), name), tuple(x.shape[axis] for axis in kept))
            result = replace(x, name=name, order=kept or (None,))
        result = replace(result, shape=shape)
        return result if keep else result.squeezed(axes)

    def softmax(self, x: Live, axes: Sequence[int]) -> Live:
        """Shares that add up to 1 over some axes together."""
        x.check_samples_apart(axes)
        kept = tuple(axis for axis in x.order if axis is not None and axis not in axes)
        order = (*kept, *axes)
        name = self._nodes.arranged(self.real(x), order)
        sizes = self._nodes.shape(name)
        rows = tuple(x.shape[axis] for axis in kept)
        name = self._nodes.add(Softmax(), self._nodes.reshape(name, (*rows, math.prod(x.shape[axis] for axis in axes))))
        return replace(x, name=self._nodes.reshape(name, sizes), order=units_out(order, x.shape))

    def joined(self, parts: Sequence[Tensor], axis: int) -> Live:
        """One after the other along an axis."""
        lives = [part for part in parts if isinstance(part, Live)]
        first = lives[0]
        first.check_samples_apart([axis])
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
            self._nodes.arranged(part, order)
            if isinstance(part, Live)
            else self._nodes.constant_in(part, order, first.batch)
            for part in parts
        ]
        shape = list(first.shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        name = names[0] if len(names) == 1 else self._nodes.add(Concat(axis=order.index(axis)), *names)
        return replace(first, name=name, shape=tuple(shape), order=units_out(order, tuple(shape)))

    def padded(self, x: Live, margins: Sequence[Pair]) -> Live:
        """Zeros before and after each axis."""
        if len(margins) != len(x.shape) or any(side < 0 for pair in margins for side in pair):
            raise Unreadable(f"pads {list(x.shape)} by {[list(pair) for pair in margins]}", "use margins of at least 0")
        axes = [axis for axis, pair in enumerate(margins) if any(pair)]
        x.check_samples_apart(axes)
        sides = [axis for axis in x.order if axis is not None]
        order: Order = (*sides, *(axis for axis in axes if axis not in sides))
        image = (2, 3, 1) if len(x.shape) == 4 else (None, 2, 1)
        if len(x.shape) in (3, 4) and [axis for axis in image if axis in sides] == sides and not {0, 1} & set(axes):
            order = image
        name, shape = self._nodes.arranged(self.real(x), order), list(x.shape)
        for axis in axes:
            shape[axis] += sum(margins[axis])
        todo = [axis for axis in order if axis in axes]
        if len(order) == 3 and order[2] not in axes:
            (top, bottom), (left, right) = ((0, 0) if axis is None else margins[axis] for axis in order[:2])
            name, todo = self._nodes.add(Pad(margins=(top, bottom, left, right)), name), []
        for axis in todo:
            sizes = self._nodes.shape(name)
            place = order.index(axis)
            name = self._nodes.reshape(name, (math.prod(sizes[:place]), sizes[place], math.prod(sizes[place + 1 :])))
            name = self._nodes.add(Pad(margins=(0, 0, *margins[axis])), name)
            name = self._nodes.reshape(name, (*sizes[:place], shape[axis], *sizes[place + 1 :]))
        return replace(x, name=name, shape=tuple(shape), order=units_out(order, tuple(shape)))

    def reading(self, outputs: Sequence[Tensor], rounding: Rounding) -> Reading:
        """The graph with these outputs, in integers where the file's are."""
        assert self._input is not None
        lives = [self.live(out) for out in outputs]
        graph = self._nodes.graph(*(live.name for live in lives))
        if any(live.is_open for live in lives):
            raise Unreadable("has integers without a scale as an output", "dequantize them")
        codes = tuple(live.code is not None for live in lives)
        source = Port(shape=self._input.shape, batch=self._input.batch, order=self._input.order)
        return Reading(
            graph=finished(graph, self._nodes.coded, codes, frozenset(self._shifts), rounding),
            source=source,
            results=tuple(Port(shape=live.shape, batch=live.batch, order=live.order) for live in lives),
        )

    # pieces
    def _affine(self, x: Live, factor: Array, term: Array) -> Live:
        """factor · x + term along the last axis of the value."""
        x = self.real(x)
        size = len(factor)
        name = self._nodes.norm(x.name, (factor, term, np.zeros(size), np.ones(size)), _UNIT)
        if np.all(factor == 1):
            self._shifts.add(name)
        return replace(x, name=name)

    def _per_channel(self, x: Live, fixed: Fixed) -> Array | None:
        """The constant as one number for each place of the value's last axis; None if it differs along others too."""
        self._check_spread(x, fixed)
        offset = len(x.shape) - len(fixed.shape)
        sides = [axis + offset for axis, side in enumerate(fixed.shape) if side > 1]
        channels = self._nodes.shape(x.name)[-1]
        self._nodes.spend(channels)
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
        self._nodes.spend(checked_size(sides))
        repeated = Fixed(value=np.broadcast_to(spread.value, sides), code=spread.code)
        return replace(x, name=self._nodes.constant_in(repeated, x.order, x.batch), code=None)

    def _combined(self, op: Op, a: Live, b: Live) -> Live:
        """An operation on two tensors of one shape, but for axes of one place."""
        rank = max(len(a.shape), len(b.shape))
        a, b = (self.real(x).of_rank(rank) for x in (a, b))
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
        names = a.name, self._nodes.arranged(replace(b, batch=batch), order)
        return replace(a, name=self._nodes.add(op, *names), shape=shape, batch=batch)

    def _pooled(self, x: Live, order: Order, name: str) -> Live:
        high, wide, channels = self._nodes.shape(name)
        return _imaged(x, name, order, (channels, wide) if len(x.shape) == 3 else (channels, high, wide))


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


def _imaged(x: Live, name: str, order: Order, sides: Shape) -> Live:
    """`x` with the axes after its first replaced by these, in a value of `order`."""
    shape = (x.shape[0], *sides)
    return replace(x, name=name, shape=shape, order=units_out(order, shape))

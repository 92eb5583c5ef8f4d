"""The operators of the ONNX standard on real values.

Source: `Operators.md` of the ONNX project.
"""

import math
from collections.abc import Mapping

import numpy as np

from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import (
    Clamp,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Relu,
    Relu6,
    Sigmoid,
    Tanh,
    Windows,
)
from crosslayer.core.graph.ops.windows import Pair
from crosslayer.read.onnx_call import Call, Operator
from crosslayer.read.onnx_file import TYPES
from crosslayer.read.problems import Unreadable
from crosslayer.read.shapes import axis_of, filled, pair
from crosslayer.read.tensors import Fixed, Live, Tensor


def _unary(op: Op) -> Operator:
    return lambda call: call.build.unary(op, call.live())


def _two(call: Call) -> tuple[Tensor, Tensor]:
    """The operands of an arithmetic operator, which spread as in NumPy since version 7."""
    if call.opset < 7 and "axis" in call.attributes:
        raise Unreadable("spreads its second operand along an axis", "export it in version 7 of the operators or later")
    return call.tensor(0), call.tensor(1)


def _add(call: Call) -> Tensor:
    return call.build.sum(*_two(call))


def _sub(call: Call) -> Tensor:
    a, b = _two(call)
    return call.build.sum(a, call.build.negated(b))


def _mul(call: Call) -> Tensor:
    return call.build.product(*_two(call))


def _div(call: Call) -> Tensor:
    a, b = _two(call)
    if isinstance(b, Live):
        raise Unreadable("divides by a computed tensor", "divide by a constant")
    return call.build.product(a, b.inverse())


def _neg(call: Call) -> Tensor:
    return call.build.negated(call.live())


def _sum(call: Call) -> Tensor:
    total = call.tensor(0)
    for i in range(1, len(call.inputs)):
        total = call.build.sum(total, call.tensor(i))
    return total


def _conv(call: Call) -> Tensor:
    x = call.live(0)
    weight = call.fixed(1)
    windows = call.windows(x, weight.shape[2:])
    return call.build.conv(x, weight, call.optional(2), windows, call.attributes.integer("group", 1))


def _gemm(call: Call) -> Tensor:
    x, weight, bias = call.live(0), call.fixed(1), call.optional(2)
    alpha, beta = call.attributes.real("alpha", 1.0), call.attributes.real("beta", 1.0)
    if len(x.shape) != 2 or len(weight.shape) != 2:
        raise Unreadable(f"multiplies {list(x.shape)} by {list(weight.shape)}", "give it two matrices")
    if call.attributes.integer("transA", 0):
        moved = call.build.transposed(x, (1, 0))
        assert isinstance(moved, Live)
        x = moved
    weight = weight if call.attributes.integer("transB", 0) else weight.moved(1, 0)
    weight = weight if alpha == 1 else Fixed(value=weight.real() * np.float32(alpha))
    if bias is not None and beta != 1:
        bias = Fixed(value=bias.real() * np.float32(beta))
    out = weight.shape[0]
    if bias is not None and math.prod(bias.shape) == out and bias.shape[-1:] == (out,):
        return call.build.dense(x, weight, bias.reshaped((out,)))
    made = call.build.dense(x, weight, None)
    return made if bias is None else call.build.sum(made, bias)


def _matmul(call: Call) -> Tensor:
    x, weight = call.live(0), call.fixed(1)
    if len(weight.shape) > 2 and math.prod(weight.shape[:-2]) == 1 and len(weight.shape) <= len(x.shape):
        weight = weight.reshaped(weight.shape[-2:])
    if len(weight.shape) == 1:
        y = call.build.dense(x, weight.reshaped((1, *weight.shape)), None)
        return call.build.reshaped(y, y.shape[:-1])
    if len(weight.shape) != 2:
        raise Unreadable(f"multiplies {list(x.shape)} by {list(weight.shape)}", "multiply by a matrix")
    return call.build.dense(x, weight.moved(1, 0), None)


def _norm(call: Call) -> Tensor:
    if call.attributes.integer("training_mode", 0):
        raise Unreadable("normalizes by the statistics of the batch", "export the network for inference")
    constants = [call.fixed(i).real() for i in (1, 2, 3, 4)]
    return call.build.norm(call.live(), constants, call.attributes.real("epsilon", 1e-5))


def _clip(call: Call) -> Tensor:
    low, high = -math.inf, math.inf
    if call.opset < 11:
        low = call.attributes.real("min", -3.4028234663852886e38)
        high = call.attributes.real("max", 3.4028234663852886e38)
    else:
        bounds = [call.optional(i) for i in (1, 2)]
        low, high = (d if b is None else float(b.real().reshape(())) for b, d in zip(bounds, (low, high), strict=True))
    low, high = (-math.inf if low < -3.4e38 else low), (math.inf if high > 3.4e38 else high)
    if low == 0 and high == math.inf:
        return call.build.unary(Relu(), call.live())
    if low == 0 and high == 6:
        return call.build.unary(Relu6(), call.live())
    if low == -math.inf and high == math.inf:
        return call.tensor(0)
    return call.build.unary(Clamp(low=max(low, -3.4e38), high=min(high, 3.4e38)), call.live())


def _leaky(call: Call) -> Tensor:
    return call.build.unary(LeakyRelu(slope=call.attributes.real("alpha", 0.01)), call.live())


def _prelu(call: Call) -> Tensor:
    slope = call.fixed(1)
    return call.build.prelu(call.live(), slope)


def _hard_sigmoid(call: Call) -> Tensor:
    slope, offset = call.attributes.real("alpha", 0.2), call.attributes.real("beta", 0.5)
    return call.build.unary(HardSigmoid(slope=slope, offset=offset), call.live())


def _softmax(call: Call) -> Tensor:
    return shares(call, call.live(), call.opset)


def shares(call: Call, x: Live, opset: int) -> Live:
    """Softmax of `x`, as this version of the operators means it."""
    rank = len(x.shape)
    if opset >= 13:
        return call.build.softmax(x, [call.axis(rank, -1)])
    return call.build.softmax(x, range(call.axis(rank, 1), rank))


def _max_pool(call: Call) -> Tensor:
    x = call.live()
    return call.build.max_pool(x, call.pool_windows(x), ceil=bool(call.attributes.integer("ceil_mode", 0)))


def _average_pool(call: Call) -> Tensor:
    return averaged(call, call.live())


def averaged(call: Call, x: Live) -> Live:
    """The mean of each window of `x`."""
    ceil, counts = (bool(call.attributes.integer(name, 0)) for name in ("ceil_mode", "count_include_pad"))
    return call.build.average_pool(x, call.pool_windows(x), ceil=ceil, counts=counts)


def _global_mean(call: Call) -> Tensor:
    return spatial_mean(call, call.live())


def spatial_mean(call: Call, x: Live) -> Live:
    """The mean of each channel of `x`."""
    if call.attributes.integer("channels_last", 0):
        raise Unreadable("has its channels last", "export the network channels first")
    return call.build.mean(x, range(2, len(x.shape)), keep=True)


def _global_max(call: Call) -> Tensor:
    x = call.live()
    return call.build.max_pool(x, Windows(kernel=pair(x.shape[2:])), ceil=False)


def _reduce_mean(call: Call) -> Tensor:
    x = call.live()
    axes = call.integers(1, "axes")
    if not axes and call.attributes.integer("noop_with_empty_axes", 0):
        return x
    chosen = sorted({axis_of(axis, len(x.shape)) for axis in axes or range(len(x.shape))})
    return call.build.mean(x, chosen, keep=bool(call.attributes.integer("keepdims", 1)))


def _flatten(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.attributes.integer("axis", 1)
    if axis != len(x.shape):
        axis = axis_of(axis, len(x.shape))
    return call.build.reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _reshape(call: Call) -> Tensor:
    x, wanted = call.tensor(0), call.integers(1, "shape") or ()
    if not call.attributes.integer("allowzero", 0):
        wanted = tuple(x.shape[i] if side == 0 else side for i, side in enumerate(wanted))
    return call.build.reshaped(x, filled(wanted, math.prod(x.shape)))


def _squeeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.integers(1, "axes")
    rank = len(x.shape)
    gone = {axis_of(a, rank) for a in axes} if axes is not None else {i for i, s in enumerate(x.shape) if s == 1}
    return call.build.reshaped(x, tuple(side for i, side in enumerate(x.shape) if i not in gone))


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), call.integers(1, "axes") or ()
    rank = len(x.shape) + len(axes)
    added = {axis_of(axis, rank) for axis in axes}
    if len(added) != len(axes):
        raise Unreadable(f"adds the axes {list(axes)}", "name each axis once")
    sides = iter(x.shape)
    return call.build.reshaped(x, tuple(1 if i in added else next(sides) for i in range(rank)))


def _transpose(call: Call) -> Tensor:
    x = call.tensor(0)
    order = call.attributes.integers("perm")
    return call.build.transposed(x, order if order is not None else range(len(x.shape))[::-1])


def _concat(call: Call) -> Tensor:
    parts = [call.tensor(i) for i in range(len(call.inputs))]
    return call.build.joined(parts, call.axis(len(parts[0].shape), 0))


def _pad(call: Call) -> Tensor:
    x = call.live()
    rank = len(x.shape)
    mode = call.attributes.text("mode", "constant")
    margins = call.integers(1, "pads") or ()
    value = call.attributes.real("value", 0.0)
    given = call.optional(2) if call.opset >= 11 else None
    if given is not None and given.value.size:
        value = float(given.real().reshape(()))
    axes = [axis_of(a, rank) for a in (call.integers(3, "axes") if call.opset >= 18 else None) or range(rank)]
    if mode != "constant" or value != 0:
        raise Unreadable(f"pads in mode '{mode}' with {value}", "pad with zeros")
    if len(margins) != 2 * len(axes):
        raise Unreadable(f"has {len(margins)} margins for {len(axes)} axes", "give two for each axis")
    pairs: list[Pair] = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pairs[axis] = margins[i], margins[i + len(axes)]
    return call.build.padded(x, pairs)


def _identity(call: Call) -> Tensor:
    return call.tensor(0)


def _dropout(call: Call) -> Tensor:
    training = call.optional(2)
    if training is not None and bool(training.value.any()):
        raise Unreadable("drops at random", "export the network for inference")
    return call.tensor(0)


def _cast(call: Call) -> Tensor:
    x, kind = call.live(), TYPES.get(call.attributes.integer("to", 0), "")
    if "float" not in kind:
        raise Unreadable(f"turns computed values into {kind or 'an unknown type'}", "quantize them")
    if not x.is_open:
        return call.build.real(x)
    raise Unreadable("takes the integers of the input as numbers", "give the network a float input")


def _constant(call: Call) -> Tensor:
    return Fixed(value=call.attributes.value())


FLOATS: Mapping[str, Operator] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "GlobalMaxPool": _global_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(HardSwish()),
    "Identity": _identity,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _unary(Relu()),
    "Reshape": _reshape,
    "Sigmoid": _unary(Sigmoid()),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _sum,
    "Tanh": _unary(Tanh()),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""What each operator becomes; those that know codes are in `onnx_integers`."""

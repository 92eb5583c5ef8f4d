"""The operations of ATen, PyTorch's tensor library, and those that quantize, as exported programs name them.

Source: `native_functions.yaml` of PyTorch; `_decomposed.py` of its quantization for quantized_decomposed.
Needs no PyTorch.
"""

import math
from collections.abc import Mapping

import numpy as np

from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import Clamp, HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Tanh, Windows
from crosslayer.core.quant import Quant
from crosslayer.read.problems import Unreadable
from crosslayer.read.pt2_file import Argument
from crosslayer.read.shapes import filled, pair
from crosslayer.read.tensors import Fixed, Live, Tensor
from crosslayer.read.torch_call import REPLACE, Call, Operation, spread


def _unary(op: Op) -> Operation:
    return lambda call: call.build.unary(op, call.live("self"))


def _silu(call: Call) -> Tensor:
    x = call.live("self")
    return call.build.product(x, call.build.unary(Sigmoid(), x))


def _same(name: str) -> Operation:
    return lambda call: call.tensor(name)


def _add(call: Call) -> Tensor:
    return call.build.sum(call.tensor("self"), _scaled(call, call.tensor("other"), call.real("alpha", 1.0)))


def _sub(call: Call) -> Tensor:
    other = _scaled(call, call.tensor("other"), call.real("alpha", 1.0))
    return call.build.sum(call.tensor("self"), call.build.negated(other))


def _rsub(call: Call) -> Tensor:
    own = _scaled(call, call.tensor("self"), call.real("alpha", 1.0))
    return call.build.sum(call.tensor("other"), call.build.negated(own))


def _scaled(call: Call, x: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return x
    if isinstance(x, Fixed):
        return Fixed(value=(x.real() * factor).astype(np.float32))
    return call.build.product(x, Fixed(value=np.full((), factor, np.float32)))


def _mul(call: Call) -> Tensor:
    return call.build.product(call.tensor("self"), call.tensor("other"))


def _div(call: Call) -> Tensor:
    inverse = call.fixed("other").inverse()
    return call.build.product(call.live("self"), inverse)


def _neg(call: Call) -> Tensor:
    return call.build.negated(call.live("self"))


def _conv(call: Call) -> Tensor:
    x, weight = call.live("input"), call.fixed("weight")
    if call.flag("transposed"):
        raise Unreadable("is a transposed convolution", REPLACE)
    if len(x.shape) != len(weight.shape):
        raise Unreadable(f"slides {list(weight.shape)} over {list(x.shape)}", "give the input a batch axis")
    windows = call.windows(x, weight.shape[2:], call.integers("stride", (1,)))
    return call.build.conv(x, weight, call.optional("bias"), windows, call.integer("groups", 1))


def _linear(call: Call) -> Tensor:
    return call.build.dense(call.live("input"), call.fixed("weight"), call.optional("bias"))


def _addmm(call: Call) -> Tensor:
    if call.real("alpha", 1.0) != 1 or call.real("beta", 1.0) != 1:
        raise Unreadable("scales its operands", "scale the weights instead")
    weight = call.fixed("mat2")
    bias = call.fixed("self")
    if math.prod(bias.shape) != weight.shape[-1] or len(weight.shape) != 2:
        raise Unreadable(f"adds {list(bias.shape)} to a product with {list(weight.shape)}", "add a vector")
    return call.build.dense(call.live("mat1"), weight.moved(1, 0), bias.reshaped((weight.shape[1],)))


def _matmul(call: Call) -> Tensor:
    x = call.live("self")
    weight = call.fixed("mat2" if "mat2" in call.arguments else "other")
    if len(weight.shape) != 2:
        raise Unreadable(f"multiplies by {list(weight.shape)}", "multiply by a matrix")
    return call.build.dense(x, weight.moved(1, 0), None)


def _norm(call: Call) -> Tensor:
    if call.flag("training"):
        raise Unreadable("normalizes by the statistics of the batch", "export it in evaluation mode: module.eval()")
    mean, variance = call.fixed("running_mean").real(), call.fixed("running_var").real()
    scale, shift = call.optional("weight"), call.optional("bias")
    constants = (
        np.ones_like(mean) if scale is None else scale.real(),
        np.zeros_like(mean) if shift is None else shift.real(),
        mean,
        variance,
    )
    return call.build.norm(call.live("input"), constants, call.real("eps", 1e-5))


def _clamp(low: str, high: str, least: float, most: float) -> Operation:
    def apply(call: Call) -> Tensor:
        x = call.live("self")
        bounds = call.real(low, least), call.real(high, most)
        if bounds == (0, _ENDLESS):
            return call.build.unary(Relu(), x)
        return call.build.unary(Relu6() if bounds == (0, 6) else Clamp(low=bounds[0], high=bounds[1]), x)

    return apply


_ENDLESS = 3.0e38  # in place of infinity, where there is no bound


def _leaky(call: Call) -> Tensor:
    return call.build.unary(LeakyRelu(slope=call.real("negative_slope", 0.01)), call.live("self"))


def _prelu(call: Call) -> Tensor:
    slope = call.fixed("weight")
    return call.build.prelu(call.live("self"), slope)


def _softmax(call: Call) -> Tensor:
    x = call.live("self")
    return call.build.softmax(x, [call.axis("dim", len(x.shape))])


def _max_pool(call: Call) -> Tensor:
    x, windows = _pool(call)
    return call.build.max_pool(x, windows, ceil=call.flag("ceil_mode"))


def _average_pool(call: Call) -> Tensor:
    if call.arguments.get("divisor_override", Argument(kind="as_none", value=True)).kind != "as_none":
        raise Unreadable("divides by another number than that of its elements", "leave divisor_override out")
    x, windows = _pool(call)
    counts = call.flag("count_include_pad", default=True)
    return call.build.average_pool(x, windows, ceil=call.flag("ceil_mode"), counts=counts)


def _pool(call: Call) -> tuple[Live, Windows]:
    x = call.live("self")
    if len(x.shape) < 3:
        raise Unreadable(f"slides over a tensor of shape {list(x.shape)}", "give the input a batch axis")
    kernel = call.integers("kernel_size")
    return x, call.windows(x, kernel, call.integers("stride", ()) or kernel)


def _adaptive(mean: bool) -> Operation:  # an argument of this table only
    def apply(call: Call) -> Tensor:
        x = call.live("self")
        slid = len(x.shape) - 2
        sizes = spread(call.integers("output_size"), max(slid, 1))
        if any(size < 1 or side % size for size, side in zip(sizes, x.shape[2:], strict=True)):
            raise Unreadable(f"divides {list(x.shape[2:])} into {list(sizes)} unequal parts", "use equal parts")
        if mean and all(size == 1 for size in sizes):
            return call.build.mean(x, range(2, len(x.shape)), keep=True)
        kernel = pair([side // size for size, side in zip(sizes, x.shape[2:], strict=True)])
        windows = Windows(kernel=kernel, stride=kernel)
        if mean:
            return call.build.average_pool(x, windows, ceil=False, counts=False)
        return call.build.max_pool(x, windows, ceil=False)

    return apply


def _mean(call: Call) -> Tensor:
    x = call.live("self")
    rank = len(x.shape)
    axes = sorted(set(call.axes("dim", rank, range(rank)))) or range(rank)
    return call.build.mean(x, axes, keep=call.flag("keepdim"))


def _flatten(call: Call) -> Tensor:
    x = call.tensor("self")
    rank = len(x.shape)
    start, end = call.axis("start_dim", rank, 0), call.axis("end_dim", rank, -1)
    if start > end:
        raise Unreadable(f"flattens axes {start} to {end}", "correct the axes")
    return call.build.reshaped(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _view(call: Call) -> Tensor:
    x = call.tensor("self")
    wanted = call.integers("size" if "size" in call.arguments else "shape")
    return call.build.reshaped(x, filled(wanted, math.prod(x.shape)))


def _unflatten(call: Call) -> Tensor:
    x = call.tensor("self")
    axis = call.axis("dim", len(x.shape))
    sides = filled(call.integers("sizes"), x.shape[axis])
    return call.build.reshaped(x, (*x.shape[:axis], *sides, *x.shape[axis + 1 :]))


def _squeeze(call: Call) -> Tensor:
    x = call.tensor("self")
    rank = len(x.shape)
    chosen = call.axes("dim", rank, range(rank))
    return call.build.reshaped(x, tuple(side for i, side in enumerate(x.shape) if i not in chosen or side != 1))


def _unsqueeze(call: Call) -> Tensor:
    x = call.tensor("self")
    axis = call.axis("dim", len(x.shape) + 1)
    return call.build.reshaped(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _permute(call: Call) -> Tensor:
    x = call.tensor("self")
    return call.build.transposed(x, call.axes("dims", len(x.shape)))


def _transpose(call: Call) -> Tensor:
    x = call.tensor("self")
    order = list(range(len(x.shape)))
    a, b = (call.axis(name, len(order), default) for name, default in (("dim0", 0), ("dim1", min(1, len(order) - 1))))
    order[a], order[b] = order[b], order[a]
    return call.build.transposed(x, order)


def _cat(call: Call) -> Tensor:
    parts = call.tensors("tensors")
    return call.build.joined(parts, call.axis("dim", len(parts[0].shape), 0))


def _pad(call: Call) -> Tensor:
    x, margins = call.live("self"), call.integers("pad")
    if call.text("mode", "constant") != "constant" or call.real("value", 0.0) != 0:
        raise Unreadable("pads with something else than zeros", "pad with zeros")
    if len(margins) % 2 or len(margins) > 2 * len(x.shape):
        raise Unreadable(f"has {len(margins)} margins for {len(x.shape)} axes", "give two for each axis")
    pairs = [(0, 0)] * len(x.shape)
    for i in range(len(margins) // 2):  # from the last axis on
        pairs[-1 - i] = margins[2 * i], margins[2 * i + 1]
    return call.build.padded(x, pairs)


def _dropout(call: Call) -> Tensor:
    if call.flag("train"):
        raise Unreadable("drops at random", "export it in evaluation mode: module.eval()")
    return call.tensor("input")


def _converted(call: Call) -> Tensor:
    return call.build.real(call.live("self"))


def _size(call: Call) -> int:
    x = call.tensor("self")
    return x.shape[call.axis("dim", len(x.shape))]


def _code(call: Call, *, channels: bool) -> tuple[Quant, int]:
    """The signed number code of a conversion, and what its codes are less than the file's."""
    scales = call.numbers("scales" if channels else "scale")
    zeros = call.numbers("zero_points" if channels else "zero_point")
    low, high = call.integer("quant_min"), call.integer("quant_max")
    bits = (high - low).bit_length()
    if high - low not in ((1 << bits) - 1, (1 << bits) - 2):  # all codes, or all but the least
        raise Unreadable(f"quantizes to {low}…{high}", "use all codes of some number of bits")
    shift = high - ((1 << (bits - 1)) - 1)
    if any(zero != int(zero) for zero in zeros):
        raise Unreadable("has a zero point that is no integer", "use integers")
    zero = tuple(int(value) - shift for value in zeros)
    return Quant(bits=bits, scale=scales, zero=zero, axis=call.integer("axis") if channels else None), shift


def _quantize(*, channels: bool) -> Operation:
    return lambda call: call.build.mark(call.tensor("input"), _code(call, channels=channels)[0])


def _dequantize(*, channels: bool) -> Operation:
    return lambda call: call.build.unmark(call.tensor("input"), *_code(call, channels=channels))


_DECOMPOSED = "quantized_decomposed."
OPERATIONS: Mapping[str, Operation] = {
    "aten._native_batch_norm_legit_no_training.default": _norm,
    "aten._softmax.default": _softmax,
    "aten._to_copy.default": _converted,
    "aten._unsafe_view.default": _view,
    "aten.adaptive_avg_pool1d.default": _adaptive(mean=True),
    "aten.adaptive_avg_pool2d.default": _adaptive(mean=True),
    "aten.adaptive_max_pool1d.default": _adaptive(mean=False),
    "aten.adaptive_max_pool2d.default": _adaptive(mean=False),
    "aten.add.Scalar": _add,
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.addmm.default": _addmm,
    "aten.alias.default": _same("self"),
    "aten.avg_pool1d.default": _average_pool,
    "aten.avg_pool2d.default": _average_pool,
    "aten.batch_norm.default": _norm,
    "aten.cat.default": _cat,
    "aten.clamp.default": _clamp("min", "max", -_ENDLESS, _ENDLESS),
    "aten.clone.default": _same("self"),
    "aten.constant_pad_nd.default": _pad,
    "aten.contiguous.default": _same("self"),
    "aten.conv1d.default": _conv,
    "aten.conv1d.padding": _conv,
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.convolution.default": _conv,
    "aten.detach.default": _same("self"),
    "aten.detach_.default": _same("self"),
    "aten.div.Scalar": _div,
    "aten.div.Tensor": _div,
    "aten.dropout.default": _dropout,
    "aten.feature_dropout.default": _dropout,
    "aten.flatten.using_ints": _flatten,
    "aten.hardsigmoid.default": _unary(HardSigmoid()),
    "aten.hardsigmoid_.default": _unary(HardSigmoid()),
    "aten.hardswish.default": _unary(HardSwish()),
    "aten.hardswish_.default": _unary(HardSwish()),
    "aten.hardtanh.default": _clamp("min_val", "max_val", -1.0, 1.0),
    "aten.hardtanh_.default": _clamp("min_val", "max_val", -1.0, 1.0),
    "aten.leaky_relu.default": _leaky,
    "aten.leaky_relu_.default": _leaky,
    "aten.lift_fresh_copy.default": _same("self"),
    "aten.linear.default": _linear,
    "aten.matmul.default": _matmul,
    "aten.max_pool1d.default": _max_pool,
    "aten.max_pool2d.default": _max_pool,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.mean.default": _mean,
    "aten.mean.dim": _mean,
    "aten.mm.default": _matmul,
    "aten.mul.Scalar": _mul,
    "aten.mul.Tensor": _mul,
    "aten.mul_.Tensor": _mul,
    "aten.neg.default": _neg,
    "aten.pad.default": _pad,
    "aten.permute.default": _permute,
    "aten.prelu.default": _prelu,
    "aten.relu.default": _unary(Relu()),
    "aten.relu6.default": _unary(Relu6()),
    "aten.relu_.default": _unary(Relu()),
    "aten.reshape.default": _view,
    "aten.rsub.Scalar": _rsub,
    "aten.sigmoid.default": _unary(Sigmoid()),
    "aten.silu.default": _silu,
    "aten.silu_.default": _silu,
    "aten.softmax.int": _softmax,
    "aten.squeeze.default": _squeeze,
    "aten.squeeze.dim": _squeeze,
    "aten.squeeze.dims": _squeeze,
    "aten.sub.Scalar": _sub,
    "aten.sub.Tensor": _sub,
    "aten.sym_size.int": _size,
    "aten.t.default": _transpose,
    "aten.tanh.default": _unary(Tanh()),
    "aten.to.dtype": _converted,
    "aten.transpose.int": _transpose,
    "aten.unflatten.int": _unflatten,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.view.default": _view,
    f"{_DECOMPOSED}dequantize_per_channel.default": _dequantize(channels=True),
    f"{_DECOMPOSED}dequantize_per_tensor.default": _dequantize(channels=False),
    f"{_DECOMPOSED}dequantize_per_tensor.tensor": _dequantize(channels=False),
    f"{_DECOMPOSED}quantize_per_channel.default": _quantize(channels=True),
    f"{_DECOMPOSED}quantize_per_tensor.default": _quantize(channels=False),
    f"{_DECOMPOSED}quantize_per_tensor.tensor": _quantize(channels=False),
}
"""What is read, by the target that the file names."""

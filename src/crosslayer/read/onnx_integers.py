"""The operators that quantize: those of the ONNX standard, and those of ONNX Runtime (com.microsoft).

Sources: `Operators.md` of the ONNX project; `ContribOperators.md` of ONNX Runtime.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from crosslayer.core.graph.operation import Op
from crosslayer.core.graph.ops import LeakyRelu, Sigmoid
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Quant
from crosslayer.read.channels_first import ChannelsFirst
from crosslayer.read.onnx_call import Call, Operator
from crosslayer.read.onnx_file import TYPES
from crosslayer.read.onnx_operators import averaged, shares, spatial_mean
from crosslayer.read.problems import Unreadable
from crosslayer.read.tensors import Fixed, Live, Tensor, constant

_BITS = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int4": 4, "uint4": 4, "int32": 32}


def _quantize(call: Call) -> Tensor:
    x, zero = call.tensor(0), call.optional(2)
    kind = TYPES.get(call.attributes.integer("output_dtype", 0), "uint8")
    _check_blocks(call)
    return call.build.mark(x, _code(call.fixed(1), zero, _kind(zero, kind), _code_axis(call, x))[0])


def _dequantize(call: Call) -> Tensor:
    _check_blocks(call)
    return _decoded(call.build, call.tensor(0), call.fixed(1), call.optional(2), _code_axis(call, call.tensor(0)))


def _code_axis(call: Call, x: Tensor) -> int:
    rank = len(x.shape)
    axis = call.attributes.integer("axis", 1)
    return axis % rank if -rank <= axis < rank else 0


def _check_blocks(call: Call) -> None:
    if call.attributes.integer("block_size", 0):
        raise Unreadable("has a scale for each block", "quantize per tensor or per channel")


def _kind(zero: Fixed | None, otherwise: str) -> str:
    return otherwise if zero is None else zero.value.dtype.name


def _code(scale: Fixed, zero: Fixed | None, kind: str, axis: int) -> tuple[Quant, int]:
    """The signed number code of a scale and a zero point, and what its codes are less than the file's."""
    bits = _BITS.get(kind)
    if bits is None:
        raise Unreadable(f"has codes of type {kind}", f"use one of {', '.join(_BITS)}")
    scales = tuple(float(value) for value in scale.real().ravel())
    zeros = (0,) * len(scales) if zero is None else tuple(int(value) for value in zero.value.ravel())
    if len(zeros) not in (1, len(scales)):
        raise Unreadable(f"has {len(scales)} scales and {len(zeros)} zeros", "give one zero for each scale")
    half = 1 << (bits - 1) if kind.startswith("uint") else 0
    shifted = tuple(value - half for value in zeros)
    return Quant(bits=bits, scale=scales, zero=shifted, axis=axis if len(scales) > 1 else None), half


def _decoded(build: ChannelsFirst, x: Tensor, scale: Fixed, zero: Fixed | None, axis: int) -> Tensor:
    """What integers stand for. Without a zero point they have the type that they have, and zero 0."""
    if zero is None and x.code is not None:  # their type is forgotten, their zero must have been 0
        return build.unmark(x, x.code, 0)
    return build.unmark(
        x, *_code(scale, zero, _kind(zero, "int8" if isinstance(x, Live) else x.value.dtype.name), axis)
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Quantized:
    """The operands of a QLinear operator: tensor, scale and zero point, one after the other."""

    call: Call

    def tensor(self, i: int, axis: int = 0) -> Tensor:
        """The real values of operands i, i + 1, i + 2."""
        call = self.call
        return _decoded(call.build, call.tensor(i), call.fixed(i + 1), call.optional(i + 2), axis)

    def live(self, i: int = 0) -> Live:
        """As `tensor`, as one that is computed at run time."""
        return self.call.build.live(self.tensor(i))

    def weight(self, i: int, axis: int) -> Fixed:
        """As `tensor`, constant."""
        return constant(self.tensor(i, axis), f"operand {i}")

    def matrix(self, i: int, axis: int) -> Fixed:
        """As `weight`, of two axes."""
        found = self.weight(i, axis)
        if len(found.shape) != 2:
            raise Unreadable(f"multiplies by {list(found.shape)}", "multiply by a matrix")
        return found

    def bias(self, i: int, taps: Fixed) -> Fixed | None:
        """Operand i in the code of the products of operands 0 and weights `taps`, outputs on axis 0."""
        found = self.call.optional(i)
        if found is None or taps.code is None:
            return None
        source, _ = _code(self.call.fixed(1), None, "int8", 0)
        return Fixed(value=found.value.astype(np.int32), code=bias_code(source, taps.code))

    def result(self, x: Tensor, i: int) -> Tensor:
        """`x` in the code of operands i (scale) and i + 1 (zero)."""
        zero = self.call.optional(i + 1)
        return self.call.build.mark(x, _code(self.call.fixed(i), zero, _kind(zero, "uint8"), 0)[0])


def _qlinear_conv(call: Call) -> Tensor:
    q = _Quantized(call=call)
    x, weight = q.live(0), q.weight(3, 0)
    windows = call.windows(x, weight.shape[2:])
    y = call.build.conv(x, weight, q.bias(8, weight), windows, call.attributes.integer("group", 1))
    return q.result(y, 6)


def _qlinear_matmul(call: Call) -> Tensor:
    q = _Quantized(call=call)
    weight = q.matrix(3, 1).moved(1, 0)
    return q.result(call.build.dense(q.live(0), weight, None), 6)


def _qgemm(call: Call) -> Tensor:
    q = _Quantized(call=call)
    turned = call.attributes.integer("transB", 0)
    if call.attributes.integer("transA", 0) or call.attributes.real("alpha", 1.0) != 1:
        raise Unreadable("transposes or scales its first operand", "export it without")
    weight = q.matrix(3, 0) if turned else q.matrix(3, 1).moved(1, 0)
    bias = q.bias(6, weight)
    y = call.build.dense(q.live(0), weight, None if bias is None else bias.reshaped((weight.shape[0],)))
    return q.result(y, 7) if call.optional(7) is not None else y


def _qlinear_add(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(call.build.sum(q.tensor(0), q.tensor(3)), 6)


def _qlinear_mul(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(call.build.product(q.tensor(0), q.tensor(3)), 6)


def _qlinear_average(call: Call) -> Tensor:
    if call.attributes.integer("channels_last", 0):
        raise Unreadable("has its channels last", "export the network channels first")
    q = _Quantized(call=call)
    return q.result(averaged(call, q.live()), 3)


def _qlinear_mean(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(spatial_mean(call, q.live()), 3)


def _qlinear_softmax(call: Call) -> Tensor:
    q = _Quantized(call=call)
    return q.result(shares(call, q.live(), call.attributes.integer("opset", call.opset)), 3)


def _qlinear_unary(make: Callable[[Call], Op]) -> Operator:
    def apply(call: Call) -> Tensor:
        q = _Quantized(call=call)
        return q.result(call.build.unary(make(call), q.live()), 3)

    return apply


def _qlinear_concat(call: Call) -> Tensor:
    q = _Quantized(call=call)
    parts = [q.tensor(i) for i in range(2, len(call.inputs), 3)]
    return q.result(call.build.joined(parts, call.axis(len(parts[0].shape), 0)), 0)


INTEGERS: Mapping[str, Operator] = {
    "DequantizeLinear": _dequantize,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
"""What each operator of the standard becomes."""
MICROSOFT: Mapping[str, Operator] = {
    "DequantizeLinear": _dequantize,
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_add,
    "QLinearAveragePool": _qlinear_average,
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _qlinear_mean,
    "QLinearLeakyRelu": _qlinear_unary(lambda call: LeakyRelu(slope=call.attributes.real("alpha", 0.01))),
    "QLinearMul": _qlinear_mul,
    "QLinearSoftmax": _qlinear_softmax,
    "QLinearSigmoid": _qlinear_unary(lambda call: Sigmoid()),
    "QuantizeLinear": _quantize,
}
"""Those of com.microsoft, ONNX Runtime's own."""

"""Rescaling of sums of products: what convolutions and dense layers share."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rescale, Rounding, Rule, rescale
from crosslayer.core.graph.operation import Operand, Params, TensorType, rescaler, scalar
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.quant import Array, Quant


def product_params(
    operands: Sequence[Operand], output: TensorType, axis: int | None, activation: Activation, factors: Rescale
) -> dict[str, int | float | Array | Rescale]:
    """Zeros, bounds, weights, bias and rescaling of a layer (x, weight, bias); `axis` of the weight is its outputs."""
    x, weight, bias = operands
    source, taps, result = x.code(), weight.code(), Operand(type=output).code()
    if any(taps.zero):
        raise GraphError("weights must have zero 0 (TFLite int8 specification)")
    if weight.constant().dtype != np.int8 or source.bits > 8 or result.bits > 8:
        raise GraphError("has integer kernels for codes of at most 8 bits only")
    accumulator = bias.code()
    if accumulator.bits != 32:
        raise GraphError(f"the bias must have 32 bits, not {accumulator.bits}")
    if largest_sum(source, weight.constant(), bias.constant(), axis) >= 2**31:
        raise GraphError("its sums could grow past 32 bits; give it fewer inputs, or a smaller bias or a larger scale")
    return {
        **activation.bounds(result, factors.rule),
        "zero_in": source.zero[0],
        "zero_out": result.zero[0],
        "per_channel": int(len(taps.scale) > 1),
        "weight": weight.constant(),
        "bias": bias.constant(),
        "rescale": factors,
    }


def largest_sum(source: Quant, weight: Array, bias: Array, axis: int | None) -> int:
    """What no sum of a layer can exceed in magnitude, whatever the input; `axis` of the weight holds its outputs."""
    farthest = max(source.highest - source.zero[0], source.zero[0] - source.lowest)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    taps = np.abs(weight.astype(np.int16)).sum(axis=others, dtype=np.int64)
    return int((taps * farthest + np.abs(bias.astype(np.int64))).max())


def conv_rule(rounding: Rounding) -> Rule:
    """How convolutions and every operation but a dense layer round."""
    return Rule.FLOAT if rounding is Rounding.FLOAT else Rule.DOUBLE


def conv_rescale(operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Rescale:
    """By scale_x · scale_w[channel] / scale_y, in the precision in which the runtimes compute it for convolutions."""
    rule = conv_rule(rounding)
    return rescale(product_factors(operands, output, in_float32=rule is Rule.FLOAT), rule)


def dense_rescale(operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Rescale:
    """By scale_x · scale_w[channel] / scale_y, in the precision in which the runtimes compute it for dense layers."""
    shared = len(operands[1].code().scale) == 1
    match rounding:
        case Rounding.DOUBLE:  # TFLite `GetQuantizedConvolutionMultipler` multiplies two floats
            return rescale(product_factors(operands, output, in_float32=shared), Rule.DOUBLE)
        case Rounding.REFERENCE:
            return rescale(product_factors(operands, output, in_float32=False), Rule.SINGLE)
        case Rounding.FLOAT:
            return rescale(product_factors(operands, output, in_float32=True), Rule.FLOAT)


def product_factors(operands: Sequence[Operand], output: TensorType, *, in_float32: bool) -> Array:
    """scale_x · scale_w[channel] / scale_y in float64, the product rounded to float32 first if asked for."""
    x, taps, y = (np.array(o.code().scale) for o in (operands[0], operands[1], Operand(type=output)))
    product = x * taps
    return (product.astype(np.float32) if in_float32 else product).astype(np.float64) / y


def finish(params: Params, acc: Array) -> Array:
    """int32 sums (…, channels) to codes: rescale, add the zero, clamp."""
    return np.clip(rescaler(params)(acc) + scalar(params, "zero_out"), scalar(params, "low"), scalar(params, "high"))


def bias_code(source: Quant, taps: Quant) -> Quant:
    """The code of a bias: 32 bits, scale_x · scale_w, zero 0."""
    scale = tuple(float(np.float32(source.scale[0] * s)) for s in taps.scale)
    return Quant(bits=32, scale=scale, axis=None if taps.axis is None else 0)

"""Rescaling of sums of products: what convolutions and dense layers share."""

from collections.abc import Sequence

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rescale, Rounding, Rule, rescale
from crosslayer.core.graph.operation import Operand, Params, TensorType, Weights, is_wide, rescaler, scalar
from crosslayer.core.graph.ops.activation import Activation
from crosslayer.core.quant import Array, Quant


def product_params(
    operands: Sequence[Operand], output: TensorType, axis: int | None, activation: Activation, factors: Rescale
) -> dict[str, int | float | Array | Weights | Rescale]:
    """Zeros, bounds, weights, bias and rescaling of a layer (x, weight, bias); `axis` of the weight is its outputs."""
    x, weight, bias = operands
    source, taps, result = x.code(), weight.code(), Operand(type=output).code()
    if any(taps.zero):
        raise GraphError("weights must have zero 0 (TFLite int8 specification)")
    wide, accumulator = is_wide(source), bias.code()
    if taps.bits > (16 if wide else 8):
        raise GraphError("takes weights of up to 8 bits, and up to 16 where its activations have more than 8")
    check_codes(weight.constant(), taps)
    if accumulator.bits not in ((32, 64) if wide else (32,)):
        raise GraphError(f"the bias must have 32 bits{' or 64' if wide else ''}, not {accumulator.bits}")
    largest = largest_sum(source, weight.constant(), bias.constant(), axis)
    room = 48 if factors.rule is Rule.REDUCED or accumulator.bits == 64 else 32
    if largest >= 2 ** (room - 1):
        raise GraphError(
            f"its sums could grow past {room} bits; give it fewer inputs, or a smaller bias or a larger scale"
        )
    widths = {
        "rule": factors.rule.number,
        "sum_bits": 32 if largest < 2**31 else 64,
        "bias_bits": accumulator.bits,
    }
    return {
        **(widths if wide else {}),
        **activation.bounds(result, factors.rule),
        "zero_in": source.zero[0],
        "zero_out": result.zero[0],
        "per_channel": int(len(taps.scale) > 1),
        "bits": taps.bits,
        "weight": Weights(codes=weight.constant(), bits=taps.bits),
        "bias": bias.constant(),
        "rescale": factors,
    }


def check_codes(weight: Array, taps: Quant) -> None:
    """Raises `GraphError` for weights that are no codes of their number code: packed, they would be others."""
    if weight.min() < taps.lowest or weight.max() > taps.highest or (taps.bits == 1 and not weight.all()):
        codes = "−1 and +1" if taps.bits == 1 else f"{taps.lowest}…{taps.highest}"
        raise GraphError(f"weights of {taps.bits} bits must be {codes}; encode them again")


def largest_sum(source: Quant, weight: Array, bias: Array, axis: int | None) -> int:
    """What no sum of a layer can exceed in magnitude, whatever the input; `axis` of the weight holds its outputs."""
    farthest = max(source.highest - source.zero[0], source.zero[0] - source.lowest)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    taps = np.abs(weight.astype(np.int64)).sum(axis=others)
    return int((taps * farthest + np.abs(bias.astype(np.float64))).max())  # exact up to 2^53


def conv_rule(rounding: Rounding, *codes: Quant) -> Rule:
    """How every operation but a layer rounds, and convolutions of codes of up to 8 bits.

    XNNPACK takes no codes of more bits: LiteRT's default for them are its own kernels.
    """
    return Rule.FLOAT if rounding is Rounding.FLOAT and not any(is_wide(code) for code in codes) else Rule.DOUBLE


def wide_rule(operands: Sequence[Operand]) -> Rule:
    """How layers of codes of more than 8 bits round: by the type of the bias, and always alike for wide weights."""
    narrow = operands[2].code().bits == 32 and not is_wide(operands[1].code())
    return Rule.DOUBLE if narrow else Rule.REDUCED


def conv_rescale(operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Rescale:
    """By scale_x · scale_w[channel] / scale_y, in the precision in which the runtimes compute it for convolutions."""
    rule = wide_rule(operands) if is_wide(operands[0].code()) else conv_rule(rounding)
    return rescale(product_factors(operands, output, in_float32=rule is Rule.FLOAT), rule)


def dense_rescale(operands: Sequence[Operand], output: TensorType, rounding: Rounding) -> Rescale:
    """By scale_x · scale_w[channel] / scale_y, in the precision in which the runtimes compute it for dense layers."""
    shared = len(operands[1].code().scale) == 1
    if is_wide(operands[0].code()):
        single = rounding is not Rounding.DOUBLE and not is_wide(operands[1].code())
        rule = Rule.SINGLE if single else wide_rule(operands)
        return rescale(product_factors(operands, output, in_float32=shared and not single), rule)
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
    """The code of a bias: scale_x · scale_w, zero 0, 32 bits; 64 bits where activations have more than 8."""
    scale = tuple(float(np.float32(source.scale[0] * s)) for s in taps.scale)
    return Quant(bits=64 if is_wide(source) else 32, scale=scale, axis=None if taps.axis is None else 0)

"""Post-training quantization to the TFLite int8 specification."""

from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import Concat, Constant, Requantize
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Quant, bias_codes, weight_codes
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.quantize.precision import Precision
from crosslayer.quantize.ranges import RangeRule, Ranges, find_ranges
from crosslayer.quantize.reconstruct import correct_biases, learn_rounding
from crosslayer.quantize.scales import activation_code, weight_code

_INT8 = Precision()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeAffine(Stage):
    """Integer codes for all values: activations affine and per tensor, weights symmetric, biases of 32 bits.

    `precision` says how many bits; the default is int8 as in the TFLite specification. The ranges of activations are
    found by `ranges` from `samples` training samples, which `learn_rounding` and `correct_biases` use too: they make up
    for what rounding the weights does to each layer (`reconstruct.py`). Worth it below 8 bits.
    """

    samples: int = 512
    rounding: Rounding = Rounding.DOUBLE
    precision: Precision = field(default_factory=Precision)
    ranges: RangeRule = RangeRule.MIN_MAX
    learn_rounding: bool = False
    correct_biases: bool = False

    def __post_init__(self) -> None:
        check_parameters((self.samples >= 1, "samples must be at least 1"))

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The integer design; notes: how many samples calibrated it."""
        train = bench.data.train
        chosen = np.sort(bench.rng().permutation(len(train))[: self.samples])
        x = train.real(chosen)
        found = find_ranges(design.graph, x, self.ranges, self.precision)
        graph = quantize(design.graph, found, self.rounding, self.precision)
        if self.learn_rounding:
            graph = learn_rounding(design.graph, graph, x, bench.rng())
        if self.correct_biases:
            graph = correct_biases(design.graph, graph, x)
        return replace(design, graph=graph, plan=None), {"samples": len(chosen)}


def quantize(graph: Graph, ranges: Ranges, rounding: Rounding, precision: Precision = _INT8) -> Graph:
    """The integer graph; `ranges` holds the least and largest real value of each activation.

    `precision` says how many bits weights and activations have; the default is the TFLite int8 specification. Operands
    that must share a code but do not are requantized. Raises `GraphError` for operations without integer meaning (fold
    batch normalizations first).
    """
    if any(kind.quant is not None for kind in graph.types.values()):
        raise GraphError("the network has number codes already; quantize once, from floats")
    precision.check(graph)
    ranges = _joined(graph, ranges)

    def code_of(name: str) -> Quant:
        bits = precision.activations_of(name)
        return activation_code(*ranges[name], bits, power_of_two=precision.power_of_two)

    builder = Builder(rounding)
    renamed: dict[str, str] = {}
    codes: dict[str, Quant] = {}
    for name in graph.inputs:
        codes[name] = code_of(name)
        renamed[name] = builder.input(name, graph.types[name].shape, codes[name])
    for node in graph.nodes:
        inputs = [renamed[n] for n in graph.activations(node)]
        sources = [codes[n] for n in inputs]
        shapes = [graph.types[n].shape for n in node.inputs]
        if not node.op.takes(sources, shapes):
            common = code_of(node.name)
            for i, source in enumerate(sources):
                if source != common:
                    inputs[i] = builder.add(Requantize(), inputs[i], name=f"{node.name}.part{i}", quant=common)
            sources = [common] * len(inputs)
        forced = node.op.code(sources, shapes)
        codes[node.name] = forced or code_of(node.name)
        if isinstance(node.op, Constant):
            constants = [_coded(builder, graph, node, codes[node.name])]
        else:
            constants = _constants(builder, graph, node, sources, precision)
        renamed[node.name] = builder.add(node.op, *inputs, *constants, name=node.name, quant=codes[node.name])
    quantized = builder.graph(*(renamed[n] for n in graph.outputs))
    _ = quantized.lowered  # raises for a node without integer meaning
    return quantized


def _constants(builder: Builder, graph: Graph, node: Node, sources: list[Quant], precision: Precision) -> list[str]:
    """The quantized constants of a layer, added to the builder."""
    if not node.op.weights:
        return []
    axis = node.op.channel_axis
    if axis is None:
        raise GraphError(f"{node.name} ({type(node.op).__name__}): has no integer meaning; run FoldNorms first")
    weight, bias = (graph.constants[n] for n in node.inputs[1:])
    # where all weights are tiny, a scale at which the bias still fits; half of 32 bits remain for the products
    least = np.abs(bias.astype(np.float64)) / (2.0**30 * sources[0].scale[0])
    taps = weight_code(
        weight,
        precision.weights_of(node.name),
        axis if precision.per_channel else None,
        least=least if precision.per_channel else least.max(),
        power_of_two=precision.power_of_two,
    )
    values = (weight_codes(weight, taps), taps), (bias_codes(bias, sources[0], taps), bias_code(sources[0], taps))
    # constants that several nodes read have a code for each of them
    names = (
        n if len(graph.users[n]) == 1 else f"{node.name}.{role}"
        for role, n in zip(node.op.weights, node.inputs[1:], strict=True)
    )
    return [builder.constant(name, value, quant) for name, (value, quant) in zip(names, values, strict=True)]


def _coded(builder: Builder, graph: Graph, node: Node, code: Quant) -> str:
    """The value of a `Constant` in its number code, added to the builder."""
    (value,) = node.inputs
    name = value if len(graph.users[value]) == 1 else f"{node.name}.value"
    return builder.constant(name, code.encode(graph.constants[value]), code)


def _joined(graph: Graph, ranges: Ranges) -> Ranges:
    """Ranges in which the operands of a concatenation share theirs, so that it needs no rescaling."""
    joined = dict(ranges)
    for node in graph.nodes:
        if isinstance(node.op, Concat):
            parts = graph.activations(node)
            lows, highs = zip(*(joined[n] for n in (*parts, node.name)), strict=True)
            for name in (*parts, node.name):
                joined[name] = (min(lows), max(highs))
    return joined

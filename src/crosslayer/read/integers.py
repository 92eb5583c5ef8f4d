"""From a graph in floats, with the number codes that a file gives to its values, to a graph in integers.

ONNX and PyTorch write a quantized network as real arithmetic between conversions to integers and back. Here each
operation whose operands have codes, and whose result is converted to one, becomes the operation on codes. What a file
computes in floats stays in floats, between a `Dequantize` and a `Quantize`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.edit import only_reader, rewire, with_nodes, without_unused
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import TensorType
from crosslayer.core.graph.ops import (
    BatchNorm,
    Constant,
    DepthwiseConv2d,
    Dequantize,
    GlobalMean,
    LeakyRelu,
    Quantize,
    Relu,
    Relu6,
    Requantize,
    Reshape,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant, affine, symmetric
from crosslayer.read.names import Names
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms
from crosslayer.simplify.transposes import fold_transposes

_WITHIN = (GlobalMean, LeakyRelu, Relu, Relu6)
"""Operations whose results lie in the range of their operand, so that its code fits where a file gives none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """The number codes of a file: of conversions (`Requantize` nodes of the float graph), constants, and inputs."""

    marks: dict[str, Quant] = field(default_factory=dict[str, Quant])
    constants: dict[str, tuple[Array, Quant]] = field(default_factory=dict[str, tuple[Array, Quant]])
    inputs: dict[str, Quant] = field(default_factory=dict[str, Quant])


def finished(graph: Graph, coded: Coded, results: Sequence[bool], shifts: frozenset[str], rounding: Rounding) -> Graph:
    """The graph as it is returned: without needless transpositions, and in integers if there are codes.

    `results` says which outputs are codes in the file; `shifts` names normalizations that only add.
    """
    graph = _with_biases(replace(without_unused(graph), rounding=rounding), shifts)
    if not coded.marks and not coded.inputs:
        foldable = {node.name for node in graph.nodes} - {node.name for node in fold_norms(graph).nodes}
        for node in graph.nodes:  # one after another folds into what the other becomes
            after = only_reader(graph, node.name)
            if isinstance(node.op, BatchNorm) and after is not None and isinstance(after.op, BatchNorm):
                foldable.add(after.name)
        return verify(fold_transposes(_norms_as_layers(graph, foldable)))
    graph = fuse_activations(_norms_as_layers(graph, frozenset()))
    return verify(fold_transposes(_Integers(graph, coded, rounding).graph(results)))


def _with_biases(graph: Graph, shifts: frozenset[str]) -> Graph:
    """Normalizations that only add, and alone read a layer, as part of its bias."""
    changed: dict[str, Node | None] = {}
    constants, types, renamed = dict(graph.constants), dict(graph.types), dict[str, str]()
    names = _taken(graph)
    for layer in graph.nodes:
        shift = only_reader(graph, layer.name)
        if shift is not None and isinstance(shift.op, Reshape) and shift.op.shape[-1] == types[layer.name].shape[-1]:
            shift = only_reader(graph, shift.name)
        if shift is None or shift.name not in shifts or layer.op.channel_axis is None:
            continue
        own = names.fresh(f"{shift.name}.bias")
        constants[own] = constants[layer.inputs[2]] + constants[shift.inputs[2]]
        types[own] = TensorType(shape=constants[own].shape)
        changed[layer.name] = replace(layer, inputs=(*layer.inputs[:2], own))
        changed[shift.name] = None
        renamed[shift.name] = shift.inputs[0]
    return without_unused(rewire(with_nodes(replace(graph, constants=constants, types=types), changed), renamed))


def _norms_as_layers(graph: Graph, foldable: frozenset[str] | set[str]) -> Graph:
    """Normalizations but the `foldable` ones as depthwise convolutions of one weight, which have an integer meaning."""
    nodes: list[Node] = []
    constants, types = dict(graph.constants), dict(graph.types)
    names = _taken(graph)

    def add(node: Node, shape: tuple[int, ...]) -> str:
        nodes.append(node)
        types[node.name] = TensorType(shape=shape)
        return node.name

    for node in graph.nodes:
        if not isinstance(node.op, BatchNorm) or node.name in foldable:
            nodes.append(node)
            continue
        shape = types[node.name].shape
        gamma, beta, mean, variance = (constants[n].astype(np.float64) for n in node.inputs[1:])
        factor = gamma / np.sqrt(variance + node.op.epsilon)
        source, weight, bias = node.inputs[0], names.fresh(f"{node.name}.factor"), names.fresh(f"{node.name}.term")
        constants[weight] = factor.astype(np.float32)[None, None]
        constants[bias] = (beta - mean * factor).astype(np.float32)
        for name in (weight, bias):
            types[name] = TensorType(shape=constants[name].shape)
        op = DepthwiseConv2d(windows=Windows(kernel=(1, 1)))
        if len(shape) == 3:
            add(Node(name=node.name, op=op, inputs=(source, weight, bias)), shape)
        else:
            image = 1, math.prod(shape[:-1]), shape[-1]
            flat = add(Node(name=names.fresh(f"{node.name}.image"), op=Reshape(shape=image), inputs=(source,)), image)
            made = add(Node(name=names.fresh(f"{node.name}.affine"), op=op, inputs=(flat, weight, bias)), image)
            add(Node(name=node.name, op=Reshape(shape=shape), inputs=(made,)), shape)
    return without_unused(replace(graph, nodes=tuple(nodes), constants=constants, types=types))


def _taken(graph: Graph) -> Names:
    """Names, of which those in the graph are given."""
    names = Names()
    for name in graph.types:
        names.fresh(name)
    return names


@final
class _Integers:
    """Writes the integer graph node by node."""

    def __init__(self, graph: Graph, coded: Coded, rounding: Rounding) -> None:
        self._graph = graph
        self._coded = coded
        self._builder = Builder(rounding)
        self._names = _taken(graph)
        self._renamed: dict[str, str] = {}
        self._converted: dict[tuple[str, Quant | None], str] = {}

    def graph(self, results: Sequence[bool]) -> Graph:
        """The graph whose outputs are codes where `results` says so, else real values."""
        for name in self._graph.inputs:
            code = self._coded.inputs.get(name)
            self._renamed[name] = self._builder.input(name, self._graph.types[name].shape, code)
        for node in self._graph.nodes:
            mark = self._coded.marks.get(node.name)
            if mark is not None:
                self._renamed[node.name] = self._in_code(self._renamed[node.inputs[0]], mark)
            elif isinstance(node.op, Constant):
                self._renamed[node.name] = self._constant(node)
            else:
                self._renamed[node.name] = self._node(node)
        outputs = [self._renamed[name] for name in self._graph.outputs]
        return self._builder.graph(
            *(name if is_code else self._in_code(name, None) for name, is_code in zip(outputs, results, strict=True))
        )

    def _in_code(self, name: str, code: Quant | None) -> str:
        """A value of the new graph in another code, or as real values (None)."""
        now = self._builder.code(name)
        if now == code:
            return name
        if (name, code) not in self._converted:
            op = Dequantize() if code is None else Quantize() if now is None else Requantize()
            fresh = self._names.fresh(f"{name}.{type(op).__name__.lower()}")
            self._converted[name, code] = self._builder.add(op, name, name=fresh, quant=code)
        return self._converted[name, code]

    def _wanted(self, name: str) -> Quant | None:
        """The code to which a value is converted first."""
        marks = (self._coded.marks.get(user.name) for user in self._graph.users[name])
        return next((code for code in marks if code is not None), None)

    def _constant(self, node: Node) -> str:
        value = self._graph.constants[node.inputs[0]]
        codes, code = self._coded.constants.get(node.inputs[0], (None, self._wanted(node.name)))
        code = code or affine(float(value.min()), float(value.max()))
        stored = code.encode(value) if codes is None else codes
        name = self._builder.constant(node.inputs[0], stored, code)
        return self._builder.add(node.op, name, name=node.name, quant=code)

    def _node(self, node: Node) -> str:
        """The node on codes if all it needs has one, else on real values."""
        sources = [self._renamed[name] for name in self._graph.activations(node)]
        codes = [self._builder.code(name) for name in sources]
        known = [code for code in codes if code is not None]
        weights = self._weights(node, known[0]) if known and node.op.weights else {}
        if len(known) == len(codes) and weights is not None:
            shapes = [self._graph.types[name].shape for name in node.inputs]
            code = self._wanted(node.name)
            try:
                forced = node.op.code(known, shapes)
            except GraphError:  # the operands must share a code
                forced = code or known[0]
                sources = [self._in_code(name, forced) for name in sources]
            code = forced or code or (known[0] if isinstance(node.op, _WITHIN) else None)
            if code is not None:
                return self._add(node, sources, weights, code)
        real = {name: (self._graph.constants[name], None) for name in node.inputs if name in self._graph.constants}
        return self._add(node, [self._in_code(name, None) for name in sources], real, None)

    def _add(
        self, node: Node, sources: Sequence[str], weights: Mapping[str, tuple[Array, Quant | None]], code: Quant | None
    ) -> str:
        names = list(sources)
        for name, (value, own) in weights.items():
            shared = len(self._graph.users[name]) > 1
            fresh = self._names.fresh(f"{node.name}.{name}") if shared else name
            names.append(self._builder.constant(fresh, value, own))
        return self._builder.add(node.op, *names, name=node.name, quant=code)

    def _weights(self, node: Node, source: Quant) -> dict[str, tuple[Array, Quant | None]] | None:
        """Weight and bias of a layer in codes; None if the file has none for its weight."""
        _, weight, bias = node.inputs
        value, axis = self._graph.constants[weight], node.op.channel_axis
        if weight in self._coded.constants:
            codes, taps = self._coded.constants[weight]
        elif value.size == value.shape[axis or 0]:  # one weight for each channel: no other code loses less than none
            taps = symmetric(np.abs(value).ravel(), axis=axis)
            codes = taps.encode(value)
        else:
            return None
        if any(taps.zero) or taps.bits > 16:
            raise GraphError(
                f"{node.name}: its weights have {taps.bits} bits and zero {next(filter(None, taps.zero), 0)}; "
                "quantize weights symmetrically, to signed integers"
            )
        if taps.axis not in (None, axis):
            raise GraphError(
                f"{node.name}: its weights have scales along an axis other than the outputs; choose that one"
            )
        sums = bias_code(source, taps)
        return {weight: (codes, taps), bias: (self._bias(bias, source, taps, sums), sums)}

    def _bias(self, name: str, source: Quant, taps: Quant, sums: Quant) -> Array:
        """The bias in the code of the products."""
        real = self._graph.constants[name].astype(np.float64)
        if name in self._coded.constants:
            codes, code = self._coded.constants[name]
            if np.allclose(code.scale, sums.scale, rtol=1e-5, atol=0):
                return codes.astype(sums.dtype)
            real = codes.astype(np.float64) * np.array(code.scale)
        steps = np.rint(real / (source.scale[0] * np.array(taps.scale)))
        return np.clip(steps, -(2**31), 2**31 - 1).astype(sums.dtype)

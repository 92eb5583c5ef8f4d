"""An integer network whose weights are learned: forward exactly the firmware, backward straight through the rounding.

Values travel as centred codes u = code − zero in float32, so that a layer is one convolution of integers: exact while
no sum reaches 2^24, and in float64 where one could. Rescaling is exact too (`rescaled`). Gradients are those of the
real function where a result is not saturated (Bengio et al. 2013, arXiv 1308.3432).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import numpy as np
import torch

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import Op, TensorType, rescaler, scalar
from crosslayer.core.graph.ops import (
    Add,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    MaxPool,
    Mul,
    Pad,
    Requantize,
    Reshape,
    Transpose,
)
from crosslayer.core.graph.ops.products import largest_sum
from crosslayer.core.graph.ops.unary import Unary
from crosslayer.core.quant import Array, Quant, bias_codes, weight_codes
from crosslayer.execute import exact
from crosslayer.execute.reference import encode_input
from crosslayer.execute.torch import Learner, Linear, evaluate, filters, linear, linear_gradients, repeated, to_torch

Tensor = torch.Tensor
Bounds = tuple[int, int]
"""The least and largest centred code of a result."""
FLOAT32, _FLOAT64 = 2.0**24, 2.0**52
"""Below these, integers are exact in float32; in float64 also with a half added."""
_CHUNK = 1 << 18
"""Values rescaled at once: in float64 they stay in the cache."""
LAYERS = (Conv2d, DepthwiseConv2d, Dense)
MOVES = (Concat, MaxPool, Pad, Reshape, Transpose)
"""Operations that only pick values: they do to centred codes what they do to real ones."""
_FIXED = ""
"""The group of the values whose scale is not learned."""


@final
class StraightThrough(Learner):
    """A float network that computes what its quantized form computes, to the bit, and learns.

    The parameters are the weights and biases of the float network and, with `learn_steps`, the scales of weights and
    activations: LSQ (Esser et al. 2020, arXiv 1902.08153) on their logarithms (Jain et al. 2020, arXiv 1903.08066),
    which Adam moves well at the rate of the weights (see `_units`). Scales of inputs and those that an operation fixes
    stay; so do zeros, and powers of two remain such.
    """

    rise: ClassVar[int] = 100  # no normalization makes up for a step that moves all weights alike

    def __init__(self, graph: Graph, integer: Graph, *, learn_steps: bool, power_of_two: bool = False) -> None:
        """Start with the weights of `graph` and the scales of `integer`, its quantized form."""
        super().__init__()
        self.graph = graph
        self._units = _units(graph, integer)
        self.floats = to_torch(
            replace(graph, constants={n: v / self._units.get(n, 1) for n, v in graph.constants.items()})
        )
        self._integer = integer
        self._power_of_two = power_of_two
        self._layers = {node.name: node for node in integer.nodes if isinstance(node.op, LAYERS)}
        self._group = _groups(integer)
        weights = [node.inputs[1] for node in self._layers.values()]
        free = sorted({*weights, *(set(self._group.values()) - {_FIXED})}) if learn_steps else []
        self._steps = {name: f"step{i}" for i, name in enumerate(free)}
        for name, attribute in self._steps.items():
            start = torch.zeros(len(_code(integer.types[name]).scale))
            self.register_parameter(attribute, torch.nn.Parameter(start))

    def forward(self, x: Tensor, upto: str | None = None) -> Tensor:
        """The first output, or the value named `upto`, decoded: what the firmware of `convert()` computes."""
        wanted = upto or self.graph.outputs[0]
        scales = {name: self._scale(name) for name in self._scaled()}
        graph = self._coded(scales)
        source = graph.inputs[0]
        quant = _code(graph.types[source])
        codes = torch.from_numpy(encode_input(graph, x.detach().numpy()).astype(np.float32) - np.float32(quant.zero[0]))
        bounds = quant.lowest - quant.zero[0], quant.highest - quant.zero[0]
        values = {source: cast("Tensor", _Straight.apply(x / scales[source], codes, bounds))}
        for node in graph.nodes:
            if wanted in values:
                break
            operands = [values[n] for n in graph.activations(node)]
            values[node.name] = repeated(self._evaluate(graph, node, operands, scales), len(x))
        return values[wanted] * scales[wanted]

    def convert(self) -> Graph:
        """The integer network of the current weights and scales."""
        return verify(self._coded({name: self._scale(name) for name in self._scaled()}))

    def _scaled(self) -> Sequence[str]:
        """The names of all values and weights, each with a scale of its own."""
        graph = self._integer
        return [*graph.inputs, *(n.name for n in graph.nodes), *(n.inputs[1] for n in self._layers.values())]

    def _scale(self, name: str) -> Tensor:
        """The current scale of a value or weight, float32, one per channel or one."""
        start = torch.tensor(_code(self._integer.types[name]).scale, dtype=torch.float32)
        attribute = self._steps.get(self._group.get(name, name))
        if attribute is None:
            return start
        power = cast("Tensor", getattr(self, attribute))
        if self._power_of_two:
            power = power + (power.round() - power).detach()
        return start * torch.exp2(power)

    def _coded(self, scales: Mapping[str, Tensor]) -> Graph:
        """The integer network with the codes of the current weights."""
        types, constants = dict(self._integer.types), dict(self._integer.constants)
        for name, scale in scales.items():
            if not ((scale > 0) & scale.isfinite()).all():
                raise GraphError(f"{name}: training diverged, its scale is no positive number; lower the rate")
            types[name] = replace(types[name], quant=replace(_code(types[name]), scale=tuple(scale.tolist())))
        for name, node in self._layers.items():
            source, (weight, bias) = _code(types[node.inputs[0]]), node.inputs[1:]
            taps = _code(types[weight])
            real_weight, real_bias = (value.detach().numpy() for value in self._real(name))
            if not (np.isfinite(real_weight).all() and np.isfinite(real_bias).all()):
                raise GraphError(f"{name}: training diverged, its weights are not finite; lower the rate")
            accumulator = replace(_code(types[bias]), scale=tuple(source.scale[0] * s for s in taps.scale))
            types[bias] = replace(types[bias], quant=accumulator)
            constants[weight] = weight_codes(real_weight, taps)
            constants[bias] = bias_codes(real_bias, source, taps).astype(accumulator.dtype)
        return replace(self._integer, types=types, constants=constants)

    def _real(self, layer: str) -> Sequence[Tensor]:
        """A layer's weight and bias."""
        names = self.graph.producers[layer].inputs[1:]
        return [self.floats.constant(n) * torch.from_numpy(self._units[n]) for n in names]

    def _evaluate(self, graph: Graph, node: Node, values: list[Tensor], scales: Mapping[str, Tensor]) -> Tensor:
        """The centred codes of one node's result."""
        op, short = node.op, is_short(graph, node)
        sources, step = [scales[n] for n in graph.activations(node)], scales[node.name]
        if isinstance(op, MOVES):
            return evaluate(node, values)
        if isinstance(op, LAYERS) and short:
            weight, bias = self._learned(graph, node, scales)
            factor = (sources[0] * scales[node.inputs[1]] / step).expand(len(bias))
            taps = filters(op, weight)
            return cast("Tensor", _Layer.apply(values[0], taps, bias, factor, plan_of(graph, node)))
        if isinstance(op, Add) and short:
            codes, bounds = lookup(graph, node)(values), bounds_of(graph, node)
            return cast("Tensor", _Sum.apply(*values, sources[0] / step, sources[1] / step, codes, bounds))
        if isinstance(op, (Mul, Requantize, Unary)) and short:
            codes = lookup(graph, node)(values)
            real = evaluate(node, [u * s for u, s in zip(values, sources, strict=True)]) / step
        elif isinstance(op, GlobalMean) and short:
            total = values[0].sum(dim=(1, 2))
            codes = mean(graph, node, total)
            real = total * (sources[0] / (step * math.prod(values[0].shape[1:3])))
        else:
            codes = executed(graph, node, values)
            decoded = {n: u * s for n, u, s in zip(graph.activations(node), values, sources, strict=True)}
            if isinstance(op, LAYERS):
                weight, bias = self._learned(graph, node, scales)
                taps = scales[node.inputs[1]]
                bias = bias.to(torch.float32)
                decoded |= {node.inputs[1]: weight * _along(taps, weight, op), node.inputs[2]: bias * taps * sources[0]}
            elif op.weights:
                decoded |= {n: torch.from_numpy(_code(graph.types[n]).decode(graph.constants[n])) for n in node.inputs}
            real = evaluate(node, [decoded[n] for n in node.inputs]) / step
        return cast("Tensor", _Straight.apply(real, codes, bounds_of(graph, node)))

    def _learned(self, graph: Graph, node: Node, scales: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The codes of a layer's weight and bias, with gradients for the real ones and for their scales."""
        weight, bias = self._real(node.name)
        kinds = np.float32, np.float64  # a bias may have more than 24 bits
        codes = [torch.from_numpy(graph.constants[n].astype(k)) for n, k in zip(node.inputs[1:], kinds, strict=True)]
        taps, source = scales[node.inputs[1]], scales[node.inputs[0]]
        limit = float(_code(graph.types[node.inputs[1]]).highest)
        return (
            cast("Tensor", _Encode.apply(weight, _along(taps, weight, node.op), codes[0], limit)),
            cast("Tensor", _Encode.apply(bias, (taps * source).expand(len(bias)), codes[1], math.inf)),
        )


class _Encode(torch.autograd.Function):
    """real, step ↦ codes = round(real / step). What is beyond `limit` can only be moved inwards."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, step: Tensor, codes: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(real, step)
        ctx.limit = limit
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        real, step = ctx.saved_tensors
        grad, ratio = grads[0].to(real.dtype), real / step
        inside = ratio.abs() <= ctx.limit
        to_real = grad * (inside | (grad * ratio > 0)) / step
        to_step = -grad * inside * ratio / step
        return to_real, to_step.sum_to_size(step.shape), None, None


class _Straight(torch.autograd.Function):
    """Forward: the codes. Backward: as if they were the real steps, where those lie between the bounds."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, codes: Tensor, bounds: Bounds) -> Tensor:
        ctx.save_for_backward(steps)
        ctx.bounds = bounds
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (steps,) = ctx.saved_tensors
        return _between(grads[0], steps, ctx.bounds), None, None


class _Sum(torch.autograd.Function):
    """Forward: the codes. Backward: as if they were a · p + b · q, where that lies between the bounds."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, p: Tensor, q: Tensor, codes: Tensor, bounds: Bounds) -> Tensor:
        ctx.save_for_backward(a, b, p, q, (a * p).add_(b, alpha=q.item()))
        ctx.bounds = bounds
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        a, b, p, q, steps = ctx.saved_tensors
        grad = _between(grads[0], steps, ctx.bounds)
        to_p, to_q = (grad.flatten().dot(v.flatten()).reshape(1) if ctx.needs_input_grad[2] else None for v in (a, b))
        return grad * p, grad * q, to_p, to_q, None, None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """How a layer computes: its operation, the bounds of its codes, its rescaling, and what no sum can exceed."""

    op: Linear
    bounds: Bounds
    rescale: Rescale
    largest: int


class _Layer(torch.autograd.Function):
    """u, filters w, bias b and a factor m per filter ↦ the codes of (u ∗ w + b) · m; backward as that, not saturated.

    Backward works with the filters w · m: the gradient of m then comes with theirs, since ∂/∂m = Σ w · ∂/∂(w · m).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, taps: Tensor, bias: Tensor, factor: Tensor, plan: Plan) -> Tensor:
        kind = torch.float32 if plan.largest < FLOAT32 else torch.float64
        sums = linear(plan.op, u.to(kind), taps.to(kind), bias.to(kind))
        codes, steps = rescaled(sums.reshape(-1, sums.shape[-1]), plan)
        ctx.save_for_backward(u, taps, bias, factor, steps.reshape(sums.shape))
        ctx.plan = plan
        return codes.reshape(sums.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        u, taps, bias, factor, steps = ctx.saved_tensors
        plan, wide = ctx.plan, factor.reshape(-1, *(1 for _ in taps.shape[1:]))
        grad = _between(grads[0], steps, plan.bounds)
        to_u, to_taps, to_bias = linear_gradients(plan.op, grad, u, taps * wide, needs_x=ctx.needs_input_grad[0])
        to_factor = (taps * to_taps).flatten(1).sum(1) + bias * to_bias
        return to_u, to_taps * wide, to_bias * factor, to_factor, None


def plan_of(graph: Graph, node: Node) -> Plan:
    """The plan of a layer with its current codes."""
    weight, bias = (graph.constants[n] for n in node.inputs[1:])
    return Plan(
        op=cast("Linear", node.op),
        bounds=bounds_of(graph, node),
        rescale=rescaler(graph.lowered[node.name]),
        largest=largest_sum(_code(graph.types[node.inputs[0]]), weight, bias, node.op.channel_axis),
    )


def _between(grad: Tensor, steps: Tensor, bounds: Bounds) -> Tensor:
    """The gradient where `steps` lies between the bounds, 0 elsewhere; a fresh tensor."""
    return torch.ops.aten.hardtanh_backward(grad, steps, *bounds)


def rescaled(sums: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Integer sums (rows, channels) ↦ centred codes, exactly as the layer rounds them, and sums · m.

    `DOUBLE` rounds (sums · mult) / 2^31 to the nearest integer, halves up, and then its n-th part of a power of two,
    halves away from zero: together the nearest integer to y = sums · m if y is first moved 2^-(n+1) away from zero
    (where n is 0, halves up). In float64 that is exact while sums · mult < 2^52, and what is larger must be saturated.
    """
    factor, (low, high) = plan.rescale, plan.bounds
    if factor.rule is Rule.FLOAT:
        steps = sums.to(torch.float32) * torch.from_numpy(factor.factor)
        return steps.round().clamp_(low, high), steps
    scale = factor.mult * np.exp2(factor.shift - 31.0) if factor.rule is Rule.DOUBLE else factor.factor
    steps = sums.to(torch.float32) * torch.from_numpy(scale.astype(np.float32))
    if not _in_float64(factor, max(-low, high), plan.largest):
        whole = factor(sums.numpy().astype(np.int64))
        return torch.from_numpy(np.clip(whole, low, high).astype(np.float32)), steps
    real = torch.from_numpy(scale)
    tie = torch.from_numpy(np.where(factor.shift < 0, np.exp2(factor.shift - 1.0), 0.0))
    codes = torch.empty_like(steps)
    length = max(1, _CHUNK // sums.shape[1])
    for part, result in zip(sums.split(length), codes.split(length), strict=True):
        y = part.to(torch.float64, copy=True).mul_(real)
        y.add_(tie if low >= 0 else torch.copysign(tie, y))  # a clamp at zero hides what becomes of negative values
        result.copy_(y.add_(0.5).floor_())
    return codes.clamp_(low, high), steps


def _in_float64(factor: Rescale, bound: int, largest: int) -> bool:
    """Whether `rescaled` may use float64: no product that does not saturate reaches 2^52, and no left shift wraps."""
    left = np.exp2(np.maximum(factor.shift, 0))
    exact = (largest * left * factor.mult < _FLOAT64) | (np.exp2(21.0 + factor.shift) > bound + 1)
    return factor.rule is Rule.DOUBLE and bool((exact & (largest * left < 2.0**31)).all())


def lookup(graph: Graph, node: Node) -> Callable[[Sequence[Tensor]], Tensor]:
    """Centred codes ↦ those of an operation on one or two values, place by place, from a table of all cases."""
    quants = [_code(graph.types[n]) for n in graph.activations(node)]
    grid = np.meshgrid(*(np.arange(q.lowest, q.highest + 1) for q in quants), indexing="ij")
    cases = node.op.integer(graph.lowered[node.name], *(axis.ravel() for axis in grid))
    table = torch.from_numpy(cases.astype(np.float32) - np.float32(_code(graph.types[node.name]).zero[0]))
    first = 0
    for quant in quants:
        first = (first << quant.bits) + quant.zero[0] - quant.lowest

    def look(values: Sequence[Tensor]) -> Tensor:
        place = values[0].detach()
        for value, quant in zip(values[1:], quants[1:], strict=True):
            place = torch.add(value.detach(), place, alpha=1 << quant.bits)
        return table.index_select(0, (place + first).to(torch.int32).flatten()).reshape(place.shape)

    return look


def mean(graph: Graph, node: Node, total: Tensor) -> Tensor:
    """The centred codes of a mean over height and width, from the sums of centred codes."""
    params, source = graph.lowered[node.name], _code(graph.types[node.inputs[0]])
    # the operation looks at nothing but the sum of each map, so that one pixel may stand for all
    whole = total.detach().numpy().astype(np.int64) + source.zero[0] * scalar(params, "pixels")
    codes = node.op.integer(params, whole[:, None, None])
    return torch.from_numpy(codes.astype(np.float32) - np.float32(_code(graph.types[node.name]).zero[0]))


def executed(graph: Graph, node: Node, values: Sequence[Tensor]) -> Tensor:
    """The centred codes of any operation, by the executor."""
    quants = [_code(graph.types[n]) for n in graph.activations(node)]
    codes = [(u.detach().numpy() + q.zero[0]).astype(q.dtype) for u, q in zip(values, quants, strict=True)]
    found = exact.evaluate(graph, node, codes).astype(np.float32)
    return torch.from_numpy(found - np.float32(_code(graph.types[node.name]).zero[0]))


def bounds_of(graph: Graph, node: Node) -> Bounds:
    """The least and largest centred code that a node makes."""
    quant, params = _code(graph.types[node.name]), graph.lowered[node.name]
    low, high = (scalar(params, n) if n in params else q for n, q in (("low", quant.lowest), ("high", quant.highest)))
    return low - quant.zero[0], high - quant.zero[0]


def is_short(graph: Graph, node: Node) -> bool:
    """Whether a node reads and makes codes of at most 8 bits."""
    return all(_code(graph.types[n]).bits <= 8 for n in (*node.inputs, node.name) if n not in node.inputs[2:])


def _along(scale: Tensor, weight: Tensor, op: Op) -> Tensor:
    """The scales of a weight, shaped to broadcast over it."""
    shape = [1] * weight.dim()
    assert op.channel_axis is not None
    shape[op.channel_axis] = -1
    return scale.reshape(shape)


def _code(kind: TensorType) -> Quant:
    assert kind.quant is not None
    return kind.quant


def _units(graph: Graph, integer: Graph) -> Mapping[str, Array]:
    """For each weight and bias the power of two in which it is learned, per channel.

    Folding leaves channels of very different size, and Adam moves all values alike. In its unit a weight is as large as
    a fresh one (He et al. 2015: root mean square √(2 / fan in)), and a bias as one after a normalization, where the
    largest result lies about four standard deviations away: so the rates are those of the network before folding.
    """
    units: dict[str, Array] = {}
    for node in graph.nodes:
        axis = node.op.channel_axis
        if axis is not None:
            weight, bias = (graph.constants[n] for n in node.inputs[1:])
            others = tuple(i for i in range(weight.ndim) if i != axis)
            fresh = math.sqrt(2 * len(bias) / weight.size)
            quant = _code(integer.types[node.name])
            farthest = quant.scale[0] * max(quant.highest - quant.zero[0], quant.zero[0] - quant.lowest)
            sizes = np.sqrt(np.mean(weight**2, axis=others, keepdims=True)) / fresh, np.full(1, farthest / 4)
            for name, size in zip(node.inputs[1:], sizes, strict=True):
                units[name] = np.exp2(np.rint(np.log2(np.where(size > 0, size, 1.0)))).astype(np.float32)
    return units


def _groups(graph: Graph) -> Mapping[str, str]:
    """For each value the one whose scale it has: operations that keep their number code tie their operands and result.

    Values whose scale is not to be learned have the group `_FIXED`: inputs, constants, and what an operation fixes.
    """
    group: dict[str, str] = dict.fromkeys(graph.inputs, _FIXED)
    for node in graph.nodes:
        names = graph.activations(node)
        probes = [replace(_code(graph.types[n]), scale=(2 * _code(graph.types[n]).scale[0],)) for n in names]
        forced = node.op.code(probes, [graph.types[n].shape for n in node.inputs])
        group[node.name] = node.name
        if names and forced is not None and forced == probes[0]:
            joined = {group[n] for n in (*names, node.name)}
            leader = _FIXED if _FIXED in joined else min(joined)
            group = {name: leader if old in joined else old for name, old in group.items()}
        elif forced is not None or not names:
            group[node.name] = _FIXED
    return group

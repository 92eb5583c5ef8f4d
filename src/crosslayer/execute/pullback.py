"""Logits and their slopes along the inputs, for attacks: forward exactly what ships, backward by a surrogate.

Integer networks run as in training (`straight.py`): as centred codes, to the bit. Their weights do not change, so they
are prepared once and have no gradients.
"""

from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, cast, final

import numpy as np
import torch

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.edit import up_to
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import TensorType
from crosslayer.core.graph.ops import Activation, Add, Dequantize, GlobalMean, Mul, Quantize, Requantize
from crosslayer.core.graph.ops.unary import Unary
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array, Quant
from crosslayer.execute.straight import (
    FLOAT32,
    LAYERS,
    MOVES,
    bounds_of,
    executed,
    is_short,
    lookup,
    mean,
    plan_of,
    rescaled,
)
from crosslayer.execute.surrogate import Pullback, Surrogate
from crosslayer.execute.torch import NAMESPACE, evaluate, filters, linear, repeated

Tensor = torch.Tensor
Step = Callable[[Sequence[Tensor], float], Tensor]
"""(a node's activations, leak) -> its result: centred codes, or real values where a value has no code."""
_BATCH = 128


@final
class Linearized:
    """A classifier up to its logits, with slopes along its inputs. Sources: see `Surrogate`.

    The graph may be a float one, equal to PyTorch's result, or an integer one, equal to every executor to the bit.
    """

    def __init__(self, graph: Graph, check: Callable[[Array], Array] | None = None) -> None:
        """Prepare the weights. The first batch is compared with what `check` says its logits are, if that is given."""
        self._graph = up_to(graph, logits_of(graph))
        self._steps = {node.name: _step(self._graph, node) for node in self._graph.nodes}
        self._check = check

    def __call__(self, x: Array, surrogate: Surrogate = Surrogate.GATED) -> tuple[Array, Pullback]:
        """Logits (batch, classes) as real values, float32, and what turns slopes along them into slopes along x.

        x (batch, …) are real inputs. Raises `GraphError` if the logits are not those that `check` gives.
        """
        parts = [self._forward(x[i : i + _BATCH], surrogate.leak) for i in range(0, max(1, len(x)), _BATCH)]
        logits = np.concatenate([y.detach().numpy() for _, y in parts])
        if self._check is not None:
            wrong = int((self._check(x) != logits).any(1).sum())
            if wrong:
                raise GraphError(
                    f"gradients would belong to other logits than the executor's, in {wrong} of {len(x)} samples; "
                    "attack what the exact executor computes, or give the victim a backward pass of its own"
                )
            self._check = None

        def pullback(slopes: Array) -> Array:
            rows = torch.from_numpy(slopes.astype(np.float32)).split([len(leaf) for leaf, _ in parts])
            return np.concatenate([_back(*part, row) for part, row in zip(parts, rows, strict=True)])

        return logits, pullback

    def _forward(self, x: Array, leak: float) -> tuple[Tensor, Tensor]:
        """The inputs as a leaf of PyTorch's graph, and the decoded logits."""
        graph, source = self._graph, self._graph.inputs[0]
        leaf = torch.from_numpy(x.astype(np.float32)).requires_grad_()
        quant = graph.types[source].quant
        values = {source: leaf if quant is None else _encoded(leaf, quant, leak)}
        for node in graph.nodes:
            result = self._steps[node.name]([values[n] for n in graph.activations(node)], leak)
            values[node.name] = repeated(result, len(x))
        logits = graph.outputs[0]
        return leaf, (values[logits] * _scale(graph.types[logits])).flatten(1).float()  # bfloat16 is not NumPy's


def _back(x: Tensor, logits: Tensor, slopes: Tensor) -> Array:
    if not logits.requires_grad:
        return np.zeros(tuple(x.shape), np.float32)
    # kept, for an attack may ask for the slopes of several classes
    (found,) = torch.autograd.grad(logits, x, slopes, retain_graph=True, allow_unused=True, materialize_grads=True)
    return found.numpy()


class _Coded(torch.autograd.Function):
    """value, steps ↦ codes. Backward: factor · slope; times `leak` where the steps do not lie between the bounds."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        codes: Tensor,
        steps: Tensor,
        factor: Tensor | float,
        bounds: tuple[float, float],
        leak: float,
    ) -> Tensor:
        ctx.save_for_backward(steps)
        ctx.factor, ctx.bounds, ctx.leak, ctx.kind = factor, bounds, leak, value.dtype
        return codes

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (steps,) = ctx.saved_tensors
        grad = _gated(grads[0], steps, ctx.bounds, ctx.leak) * ctx.factor
        return grad.to(ctx.kind), None, None, None, None, None


class _Clip(torch.autograd.Function):
    """Clipped values. Backward: the slope, times `leak` where something is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bounds: tuple[float, float], leak: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds, ctx.leak = bounds, leak
        return x.clamp(*bounds)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return _gated(grads[0], x, ctx.bounds, ctx.leak), None, None


def _gated(grad: Tensor, steps: Tensor, bounds: tuple[float, float], leak: float) -> Tensor:
    if leak == 1:
        return grad
    inside = torch.ops.aten.hardtanh_backward(grad, steps, *bounds)
    return inside if leak == 0 else torch.lerp(inside, grad, leak)


@cache
def _namespace(leak: float) -> SimpleNamespace:
    """What `Op.real` uses, with a clip that leaks."""

    def clip(x: Tensor, low: float, high: float | None) -> Tensor:
        return cast("Tensor", _Clip.apply(x, (low, np.inf if high is None else high), leak))

    return SimpleNamespace(**{**vars(NAMESPACE), "clip": clip})


def _encoded(x: Tensor, quant: Quant, leak: float) -> Tensor:
    """The centred codes of real values."""
    codes = quant.encode(x.detach().numpy()).astype(np.float32) - np.float32(quant.zero[0])
    steps = x.detach() / quant.scale[0]
    bounds = _room((quant.lowest - quant.zero[0], quant.highest - quant.zero[0]))
    return cast("Tensor", _Coded.apply(x, torch.from_numpy(codes), steps, 1 / quant.scale[0], bounds, leak))


def _step(graph: Graph, node: Node) -> Step:
    """How a node is computed, with all that depends on constants done."""
    if not graph.integral(node):
        return _float(graph, node)
    match node.op:
        case op if isinstance(op, MOVES):
            return lambda values, leak: evaluate(node, list(values))
        case op if isinstance(op, LAYERS):
            return _layer(graph, node)
        case Quantize():
            quant = _code(graph.types[node.name])
            return lambda values, leak: _encoded(values[0], quant, leak)
        case Dequantize():
            scale = _scale(graph.types[node.inputs[0]])
            return lambda values, leak: values[0] * scale
        case _:
            return _other(graph, node)


def _float(graph: Graph, node: Node) -> Step:
    constants = {n: torch.from_numpy(graph.constants[n].copy()) for n in node.inputs if n in graph.constants}

    def step(values: Sequence[Tensor], leak: float) -> Tensor:
        rest = iter(values)
        return evaluate(node, [constants[n] if n in constants else next(rest) for n in node.inputs], _namespace(leak))

    return step


def _layer(graph: Graph, node: Node) -> Step:
    """Exact sums of products in float32, or float64 where they may be large; rescaled as the firmware does."""
    plan = plan_of(graph, node)
    kind = torch.float32 if plan.largest < FLOAT32 else torch.float64
    weight, bias = (torch.from_numpy(graph.constants[n].astype(np.float64)).to(kind) for n in node.inputs[1:])
    taps = filters(plan.op, weight)
    source, step_size = _scale(graph.types[node.inputs[0]]), _scale(graph.types[node.name])
    scales = np.array(_code(graph.types[node.inputs[1]]).scale) * (source / step_size)
    factor = torch.from_numpy(scales.astype(np.float32))
    low, high = _room(plan.bounds)
    bounds = (low if plan.op.activation is Activation.NONE else plan.bounds[0]), high

    def step(values: Sequence[Tensor], leak: float) -> Tensor:
        sums = linear(plan.op, values[0].to(kind), taps, bias)
        codes, steps = (part.reshape(sums.shape) for part in rescaled(sums.detach().reshape(-1, len(bias)), plan))
        return cast("Tensor", _Coded.apply(sums, codes, steps, factor, bounds, leak))

    return step


def _other(graph: Graph, node: Node) -> Step:
    """Codes by a table or by the executor, slopes by what the operation means on real values."""
    names = graph.activations(node)
    scales, size = [_scale(graph.types[n]) for n in names], _scale(graph.types[node.name])
    bounds = _room(bounds_of(graph, node))  # the function has its own clamps
    constants = [
        torch.from_numpy(_code(graph.types[n]).decode(graph.constants[n])) for n in node.inputs if n not in names
    ]
    codes_of = _codes(graph, node)

    def step(values: Sequence[Tensor], leak: float) -> Tensor:
        decoded = [u * s for u, s in zip(values, scales, strict=True)]
        real = evaluate(node, [*decoded, *constants], _namespace(leak)) / size
        return cast("Tensor", _Coded.apply(real, codes_of(values), real.detach(), 1.0, bounds, leak))

    return step


def _codes(graph: Graph, node: Node) -> Callable[[Sequence[Tensor]], Tensor]:
    """The centred codes of a node that is no layer."""
    short = is_short(graph, node)
    if short and isinstance(node.op, (Add, Mul, Requantize, Unary)):
        return lookup(graph, node)
    if short and isinstance(node.op, GlobalMean):
        return lambda values: mean(graph, node, values[0].sum(dim=(1, 2)))
    return lambda values: executed(graph, node, values)


def _room(bounds: tuple[int, int]) -> tuple[float, float]:
    """What is rounded to a code between the bounds, and not saturated."""
    return bounds[0] - 0.5, bounds[1] + 0.5


def _scale(kind: TensorType) -> float:
    """The size of a step of a value, 1 where it has no code."""
    return 1.0 if kind.quant is None else kind.quant.scale[0]


def _code(kind: TensorType) -> Quant:
    assert kind.quant is not None
    return kind.quant

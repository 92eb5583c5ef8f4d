"""Slopes of the loss along the weights of an integer network: where a flipped bit does most harm."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import scalar
from crosslayer.core.graph.ops import Concat, MaxPool, Pad, Reshape, Transpose
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.quant import Array, Quant
from crosslayer.execute import exact
from crosslayer.execute.torch import evaluate

Tensor = torch.Tensor
_MOVES = (Concat, MaxPool, Pad, Reshape, Transpose)
"""Operations that only pick values: they saturate none."""


def weight_slopes(graph: Graph, x: Array, labels: Array, *, leak: float = 0.0) -> Mapping[str, Array]:
    """By weight and bias of each layer: the slope of the mean cross-entropy along its codes, float32, of its shape.

    x (batch, …) are real values or codes, labels (batch,) int64. Every value is the integer network's own, to the bit;
    the backward pass is that of the real function, straight through rounding (Bengio et al. 2013, arXiv 1308.3432), and
    the share `leak` of it where a code is saturated. Raises `GraphError` for a float network.
    """
    if not graph.is_integer:
        raise GraphError("slopes along codes need an integer network; quantize it first")
    with torch.no_grad():
        known = {name: torch.from_numpy(_real(graph, name, value)) for name, value in exact.trace(graph, x).items()}
    leaves: dict[str, Tensor] = {}
    values = {graph.inputs[0]: known[graph.inputs[0]]}
    logits = logits_of(graph)
    for node in graph.nodes:
        for name in node.inputs:
            if name in graph.constants and name not in leaves:
                leaves[name] = torch.from_numpy(_real(graph, name, graph.constants[name])).requires_grad_()
        real = evaluate(node, [values[n] if n in values else leaves[n] for n in node.inputs])
        if not isinstance(node.op, _MOVES):
            real = cast("Tensor", _Straight.apply(real, known[node.name], *_bounds(graph, node), leak))
        values[node.name] = real
        if node.name == logits:
            break
    loss = F.cross_entropy(values[logits].flatten(1), torch.from_numpy(labels))
    wanted = {n: leaves[n] for node in graph.nodes if node.op.channel_axis is not None for n in node.inputs[1:]}
    slopes = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    return {name: slope.numpy() * _steps(graph, name) for name, slope in zip(wanted, slopes, strict=True)}


class _Straight(torch.autograd.Function):
    """Forward: the integer network's value. Backward: as if it were the real one, leaking where that is saturated."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, value: Tensor, low: float, high: float, leak: float) -> Tensor:
        ctx.save_for_backward(real)
        ctx.rest = low, high, leak
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (real,) = ctx.saved_tensors
        low, high, leak = ctx.rest
        inside = (real > low) & (real < high)
        return torch.where(inside, grads[0], leak * grads[0]), None, None, None, None


def _code(graph: Graph, name: str) -> Quant | None:
    return graph.types[name].quant


def _real(graph: Graph, name: str, value: Array) -> Array:
    """A value as real numbers, float32."""
    quant = _code(graph, name)
    return np.array(value, np.float32) if quant is None else quant.decode(value)


def _steps(graph: Graph, name: str) -> Array:
    """The real size of one code of a constant, shaped to broadcast over it."""
    quant = _code(graph, name)
    assert quant is not None
    shape = [1] * len(graph.types[name].shape)
    if quant.axis is not None:
        shape[quant.axis] = -1
    return np.reshape(np.array(quant.scale, np.float32), shape)


def _bounds(graph: Graph, node: Node) -> tuple[float, float]:
    """The least and largest real value that a node can make."""
    quant, params = _code(graph, node.name), graph.lowered.get(node.name, {})
    if quant is None:
        return -np.inf, np.inf
    low, high = (scalar(params, n) if n in params else q for n, q in (("low", quant.lowest), ("high", quant.highest)))
    return quant.scale[0] * (low - quant.zero[0]), quant.scale[0] * (high - quant.zero[0])

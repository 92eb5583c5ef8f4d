"""Interval bounds by PyTorch: the loss of certified training, with gradients for the weights."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.dataset import Split
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Node
from crosslayer.core.graph.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Clamp,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Dequantize,
    GlobalMean,
    HardSigmoid,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Relu,
    Relu6,
    Requantize,
    Reshape,
    Sigmoid,
    Tanh,
    Transpose,
)
from crosslayer.core.graph.outputs import logits_of
from crosslayer.execute.torch import GraphModule, Tensor, evaluate, filters, linear, repeated
from crosslayer.execute.torch_robust import BATCH, Reach, check_classifier
from crosslayer.execute.torch_training import Loss

Ends = tuple[Tensor, Tensor]
"""The least and the largest value of each place."""
_LAYERS = (Conv2d, DepthwiseConv2d, Dense)
_MOVES = (Concat, Constant, Dequantize, MaxPool, Pad, Quantize, Requantize, Reshape, Transpose)
_RISING = (*_MOVES, Add, AveragePool, Clamp, GlobalMean, Relu, Relu6, Sigmoid, Tanh)
"""Operations whose result never falls when an operand rises; so are two more, if their slope does not fall."""


def certified_loss(module: GraphModule, reach: Reach, *, kappa: float, warm: float, ramp: float) -> Loss:
    """kappa · loss of clean samples + (1 − kappa) · loss of the worst logits that interval bounds allow.

    During the first share `warm` of training only clean samples count; over the share `ramp` after it epsilon grows
    from 0 and the weight of clean samples falls from 1 to `kappa` (Gowal et al. 2018, arXiv 1810.12715). The logits'
    own bounds are compared, as a certificate on integer logits does: the last layer is not merged with the comparison.
    """
    check_classifier(module.graph)
    logits = logits_of(module.graph)

    def loss(x: Tensor, y: Tensor, done: float, rng: np.random.Generator) -> Tensor:
        share = min(1.0, max(0.0, done - warm) / ramp) if ramp else float(done >= warm)
        clean = F.cross_entropy(module(x, upto=logits), y)
        if share == 0:
            return clean
        weight = 1 - (1 - kappa) * share
        low, high = (torch.from_numpy(end) for end in reach.ends(x.numpy(), share))
        worst = F.cross_entropy(_worst(interval(module, low, high), y), y)
        return weight * clean + (1 - weight) * worst

    return loss


def certified_accuracy(module: GraphModule, split: Split, reach: Reach) -> float:
    """The share of samples whose label's lowest logit lies above the highest of every other."""
    hits = 0
    with torch.no_grad():
        for start in range(0, len(split), BATCH):
            part = split.take(slice(start, start + BATCH))
            low, high = (torch.from_numpy(end) for end in reach.ends(part.real()))
            labels = torch.from_numpy(part.labels)
            hits += int((_worst(interval(module, low, high), labels).argmax(1) == labels).sum())
    return hits / len(split)


def interval(module: GraphModule, low: Tensor, high: Tensor) -> Ends:
    """Bounds of the logits for all inputs between two, by interval bound propagation, with gradients for the weights.

    Raises `GraphError` naming the first node whose operation has no rule.
    """
    graph, wanted = module.graph, logits_of(module.graph)
    values = {graph.inputs[0]: (low, high)}
    for node in graph.nodes:
        if wanted in values:
            break
        operands = [values[n] if n in values else (module.constant(n), module.constant(n)) for n in node.inputs]
        below, above = _bounded(node, operands)
        values[node.name] = repeated(below, len(low)), repeated(above, len(low))
    return values[wanted]


def _bounded(node: Node, operands: list[Ends]) -> Ends:
    """The bounds of one node's result."""
    op, (low, high) = node.op, operands[0]
    if isinstance(op, _LAYERS):
        taps, bias = filters(op, operands[1][0]), operands[2][0]
        middle = linear(op, (low + high) / 2, taps, bias)
        reach = linear(op, (high - low) / 2, taps.abs(), torch.zeros_like(bias))
        return op.activation.real(torch, middle - reach), op.activation.real(torch, middle + reach)
    if isinstance(op, _RISING) or (isinstance(op, (HardSigmoid, LeakyRelu)) and op.slope >= 0):
        return evaluate(node, [o[0] for o in operands]), evaluate(node, [o[1] for o in operands])
    if isinstance(op, Mul):
        corners = torch.stack([a * b for a in operands[0] for b in operands[1]])
        return op.activation.real(torch, corners.amin(0)), op.activation.real(torch, corners.amax(0))
    advice = "put fold-norms before" if isinstance(op, BatchNorm) else "choose a network without it"
    raise GraphError(f"{node.name} ({type(op).__name__}): has no rule for interval bounds; {advice}")


def _worst(bounds: Ends, labels: Tensor) -> Tensor:
    """The lowest logit of each sample's label with the highest of all others."""
    low, high = bounds
    own = labels[:, None]
    return high.scatter(1, own, low.gather(1, own))

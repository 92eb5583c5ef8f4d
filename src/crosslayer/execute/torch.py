"""The bridge to PyTorch: a graph as a module and back, its loss and gradients."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, cast, final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import AveragePool, BatchNorm, Conv2d, Dense, DepthwiseConv2d, MaxPool, Pad
from crosslayer.core.graph.ops.windows import Windows
from crosslayer.core.graph.outputs import logits_of, reconstructs
from crosslayer.core.quant import Array
from crosslayer.execute.reference import encode_input

Tensor = torch.Tensor
_MOMENTUM = 0.1  # of running statistics: PyTorch's default
NAMESPACE = SimpleNamespace(
    clip=torch.clip,
    where=torch.where,
    exp=torch.exp,
    tanh=torch.tanh,
    sqrt=torch.sqrt,
    amax=torch.amax,
    concatenate=torch.concatenate,
    maximum=torch.maximum,
    minimum=torch.minimum,
    permute_dims=torch.permute,
)
"""The functions that `Op.real` may use, which PyTorch offers under NumPy's names."""


class Learner(torch.nn.Module, ABC):
    """A module that can be trained: it computes the values of `graph`, by the same names.

    `rise` is in how many steps the rate rises to its full value: some networks do not survive Adam's first steps, which
    move all weights by the whole rate.
    """

    graph: Graph
    rise: ClassVar[int] = 0

    @abstractmethod
    def forward(self, x: Tensor, upto: str | None = None) -> Tensor:
        """The first output, or the value named `upto`, as real values."""


@final
class GraphModule(Learner):
    """A float graph as a module. Inputs and outputs are (batch, height, width, channels) or (batch, features).

    Constants are parameters, except running statistics, which are buffers. In training mode batch normalization uses
    and updates batch statistics, as `torch.nn.BatchNorm2d` does.
    """

    def __init__(self, graph: Graph) -> None:
        """Take the weights of `graph`."""
        super().__init__()
        self.graph = graph
        # by name, not by place: a graph read from a file holds its constants in another order than the one written
        self._names = {name: f"c{i}" for i, name in enumerate(sorted(graph.constants))}
        statistics = {n for node in graph.nodes if isinstance(node.op, BatchNorm) for n in node.inputs[3:]}
        for name in self._names:
            tensor = torch.from_numpy(graph.constants[name].copy())
            if name in statistics or not tensor.is_floating_point():
                self.register_buffer(self._names[name], tensor)
            else:
                self.register_parameter(self._names[name], torch.nn.Parameter(tensor))

    def constant(self, name: str) -> Tensor:
        """The current value of a constant of the graph."""
        return cast("Tensor", getattr(self, self._names[name]))

    def forward(self, x: Tensor, upto: str | None = None, reads: dict[str, Tensor] | None = None) -> Tensor:
        """The first output, or the value named `upto`. For each node that is a key of `reads`, what it reads first is
        put there, apart from what others read of the same value."""
        wanted = upto or self.graph.outputs[0]
        values = {self.graph.inputs[0]: x}
        for node in self.graph.nodes:
            if wanted in values:
                break
            operands = [values[n] if n in values else self.constant(n) for n in node.inputs]
            if reads is not None and node.name in reads:
                operands[0] = reads[node.name] = operands[0].view_as(operands[0])
            values[node.name] = repeated(self._evaluate(node, operands), len(x))
        return values[wanted]

    def _evaluate(self, node: Node, operands: list[Tensor]) -> Tensor:
        if isinstance(node.op, BatchNorm) and self.training:
            return _normalize(node.op, *operands)
        return evaluate(node, operands)


def to_torch(graph: Graph) -> GraphModule:
    """The graph as a module."""
    return GraphModule(graph)


def from_torch(module: GraphModule) -> Graph:
    """The module's graph with its current weights; `from_torch(to_torch(g)) == g`."""
    constants = {name: module.constant(name).detach().numpy().copy() for name in module.graph.constants}
    return replace(module.graph, constants=constants)


def run(graph: Graph, x: Array) -> Array:
    """As `reference.run` for a float graph, by PyTorch (equal up to float rounding)."""
    module = to_torch(graph).eval()
    with torch.no_grad():
        parts = [module(torch.from_numpy(encode_input(graph, x[i : i + 256]))) for i in range(0, len(x), 256)]
    return torch.cat(parts).detach().numpy()  # a view of a parameter asks for gradients even here


def evaluate(node: Node, operands: list[Tensor], xp: Any = NAMESPACE) -> Tensor:
    """One node's result on float values, a batch of one where it has no activations; `xp` holds what `Op.real` uses."""
    op = node.op
    match op:
        case Conv2d() | DepthwiseConv2d() | Dense():
            x, weight, bias = operands
            return op.activation.real(xp, linear(op, x, filters(op, weight), bias))
        case MaxPool():
            x = _padded(op.windows, operands[0], -math.inf)
            y = F.max_pool2d(x, op.windows.kernel, op.windows.stride, 0, op.windows.dilation)
            return y.permute(0, 2, 3, 1)
        case AveragePool():
            return _average(op.windows, operands[0])
        case Pad():
            top, bottom, left, right = op.margins
            return F.pad(operands[0], (0, 0, left, right, top, bottom))
        case _:
            return op.real(xp, *operands)


Linear = Conv2d | DepthwiseConv2d | Dense


def filters(op: Linear, weight: Tensor) -> Tensor:
    """A layer's weight as PyTorch orders it: (out, in / groups, kernel_h, kernel_w) or (out, in)."""
    match op:
        case Conv2d():
            return weight.permute(0, 3, 1, 2)
        case DepthwiseConv2d():
            return weight.permute(2, 0, 1).unsqueeze(1)
        case Dense():
            return weight


def linear(op: Linear, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """A layer without its activation; `taps` are its `filters`."""
    if isinstance(op, Dense):
        return F.linear(x, taps, bias)
    if isinstance(op, Conv2d) and torch.is_autocast_enabled("cpu") and _is_small(op, x):
        return _multiply(op.windows, x, taps, bias)
    return _convolve(op.windows, _padded(op.windows, x, 0.0), taps, bias, _sharing(op, x)).permute(0, 2, 3, 1)


def _is_small(op: Conv2d, x: Tensor) -> bool:
    """Whether the image has few pixels and many channels: PyTorch's slope for the weight of such a convolution takes
    several times as long in bfloat16 as the same product of matrices."""
    return op.groups == 1 and x.shape[1] * x.shape[2] <= 16 and x.shape[3] >= 128


def _multiply(windows: Windows, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """A convolution as a product of matrices: each window is a row."""
    x = _padded(windows, x, 0.0).permute(0, 2, 3, 1)
    rows, columns = (
        [range(k * d, k * d + (n - (size - 1) * d - 1) // s * s + 1, s) for k in range(size)]
        for n, size, s, d in zip(x.shape[1:3], windows.kernel, windows.stride, windows.dilation, strict=True)
    )
    parts = [x[:, r.start : r.stop : r.step, c.start : c.stop : c.step] for r in rows for c in columns]
    return F.linear(torch.cat(parts, -1), taps.permute(0, 2, 3, 1).flatten(1), bias)


def linear_gradients(
    op: Linear, grad: Tensor, x: Tensor, taps: Tensor, *, needs_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of `linear` for x (if needed), taps and bias, from that for its result."""
    if isinstance(op, Dense):
        return grad @ taps if needs_x else None, grad.T @ x, grad.sum(0)
    w = op.windows
    operands = _fresh(w, _padded(w, x, 0.0), grad.permute(0, 3, 1, 2), taps)
    to_x, to_taps, to_bias = torch.ops.aten.convolution_backward(
        operands[1],
        operands[0],
        operands[2],
        [len(taps)],
        w.stride,
        [0, 0],
        w.dilation,
        False,  # not transposed
        [0, 0],
        _sharing(op, x),
        [needs_x, True, True],
    )
    if to_x is not None:
        top, _, left, _ = w.padding
        to_x = to_x[:, :, top : top + x.shape[1], left : left + x.shape[2]].permute(0, 2, 3, 1)
    return to_x, to_taps, to_bias


def _sharing(op: Conv2d | DepthwiseConv2d, x: Tensor) -> int:
    """The groups of a convolution."""
    return op.groups if isinstance(op, Conv2d) else x.shape[3]


def repeated(value: Tensor, batch: int) -> Tensor:
    """A result for each sample: a node without activations makes one."""
    return value if len(value) == batch else value.expand(batch, *value.shape[1:])


def _padded(windows: Windows, x: Tensor, fill: float) -> Tensor:
    """Channels first, with the windows' padding."""
    x = x.permute(0, 3, 1, 2)
    top, bottom, left, right = windows.padding
    return F.pad(x, (left, right, top, bottom), value=fill) if any(windows.padding) else x


def _convolve(windows: Windows, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """The convolution of `x`, which has its padding already, channels first."""
    x, weight = _fresh(windows, x, weight)
    return F.conv2d(x, weight, bias, windows.stride, 0, windows.dilation, groups)


def _fresh(windows: Windows, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """The operands of a convolution of x, in memory as PyTorch takes them to be.

    Strides of a single channel fit both memory layouts; where the result is one pixel wide PyTorch 2.13 then reads
    beyond its operands (as in pytorch/pytorch#82060). With channels last its threads race for the gradient of a strided
    1×1 weight of few channels, and it comes out wrong. Both get fresh tensors.
    """
    if x.shape[1] > 1 and (windows.kernel != (1, 1) or windows.stride == (1, 1)):
        return x, *others
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in (x, *others))


def _average(windows: Windows, x: Tensor) -> Tensor:
    counts = torch.from_numpy(windows.counts(tuple(x.shape[1:])).astype(np.float32))
    kernel = torch.ones(x.shape[3], 1, *windows.kernel)
    total = _convolve(windows, _padded(windows, x, 0.0), kernel, None, x.shape[3])
    return (total / counts).permute(0, 2, 3, 1)


def _normalize(op: BatchNorm, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    y = F.batch_norm(x.movedim(-1, 1), mean, variance, gamma, beta, True, _MOMENTUM, op.epsilon)
    return y.movedim(1, -1)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gradients:
    """Slopes of the loss: by constant that of the batch's mean loss; by node what it reads first (batch, …) and, there,
    the slope of each sample's own loss. Nodes that the loss does not need are left out."""

    constants: Mapping[str, Array]
    reads: Mapping[str, tuple[Array, Array]]


def gradients(
    graph: Graph, x: Array, labels: Array, *, constants: Collection[str] = (), reads: Collection[str] = ()
) -> Gradients:
    """The slopes of the loss that `train` minimizes, for a batch, with running statistics as they are.

    `constants` names constants of the float graph; `reads` names nodes whose first operand is an activation.
    """
    module = to_torch(graph).eval()
    found: dict[str, Tensor] = dict.fromkeys(reads, torch.empty(0))
    inputs = torch.from_numpy(encode_input(graph, x)).requires_grad_()
    loss = loss_of(graph, partial(module, reads=found))(inputs, torch.from_numpy(labels))
    weights = {name: module.constant(name) for name in constants}
    needed = {name: value for name, value in found.items() if value.requires_grad}
    wanted = [*weights.values(), *needed.values()]
    slopes = iter(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True) if wanted else ())
    return Gradients(
        constants={name: next(slopes).numpy() for name in weights},
        reads={name: (value.detach().numpy(), next(slopes).numpy() * len(x)) for name, value in needed.items()},
    )


def loss_of(graph: Graph, forward: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean loss of a batch and its labels; `forward` is that of a `Learner` of the graph."""
    if reconstructs(graph):
        return lambda x, y: F.mse_loss(forward(x).flatten(1), x.flatten(1))
    logits = logits_of(graph)
    return lambda x, y: F.cross_entropy(forward(x, upto=logits), y)

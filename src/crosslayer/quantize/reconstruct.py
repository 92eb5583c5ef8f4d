"""Making up for rounding, layer by layer: corrected biases and learned rounding. No labels, no training."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast, final

import numpy as np
import threadpoolctl

from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Activation, Conv2d, Dense, DepthwiseConv2d
from crosslayer.core.quant import Array, Quant, bias_codes
from crosslayer.execute import exact
from crosslayer.execute.reference import encode_input, repeated

_LAYERS = (Conv2d, DepthwiseConv2d, Dense)
_STRETCH = 1.1, -0.1
"""ζ and γ of the rectified sigmoid (Louizos et al. 2018, arXiv 1712.01312), as in AdaRound, eq. 23."""
_ROWS, _BATCH, _STEPS = 8192, 256, 500
_RATE, _PRESSURE = 2e-2, 1.0
"""Step of Adam, and the weight of the push towards 0 or 1 against the error, which is 1 for rounding to nearest."""
_SHARPNESS = 20.0, 2.0
"""β at the start, where only weights near 0 or 1 are pushed, and at the end (AdaRound, section 3.2 and its code)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One layer of a quantized network with its float twin, on the same samples.

    `inputs` (count, …) are what reaches the float layer, `coded` what reaches the integer layer, decoded.
    """

    op: Conv2d | DepthwiseConv2d | Dense
    weight: Array
    bias: Array
    taps: Quant
    source: Quant
    codes: Array
    inputs: Array
    coded: Array


def correct_biases(graph: Graph, integer: Graph, x: Array) -> Graph:
    """The integer network whose layers have, before their activations, the means of their float twins on x.

    Empirical bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2): rounding the weights shifts the mean
    of each channel, and the bias can take that back.
    """

    def correct(layer: Layer) -> tuple[Array, Array]:
        linear, none = replace(layer.op, activation=Activation.NONE), np.zeros_like(layer.bias)
        # a layer without activation is linear: the mean of its results is its result for the mean
        means = [
            linear.real(np, value.mean(axis=0, keepdims=True), weight, none).reshape(-1, len(layer.bias)).mean(axis=0)
            for value, weight in ((layer.inputs, layer.weight), (layer.coded, layer.taps.decode(layer.codes)))
        ]
        return layer.codes, bias_codes(layer.bias + means[0] - means[1], layer.source, layer.taps)

    return _reconstructed(graph, integer, x, correct)


def learn_rounding(graph: Graph, integer: Graph, x: Array, rng: np.random.Generator) -> Graph:
    """The integer network with weights rounded up or down so that each layer's result on x is nearest the float one.

    AdaRound (Nagel et al. 2020, arXiv 2004.10568), with the inputs that the quantized network has. Scales stay. A layer
    for which nothing better than rounding to nearest is found keeps that; so does one of 1 bit.
    """

    def learn(layer: Layer) -> tuple[Array, Array]:
        codes = layer.codes if layer.taps.bits == 1 else _rounded(layer, rng)
        return codes, bias_codes(layer.bias, layer.source, layer.taps)

    with threadpoolctl.threadpool_limits(1, "blas"):  # many small products; and sums in one order
        return _reconstructed(graph, integer, x, learn)


def _reconstructed(graph: Graph, integer: Graph, x: Array, improve: Callable[[Layer], tuple[Array, Array]]) -> Graph:
    """The integer network with the weight and bias codes that `improve` makes for each layer, the first one first."""
    real, coded = {graph.inputs[0]: x}, {integer.inputs[0]: encode_input(integer, x)}
    last, last_real = ({name: node.name for node in g.nodes for name in g.activations(node)} for g in (integer, graph))
    for node in integer.nodes:
        twin = graph.producers.get(node.name)
        if twin is not None and isinstance(node.op, _LAYERS):
            source, taps, accumulator = (cast("Quant", integer.types[n].quant) for n in node.inputs)
            layer = Layer(
                op=node.op,
                weight=graph.constants[twin.inputs[1]],
                bias=graph.constants[twin.inputs[2]],
                taps=taps,
                source=source,
                codes=integer.constants[node.inputs[1]],
                inputs=real[twin.inputs[0]],
                coded=source.decode(coded[node.inputs[0]]),
            )
            codes = zip(node.inputs[1:], improve(layer), (taps, accumulator), strict=True)
            made = {name: value.astype(quant.dtype) for name, value, quant in codes}
            integer = replace(integer, constants={**integer.constants, **made})
        values = [coded[n] for n in integer.activations(node)]
        coded[node.name] = repeated(exact.evaluate(integer, node, values), len(x))
        if twin is not None:
            values = [real[n] for n in graph.activations(twin)]
            real[node.name] = repeated(exact.evaluate(graph, twin, values), len(x))
        for values, reader in ((coded, last), (real, last_real)):
            for name in [name for name in values if reader.get(name) == node.name]:
                values.pop(name)
    return integer


def _rounded(layer: Layer, rng: np.random.Generator) -> Array:
    """The weight codes of a layer with learned rounding."""
    places, top = _places(layer, rng), layer.taps.highest
    weight, bias, scale = (_matrix(layer, value) for value in (layer.weight, layer.bias, _scales(layer)))
    x = _rows(layer, layer.coded, places)
    target = layer.op.activation.real(np, _rows(layer, layer.inputs, places) @ weight + bias)

    def missed(codes: Array, chosen: Array | slice = slice(None)) -> tuple[Array, Array]:
        """The errors (group, rows, out) of results with these weights, and where they have a gradient."""
        y = x[:, chosen] @ (codes * scale) + bias
        made = layer.op.activation.real(np, y)
        return made - target[:, chosen], made == y

    base = float(np.mean(missed(_matrix(layer, layer.codes.astype(np.float32)))[0] ** 2))
    if base == 0:
        return layer.codes
    steps, (high, low) = weight / scale, _STRETCH
    floor = np.floor(steps)
    start = (steps - floor - low) / (high - low)
    v = np.log(start / (1 - start))  # where h is the fraction that rounding would take or add
    adam = _Adam(v.shape)
    for step in range(_STEPS):
        share = 1 / (1 + np.exp(-v))
        h = np.clip(share * (high - low) + low, 0.0, 1.0)
        chosen = rng.integers(0, x.shape[1], min(_BATCH, x.shape[1]))
        error, alive = missed(np.clip(floor + h, -top, top), chosen)
        grad = x[:, chosen].swapaxes(1, 2) @ (error * alive) * scale * (2 / (error.size * base))
        done = step / _STEPS
        if done > 0.2:  # first only the error counts (AdaRound's code: "warm start")
            first, end = _SHARPNESS
            beta = end + (first - end) * (1 + np.cos(np.pi * (done - 0.2) / 0.8)) / 2
            away = 2 * h - 1
            grad -= _PRESSURE / v.size * 2 * beta * np.sign(away) * np.abs(away) ** (beta - 1)
        inside = (h > 0) & (h < 1) & (np.abs(floor + h) <= top)
        v -= adam.step(grad * inside * (high - low) * share * (1 - share), step)
    codes = np.where(weight == 0, 0.0, np.clip(floor + (v > 0), -top, top))  # what is pruned stays so
    return layer.codes if np.mean(missed(codes)[0] ** 2) >= base else _unmatrix(layer, codes)


@final
class _Adam:
    """The steps of Adam (Kingma & Ba 2015) for one array."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start at rest."""
        self._mean, self._square = np.zeros(shape), np.zeros(shape)

    def step(self, grad: Array, count: int) -> Array:
        """How far to go down after `count` earlier steps."""
        self._mean += 0.1 * (grad - self._mean)
        self._square += 0.001 * (grad * grad - self._square)
        mean, square = self._mean / (1 - 0.9 ** (count + 1)), self._square / (1 - 0.999 ** (count + 1))
        return _RATE * mean / (np.sqrt(square) + 1e-8)


def _scales(layer: Layer) -> Array:
    """The scale of each weight."""
    axis = layer.op.channel_axis
    shape = [-1 if layer.taps.axis is not None and i == axis else 1 for i in range(layer.weight.ndim)]
    return np.broadcast_to(np.array(layer.taps.scale, np.float32).reshape(shape), layer.weight.shape)


def _groups(layer: Layer) -> int:
    """How many parts of a layer have inputs of their own."""
    match layer.op:
        case Conv2d():
            return layer.op.groups
        case DepthwiseConv2d():
            return len(layer.bias) // layer.op.multiplier
        case Dense():
            return 1


def _matrix(layer: Layer, weight: Array) -> Array:
    """A weight as matrices (groups, inputs, out / groups)."""
    out, groups = len(layer.bias), _groups(layer)
    if isinstance(layer.op, DepthwiseConv2d):
        return weight.reshape(-1, groups, out // groups).swapaxes(0, 1)
    return weight.reshape(groups, out // groups, -1).swapaxes(1, 2)


def _unmatrix(layer: Layer, matrix: Array) -> Array:
    """The inverse of `_matrix`."""
    axes = (0, 1) if isinstance(layer.op, DepthwiseConv2d) else (1, 2)
    return matrix.swapaxes(*axes).reshape(layer.weight.shape)


def _places(layer: Layer, rng: np.random.Generator) -> tuple[Array, ...]:
    """Random results of a layer: the sample, and row and column in its map."""
    sides = layer.op.windows.output(layer.inputs.shape[1:]) if not isinstance(layer.op, Dense) else ()
    shape = (len(layer.inputs), *sides)
    count = math.prod(shape)
    chosen = np.sort(rng.choice(count, min(count, _ROWS), replace=False))
    return np.unravel_index(chosen, shape)


def _rows(layer: Layer, x: Array, places: tuple[Array, ...]) -> Array:
    """The inputs (groups, rows, inputs) of the chosen results, in the order of `_matrix`."""
    if isinstance(layer.op, Dense):
        return x[places][None]
    window = layer.op.windows.view(x, 0.0)[places]  # (rows, channels, kernel_h, kernel_w)
    parts = window.reshape(len(window), _groups(layer), -1, *window.shape[2:])
    return np.ascontiguousarray(parts.transpose(1, 0, 3, 4, 2)).reshape(_groups(layer), len(window), -1)

"""Whether our integers are those of LiteRT: layer by layer, and whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.ops import Conv2d, Dense, Windows
from crosslayer.core.quant import Array
from crosslayer.evaluate.firmware import as_bytes
from crosslayer.execute import exact, reference
from crosslayer.execute.litert import Kernels, run
from crosslayer.write.tflite import write_tflite

_CHUNK = 100  # samples whose activations are held at once
KERNELS: Mapping[Rounding, Kernels] = {Rounding.REFERENCE: Kernels.REFERENCE, Rounding.FLOAT: Kernels.DEFAULT}
"""Which of LiteRT's kernels a whole network agrees with. `double` is TensorFlow Lite Micro's, layer by layer only."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Bytes in which one executor differs from LiteRT, `what` it was asked, and under which rounding rule."""

    what: str
    rounding: Rounding
    executor: str
    samples: int
    differing_bytes: int


def check_layers(graph: Graph, x: Array) -> list[Check]:
    """Every node on its own, on the activations that it gets in our run of `x`, in the order of the graph."""
    differing = {node.name: 0 for node in graph.nodes if graph.activations(node)}
    for start in range(0, len(x), _CHUNK):
        values = exact.trace(graph, x[start : start + _CHUNK])
        for node in graph.nodes:
            if node.name in differing:
                inputs = [values[n] for n in graph.activations(node)]
                theirs = answer(alone(graph, node), inputs)
                differing[node.name] += int((as_bytes(values[node.name]) != as_bytes(theirs)).sum())
    kinds = {node.name: type(node.op).__name__ for node in graph.nodes}
    return [
        Check(
            what=f"{name} ({kinds[name]})",
            rounding=graph.rounding,
            executor="exact",
            samples=len(x),
            differing_bytes=count,
        )
        for name, count in differing.items()
    ]


def check_whole(
    graph: Graph, model: bytes, x: Array, executors: Mapping[str, Callable[[Array], Array]], what: str
) -> list[Check]:
    """Each executor's outputs for codes, as many samples as it returns, against LiteRT's on the file `model`."""
    codes = reference.encode_input(graph, x)
    theirs = as_bytes(run(model, [codes], KERNELS[graph.rounding]))
    found: list[Check] = []
    for name, execute in executors.items():
        ours = as_bytes(execute(codes))
        count = int((ours != theirs[: len(ours)]).sum())
        found.append(Check(what=what, rounding=graph.rounding, executor=name, samples=len(ours), differing_bytes=count))
    return found


def alone(graph: Graph, node: Node) -> Graph:
    """The network that consists of one node, its constants, and its activations as inputs."""
    inputs = graph.activations(node)
    names = {*node.inputs, node.name}
    return replace(
        graph,
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=(node.name,),
        nodes=(node,),
        types={name: kind for name, kind in graph.types.items() if name in names},
        constants={name: value for name, value in graph.constants.items() if name in names},
    )


def answer(graph: Graph, inputs: Sequence[Array]) -> Array:
    """What LiteRT computes for a one-node graph with the kernels that agree with the graph's rounding rule."""
    (node,) = graph.nodes
    inputs = list(dict(zip(graph.activations(node), inputs, strict=True)).values())
    # a dense layer with int16 weights rounds as convolutions with int64 biases do
    if graph.rounding is Rounding.DOUBLE and isinstance(node.op, Dense) and not _has_int16_weights(graph):
        (codes,) = inputs
        model = write_tflite(pointwise(graph), batch=len(codes))
        return run(model, [codes[:, None, None, :]], Kernels.REFERENCE)[:, 0, 0, :]
    return run(write_tflite(graph, batch=len(inputs[0])), inputs, KERNELS.get(graph.rounding, Kernels.REFERENCE))


def _has_int16_weights(graph: Graph) -> bool:
    return graph.constants[graph.nodes[0].inputs[1]].dtype == np.int16


def pointwise(graph: Graph) -> Graph:
    """A graph of one dense layer as a convolution of one pixel.

    None of LiteRT's dense kernels rounds as those of TensorFlow Lite Micro do; its reference convolution does
    (docs/adr/0005). Only the product of the scales, which a dense layer with one weight scale takes in float32, must be
    put in by hand.
    """
    (node,) = graph.nodes
    if not isinstance(node.op, Dense):
        raise GraphError(f"{node.name}: is no dense layer")
    x, weight, bias = graph.operands(node)
    source, taps = x.code(), weight.code()
    if len(taps.scale) == 1:
        product = float(np.float32(source.scale[0]) * np.float32(taps.scale[0]))
        source, taps = replace(source, scale=(product,)), replace(taps, scale=(1.0,))
    b = Builder(graph.rounding)
    result = b.add(
        Conv2d(windows=Windows(kernel=(1, 1)), activation=node.op.activation),
        b.input("x", (1, 1, *x.type.shape), source),
        b.constant("weight", weight.constant()[:, None, None, :], taps),
        b.constant("bias", bias.constant(), bias.code()),
        quant=graph.types[node.name].quant,
    )
    return b.graph(result)

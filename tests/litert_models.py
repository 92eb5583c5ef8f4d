"""One-node graphs as TFLite files, and LiteRT's answers to them."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import pytest

from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import TensorType
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Mul,
    Relu,
    Relu6,
    Requantize,
    Sigmoid,
    Softmax,
    Tanh,
    Windows,
)
from crosslayer.core.graph.ops.windows import same
from crosslayer.core.quant import Array

_WHY = "LiteRT is the oracle here; pip install ai-edge-litert flatbuffers"
flatbuffers: Any = pytest.importorskip("flatbuffers", reason=_WHY)
litert: Any = pytest.importorskip("ai_edge_litert.interpreter", reason=_WHY)
schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason=_WHY)


class Kernels(Enum):
    """Which of LiteRT's implementations answers."""

    REFERENCE = litert.OpResolverType.BUILTIN_REF
    OPTIMISED = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    DEFAULT = litert.OpResolverType.AUTO
    """XNNPACK where it can, else the optimised ones."""


_ACTIVATIONS = {
    Activation.NONE: schema.ActivationFunctionType.NONE,
    Activation.RELU: schema.ActivationFunctionType.RELU,
    Activation.RELU6: schema.ActivationFunctionType.RELU6,
}
_ELEMENTS = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
}


def answer(graph: Graph, inputs: Sequence[Array], kernels: Kernels) -> Array:
    """What LiteRT computes for a one-node graph on `inputs`, each (batch, …), with the given kernels."""
    interpreter = litert.Interpreter(
        model_content=tflite(graph, len(inputs[0])), experimental_op_resolver_type=kernels.value, num_threads=1
    )
    interpreter.allocate_tensors()
    for details, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], value)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def tflite(graph: Graph, batch: int) -> bytes:
    """The TFLite file of a one-node int8 or int16 graph with a fixed batch size.

    Raises `ValueError` for what such a file cannot say: more nodes, margins other than SAME and VALID.
    """
    (node,) = graph.nodes
    code, version, options = _operator(graph, node)
    names = (*node.inputs, node.name)
    tensors, buffers = [], [schema.BufferT()]
    for name in names:
        constant = graph.constants.get(name)
        tensor = _tensor(name, graph.types[name], constant, batch, isinstance(node.op, DepthwiseConv2d))
        if constant is not None:
            tensor.buffer = len(buffers)
            buffers.append(schema.BufferT(data=np.frombuffer(constant.tobytes(), np.uint8)))
        tensors.append(tensor)
    operands = list(range(len(node.inputs)))
    if isinstance(node.op, GlobalMean):  # its axes are an operand
        operands.append(len(tensors))
        tensors.append(schema.TensorT(name="axes", shape=[2], type=schema.TensorType.INT32, buffer=len(buffers)))
        buffers.append(schema.BufferT(data=np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.uint8)))
    operator = schema.OperatorT(
        inputs=operands,
        outputs=[len(node.inputs)],
        builtinOptionsType=schema.BuiltinOptions.__dict__[type(options).__name__.removesuffix("T")] if options else 0,
        builtinOptions=options,
    )
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=version)],
        subgraphs=[
            schema.SubGraphT(
                tensors=tensors,
                inputs=[i for i, name in enumerate(node.inputs) if name not in graph.constants],
                outputs=[len(node.inputs)],
                operators=[operator],
            )
        ],
        buffers=buffers,
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _operator(graph: Graph, node: Node) -> tuple[int, int, Any]:
    """Builtin code, an operator's version that takes the codes, and options of a node."""
    op, codes = node.op, schema.BuiltinOperator
    shape = graph.types[node.inputs[0]].shape
    bias = graph.types[node.inputs[-1]].quant  # of a layer
    assert bias is not None
    bias_type = _ELEMENTS[bias.dtype]
    match op:
        case Conv2d():
            options = schema.Conv2DOptionsT(
                fusedActivationFunction=_ACTIVATIONS[op.activation], quantizedBiasType=bias_type
            )
            return codes.CONV_2D, 3, _place(options, op.windows, shape)
        case DepthwiseConv2d():
            options = schema.DepthwiseConv2DOptionsT(
                depthMultiplier=op.multiplier, fusedActivationFunction=_ACTIVATIONS[op.activation]
            )
            return codes.DEPTHWISE_CONV_2D, 3, _place(options, op.windows, shape)
        case Dense():
            return (
                codes.FULLY_CONNECTED,
                4,
                schema.FullyConnectedOptionsT(
                    fusedActivationFunction=_ACTIVATIONS[op.activation], quantizedBiasType=bias_type
                ),
            )
        case MaxPool() | AveragePool():
            high, wide = op.windows.kernel
            options = schema.Pool2DOptionsT(filterHeight=high, filterWidth=wide)
            code = codes.MAX_POOL_2D if isinstance(op, MaxPool) else codes.AVERAGE_POOL_2D
            return code, 2, _place(options, op.windows, shape)
        case Add():
            return (
                codes.ADD,
                2,
                schema.AddOptionsT(fusedActivationFunction=_ACTIVATIONS[op.activation], potScaleInt16=False),
            )
        case Mul():
            return codes.MUL, 2, schema.MulOptionsT(fusedActivationFunction=_ACTIVATIONS[op.activation])
        case GlobalMean():
            return codes.MEAN, 2, schema.ReducerOptionsT(keepDims=False)
        case Softmax():
            return codes.SOFTMAX, 2, schema.SoftmaxOptionsT(beta=1.0)
        case LeakyRelu():
            return codes.LEAKY_RELU, 2, schema.LeakyReluOptionsT(alpha=op.slope)
        case Relu():
            return codes.RELU, 2, None
        case Relu6():
            return codes.RELU6, 2, None
        case Requantize():
            return codes.QUANTIZE, 2, schema.QuantizeOptionsT()
        case Sigmoid():
            return codes.LOGISTIC, 2, None
        case Tanh():
            return codes.TANH, 2, None
        case _:
            raise ValueError(f"{type(op).__name__} has no TFLite form here")


def _place(options: Any, windows: Windows, shape: Sequence[int]) -> Any:
    """`options` with stride, dilation and padding."""
    if not any(windows.padding):
        options.padding = schema.Padding.VALID
    elif windows.padding == same(shape, windows.kernel, windows.stride, windows.dilation):
        options.padding = schema.Padding.SAME
    else:
        raise ValueError(f"TFLite has only the paddings SAME and VALID, not {windows.padding}")
    options.strideH, options.strideW = windows.stride
    if hasattr(options, "dilationHFactor"):
        options.dilationHFactor, options.dilationWFactor = windows.dilation
    elif windows.dilation != (1, 1):
        raise ValueError("TFLite pools have no dilation")
    return options


def _tensor(name: str, kind: TensorType, constant: Array | None, batch: int, depthwise: bool) -> Any:
    """A tensor's description; activations get the batch as first axis, depthwise weights an axis of size 1."""
    quant = kind.quant
    assert quant is not None, "only integer graphs"
    first = (batch,) if constant is None else (1,) if depthwise and len(kind.shape) == 3 else ()
    return schema.TensorT(
        name=name,
        shape=[*first, *kind.shape],
        type=_ELEMENTS[quant.dtype],
        quantization=schema.QuantizationParametersT(
            scale=np.array(quant.scale, np.float32),
            zeroPoint=np.array(quant.zero, np.int64),
            quantizedDimension=0 if quant.axis is None else quant.axis + len(first),
        ),
    )

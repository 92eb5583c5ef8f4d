"""TFLite files in and out: what is read is what runs elsewhere, what is written is what was read, what is damaged is
refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosslayer.core.errors import GraphError, ReadError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.graph.ops import (
    Activation,
    Add,
    AveragePool,
    Clamp,
    Concat,
    Constant,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    Dequantize,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Quantize,
    Relu,
    Relu6,
    Requantize,
    Reshape,
    Softmax,
    Tanh,
    Transpose,
    Windows,
)
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Quant
from crosslayer.execute import exact, litert, reference
from crosslayer.networks.zoo import network
from crosslayer.read.tflite import read_tflite
from crosslayer.write.tflite import write_tflite

CODE = Quant(bits=8, scale=(0.05,), zero=(-3,))
OTHER = Quant(bits=8, scale=(0.08,), zero=(7,))


def layer(b: Builder, op: Any, source: str, shape: Shape, seed: int, *, quant: Quant | None = OTHER) -> str:
    """A layer with random weights, in floats if `quant` is None."""
    rng = np.random.default_rng(seed)
    channels, axis = shape[op.channel_axis], op.channel_axis
    if quant is None:
        names = b.constant(f"w{seed}", rng.normal(size=shape)), b.constant(f"c{seed}", rng.normal(size=channels))
        return b.add(op, source, *names)
    taps = Quant(bits=8, scale=tuple(rng.uniform(0.001, 0.01, channels).tolist()), axis=axis)
    code = b.code(source)
    assert code is not None
    names = (
        b.constant(f"w{seed}", rng.integers(-127, 128, shape), taps),
        b.constant(f"c{seed}", rng.integers(-2000, 2000, channels), bias_code(code, taps)),
    )
    return b.add(op, source, *names, quant=quant)


def everything(quant: Quant | None) -> Graph:
    """A small network with every operator that a file can hold, in floats or integers."""
    b = Builder()
    x = b.input("x", (6, 6, 2), quant)
    fixed = None if quant is None else CODE
    wide = Windows(kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
    odd = Windows(kernel=(2, 3), padding=(1, 0, 0, 2))
    y = layer(b, Conv2d(windows=wide, activation=Activation.RELU), x, (4, 3, 3, 2), 1, quant=fixed)
    y = layer(b, Conv2d(windows=odd, groups=2), y, (4, 2, 3, 2), 2, quant=fixed)
    z = layer(b, DepthwiseConv2d(windows=wide, activation=Activation.RELU6), y, (3, 3, 4), 3, quant=fixed)
    value = np.random.default_rng(5).integers(-100, 100, (6, 6, 4)) * (1 if fixed else 0.05)
    held = b.add(Constant(), b.constant("sum.value", value, fixed), name="sum", quant=fixed)
    y = b.add(Add(activation=Activation.RELU), y, z, quant=fixed)
    y = b.add(Mul(), b.add(Add(), y, held, quant=fixed), z, quant=fixed)
    y = b.add(Concat(axis=2), b.add(MaxPool(windows=wide), y), b.add(AveragePool(windows=wide), y))
    y = b.add(MaxPool(windows=Windows(kernel=(2, 2), stride=(2, 2), padding=(1, 1, 1, 1))), y)
    y = b.add(Pad(margins=(1, 0, 2, 1)), b.add(Transpose(permutation=(1, 0, 2)), y))
    y = b.add(LeakyRelu(slope=0.25), y, quant=fixed)
    y = b.add(Relu6(), b.add(Relu(), y, quant=fixed), quant=fixed)
    z = b.add(GlobalMean(), y, quant=fixed)
    z = layer(b, Dense(), z, (9, 8), 6, quant=fixed)
    z = b.add(Tanh(), z, quant=None if fixed is None else Quant(bits=8, scale=(1 / 128,)))
    if fixed is not None:
        z = b.add(Requantize(), z, quant=OTHER)
    z = b.add(Softmax(), b.add(Reshape(shape=(3, 3)), z))
    return b.graph(z if fixed is None else b.add(Dequantize(), z))


def inputs(graph: Graph, count: int, seed: int = 0) -> Any:
    kind, rng = graph.types[graph.inputs[0]], np.random.default_rng(seed)
    if kind.quant is None:
        return rng.normal(size=(count, *kind.shape)).astype(np.float32)
    return rng.integers(kind.quant.lowest, kind.quant.highest + 1, (count, *kind.shape)).astype(kind.quant.dtype)


@pytest.mark.parametrize("quant", [None, CODE])
def test_a_written_network_computes_the_same_when_read_again(quant: Quant | None) -> None:
    graph = everything(quant)
    again = read_tflite(write_tflite(graph))
    x = inputs(graph, 20)
    assert np.array_equal(reference.run(again, x), reference.run(graph, x))


@pytest.mark.parametrize("quant", [None, CODE])
def test_what_is_written_and_read_is_equal_where_tflite_has_the_same_words(quant: Quant | None) -> None:
    b = Builder()
    x = b.input("x", (5, 7, 2), quant)
    y = layer(b, Conv2d(windows=Windows(kernel=(3, 3), padding=(1, 1, 1, 1))), x, (4, 3, 3, 2), 1, quant=quant)
    y = layer(b, DepthwiseConv2d(windows=Windows(kernel=(2, 2)), multiplier=2), y, (2, 2, 8), 2, quant=quant)
    y = b.add(Concat(axis=-2 % 3), y, b.add(Pad(margins=(0, 0, 1, 2)), y))
    y = b.add(Relu(), b.add(Reshape(shape=(4 * 15 * 8,)), y), quant=quant)
    graph = b.graph(b.add(Softmax(), layer(b, Dense(), y, (3, 480), 3, quant=quant)))
    assert read_tflite(write_tflite(graph)) == graph


def test_litert_computes_what_is_written() -> None:
    graph = everything(None)
    x = inputs(graph, 8)
    found = litert.run(write_tflite(graph), [x], litert.Kernels.REFERENCE)
    assert np.allclose(found, reference.run(graph, x), atol=1e-5)


def test_an_integer_network_starts_with_a_quantization_if_its_inputs_are_floats() -> None:
    b = Builder()
    x = b.add(Quantize(), b.input("x", (4,)), quant=CODE)
    graph = b.graph(layer(b, Dense(), x, (3, 4), 1))
    again = read_tflite(write_tflite(graph))
    assert again == graph
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(exact.run(again, x), litert.run(write_tflite(graph), [x], litert.Kernels.REFERENCE))


def test_sixteen_bit_activations_are_read_and_written() -> None:
    code = Quant(bits=16, scale=(0.001,))
    b = Builder(Rounding.REFERENCE)
    x = b.input("x", (6, 6, 2), code)
    windows = Windows(kernel=(3, 3), padding=(1, 1, 1, 1))
    y = layer(b, Conv2d(windows=windows, activation=Activation.RELU), x, (4, 3, 3, 2), 1, quant=code)
    z = layer(b, DepthwiseConv2d(windows=windows), y, (3, 3, 4), 2, quant=code)
    y = b.add(AveragePool(windows=windows), b.add(Add(), y, z, quant=code))
    y = b.add(Relu6(), b.add(GlobalMean(), y, quant=code), quant=code)
    y = b.add(Requantize(), layer(b, Dense(), y, (5, 4), 3, quant=code), quant=OTHER)
    graph = b.graph(b.add(Softmax(), y))
    written = write_tflite(graph)
    assert read_tflite(written, Rounding.REFERENCE) == graph
    x = inputs(graph, 50)
    assert np.array_equal(exact.run(graph, x), litert.run(written, [x], litert.Kernels.REFERENCE))


# what cannot be read or written


def test_all_problems_of_a_file_are_told_at_once() -> None:
    raw = bytearray(write_tflite(everything(None)))
    import tflite

    model = tflite.Model.GetRootAs(raw, 0)
    replaced = {"CONV_2D": "LSTM", "TRANSPOSE": "TOPK_V2", "MUL": "ATAN2"}
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        name = next(k for k, v in vars(tflite.BuiltinOperator).items() if v == code.BuiltinCode())
        if name in replaced:
            number = getattr(tflite.BuiltinOperator, replaced[name])
            for slot, width in ((4, 1), (10, 4)):
                at = code._tab.Pos + code._tab.Offset(slot)
                raw[at : at + width] = min(number, 127 if width == 1 else number).to_bytes(width, "little")
    with pytest.raises(ReadError) as caught:
        read_tflite(bytes(raw))
    message = str(caught.value)
    assert "operator 0 (LSTM) 'conv2d1': is not supported" in message
    assert "replace it" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a TFLite file"),
        (b"PK\x03\x04" * 9, "is not a TFLite file"),
        (b"\x10\x00\x00\x00TFL3" + b"\xff" * 40, "damaged"),
        (write_tflite(everything(CODE))[:900], "damaged"),
    ],
)
def test_what_is_no_tflite_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read_tflite(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"lost\.tflite: cannot be read"):
        read_tflite(tmp_path / "lost.tflite")


def small(change: Callable[[Builder, str], str], code: Quant | None = CODE) -> Graph:
    b = Builder()
    return b.graph(change(b, b.input("x", (4, 4, 1), code)))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (small(lambda b, x: b.add(Relu(), x, quant=OTHER), replace(CODE, bits=4)), "4-bit activations"),
        (
            small(lambda b, x: b.add(AveragePool(windows=Windows(kernel=(3, 3), padding=(2, 0, 0, 0))), x)),
            "average pools have no padding",
        ),
        (
            small(lambda b, x: b.add(MaxPool(windows=Windows(kernel=(2, 2), dilation=(2, 2))), x)),
            "pools have no dilation",
        ),
        (small(lambda b, x: b.add(Clamp(low=-1.0, high=1.0), x), None), "no such operator; write ONNX"),
        (network("resnet8", (8, 8, 3), 10, 0), "fold it first"),
    ],
)
def test_what_tflite_cannot_say_is_refused(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        write_tflite(graph)

"""ONNX files: the ONNX project's own cases, networks quantized by ONNX Runtime, layouts, and files that are refused."""

import itertools
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from crosslayer.core.errors import ReadError, ToolError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import BatchNorm, Dense, DepthwiseConv2d, Dequantize, Quantize, Transpose
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.read.onnx import OPERATORS, onnx_reading, read_onnx
from crosslayer.read.tensors import Fixed, Reading
from onnx_conformance import PAGE, SETS, cases, outcome, page

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)


def values(*shape: int) -> Array:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto], constants: Mapping[str, Any], shape: list[Any], *, opset: int = 17, kind: int = FLOAT
) -> onnx.ModelProto:
    """A model from `x` to the result of its last node."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_empty_tensor_value_info(nodes[-1].output[0])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def n(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], output, **attributes)


def runtime(raw: bytes, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(raw, options).run(None, {"x": x})[0]


def judged(reading: Reading, x: Array) -> Array:
    return reading.results[0].tensor(reference.run(reading.graph, reading.source.stored(x)))


def same_as_runtime(made: onnx.ModelProto, x: Array) -> Graph:
    """The graph, which computes what ONNX Runtime does."""
    raw = made.SerializeToString()
    reading = onnx_reading(raw)
    np.testing.assert_allclose(judged(reading, x), runtime(raw, x), rtol=1e-5, atol=1e-6)
    return reading.graph


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


@pytest.mark.parametrize("group", [*sorted(OPERATORS), *SETS])
def test_the_cases_of_the_onnx_project_give_the_expected_result_or_are_refused(group: str) -> None:
    for case in cases():
        if case.group == group:
            outcome(case)


def test_the_page_on_onnx_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if f"of onnx {onnx.__version__}." not in text:
        pytest.skip("the page is about another version of onnx")
    assert page() == text, "run python tests/onnx_conformance.py"


def classifier() -> onnx.ModelProto:
    """A network with all that usual convolutional classifiers have."""
    constants: dict[str, Any] = {"lo": np.float32(0), "hi": np.float32(6)}

    def layer(name: str, *shape: int) -> str:
        constants[f"{name}.w"] = values(*shape) / np.float32(np.sqrt(np.prod(shape[1:])))
        constants[f"{name}.b"] = values(shape[0])
        return f"{name}.w {name}.b"

    constants["head2.w"] = values(128, 10) / np.float32(12)
    constants["head2.b"] = values(10)
    nodes = [
        n("Conv", f"x {layer('c1', 8, 3, 3, 3)}", "c1", pads=[1, 1, 1, 1]),
        n("Relu", "c1", "r1"),
        n("MaxPool", "r1", "m1", kernel_shape=[2, 2], strides=[2, 2]),
        n("Conv", f"m1 {layer('c2', 8, 1, 3, 3)}", "c2", pads=[1, 1, 1, 1], group=8),
        n("Clip", "c2 lo hi", "r2"),
        n("Conv", f"r2 {layer('c3', 8, 8, 1, 1)}", "c3"),
        n("Add", "c3 m1", "sum"),
        n("Relu", "sum", "r3"),
        n("AveragePool", "r3", "mean", kernel_shape=[2, 2], strides=[2, 2]),
        n("Concat", "mean mean", "wide", axis=1),
        n("GlobalAveragePool", "wide", "pooled"),
        n("Flatten", "pooled", "features"),
        n("Gemm", f"features {layer('head1', 10, 16)}", "head1", transB=1),
        n("Flatten", "mean", "flat"),
        n("MatMul", "flat head2.w", "product"),
        n("Add", "product head2.b", "head2"),
        n("Add", "head1 head2", "heads"),
        n("Sigmoid", "heads", "gate"),
        n("Mul", "gate head1", "logits"),
        n("Softmax", "logits", "y", axis=-1),
    ]
    return model(nodes, constants, ["batch", 3, 16, 16])


def test_a_float_classifier_computes_what_onnx_runtime_does_without_a_transposition() -> None:
    graph = same_as_runtime(classifier(), values(4, 3, 16, 16))
    assert graph.types["x"].shape == (16, 16, 3)
    assert "Transpose" not in kinds(graph)
    assert "Add" in kinds(graph)
    assert kinds(graph).count("Dense") == 2  # the addition of a constant is the bias of the second


@pytest.mark.parametrize("integers", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_network_quantized_by_onnx_runtime_is_read_as_integers(form: str, integers: str, tmp_path: Path) -> None:
    from onnxruntime import quantization as q

    class Samples(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"x": sample[None]} for sample in x])

        def get_next(self) -> Any:
            return next(self.left, None)

    x = values(32, 3, 16, 16)
    onnx.save(classifier(), tmp_path / "float.onnx")
    logging.disable(logging.WARNING)
    try:
        for channels in (False, True):
            q.quantize_static(
                tmp_path / "float.onnx",
                tmp_path / "integer.onnx",
                Samples(),
                quant_format=q.QuantFormat[form],
                activation_type=q.QuantType[integers],
                weight_type=q.QuantType.QInt8,
                per_channel=channels,
            )
            reading = onnx_reading(tmp_path / "integer.onnx")
            assert reading.graph.is_integer
            assert sum(isinstance(node.op, (Quantize, Dequantize)) for node in reading.graph.nodes) == 2
            away = judged(reading, x) - runtime((tmp_path / "integer.onnx").read_bytes(), x)
            assert np.abs(away).max() <= 2.01 / 256  # two codes after eleven layers
    finally:
        logging.disable(logging.NOTSET)


def test_channels_last_networks_are_read_without_a_transposition() -> None:
    """As TensorFlow networks are exported: images come channels last, and each convolution turns them around."""
    nodes = [
        n("Transpose", "x", "first", perm=[0, 3, 1, 2]),
        n("Conv", "first w", "c", kernel_shape=[3, 3]),
        n("Transpose", "c", "last", perm=[0, 2, 3, 1]),
        n("Relu", "last", "y"),
    ]
    graph = same_as_runtime(model(nodes, {"w": values(4, 2, 3, 3)}, [1, 8, 7, 2]), values(1, 8, 7, 2))
    assert graph.types["x"].shape == (8, 7, 2)
    assert kinds(graph) == ["Conv2d", "Relu"]


def test_a_flattened_image_reaches_the_dense_layer_by_an_order_of_its_columns() -> None:
    nodes = [n("Flatten", "x", "flat"), n("Gemm", "flat w b", "y", transB=1)]
    graph = same_as_runtime(model(nodes, {"w": values(5, 24), "b": values(5)}, [1, 2, 3, 4]), values(3, 2, 3, 4)[:1])
    assert graph.types["x"].shape == (3, 4, 2)
    assert kinds(graph) == ["Reshape", "Dense"]


def test_one_dimensional_networks_have_height_one() -> None:
    nodes = [
        n("Conv", "x w", "c", pads=[1, 2], strides=[2], dilations=[2], group=2),
        n("MaxPool", "c", "m", kernel_shape=[3], pads=[1, 1]),
        n("AveragePool", "m", "a", kernel_shape=[2], pads=[1, 0], count_include_pad=1),
        n("GlobalAveragePool", "a", "y"),
    ]
    graph = same_as_runtime(model(nodes, {"w": values(6, 2, 3)}, [1, 4, 20]), values(1, 4, 20))
    assert graph.types["x"].shape == (1, 20, 4)
    assert "Transpose" not in kinds(graph)


def test_sequences_of_features_keep_their_order() -> None:
    nodes = [n("MatMul", "x w", "p"), n("Add", "p b", "s"), n("ReduceMean", "s", "y", axes=[1], keepdims=0)]
    graph = same_as_runtime(model(nodes, {"w": values(6, 3), "b": values(3)}, [1, 9, 6]), values(1, 9, 6))
    assert graph.types["x"].shape == (9, 6)
    assert kinds(graph) == ["Reshape", "Conv2d", "GlobalMean"]


def test_shuffled_channels_need_one_transposition() -> None:
    nodes = [
        n("Reshape", "x split", "a"),
        n("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        n("Reshape", "b join", "c"),
        n("Conv", "c w", "y"),
    ]
    shapes = {"split": np.array([1, 2, 3, 5, 4]), "join": np.array([1, 6, 5, 4]), "w": values(2, 6, 3, 3)}
    graph = same_as_runtime(model(nodes, shapes, [1, 6, 5, 4]), values(1, 6, 5, 4))
    assert kinds(graph).count("Transpose") == 1


def test_shapes_that_a_network_computes_are_constants() -> None:
    """As PyTorch exports `x.view(x.shape[0], -1)`."""
    nodes = [
        n("Shape", "x", "shape"),
        n("Gather", "shape zero", "batch", axis=0),
        n("Unsqueeze", "batch axes", "row"),
        n("Concat", "row rest", "wanted", axis=0),
        n("Reshape", "x wanted", "y"),
    ]
    given = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    assert kinds(same_as_runtime(model(nodes, given, ["batch", 2, 3]), values(1, 2, 3))) == ["Reshape"]


def test_normalizations_that_no_layer_can_take_become_layers() -> None:
    """Before a convolution, and after an activation; the one after the convolution stays, to be folded."""
    constants = {role: np.abs(values(3)) + 1 for role in ("g", "b", "m", "v")}
    nodes = [
        n("BatchNormalization", "x g b m v", "first"),
        n("Conv", "first w", "c"),
        n("BatchNormalization", "c g b m v", "second"),
        n("Relu", "second", "r"),
        n("BatchNormalization", "r g b m v", "y"),
    ]
    graph = same_as_runtime(model(nodes, {**constants, "w": values(3, 3, 2, 2)}, [1, 3, 5, 5]), values(1, 3, 5, 5))
    assert kinds(graph) == ["DepthwiseConv2d", "Conv2d", "BatchNorm", "Relu", "DepthwiseConv2d"]
    assert [node.name for node in graph.nodes if isinstance(node.op, BatchNorm)] == ["second"]


ARITHMETIC: list[tuple[str, str, tuple[int, ...], list[str]]] = [
    ("Add", "x c", (1,), ["DepthwiseConv2d"]),
    ("Sub", "c x", (3, 1, 1), ["DepthwiseConv2d"]),
    ("Mul", "c x", (1, 3, 1, 1), ["DepthwiseConv2d"]),
    ("Div", "x c", (3, 4, 5), ["Constant", "Mul"]),
    ("Sub", "x c", (5,), ["Constant", "Add"]),
    ("Mul", "x x", (1,), ["Mul"]),
    ("Sub", "x x", (1,), ["DepthwiseConv2d", "Add"]),
]


@pytest.mark.parametrize(("kind", "operands", "shape", "expected"), ARITHMETIC)
def test_arithmetic_with_constants_is_a_layer_where_it_is_the_same_for_a_whole_channel(
    kind: str, operands: str, shape: tuple[int, ...], expected: list[str]
) -> None:
    made = model([n(kind, operands, "y")], {"c": np.abs(values(*shape)) + 1}, [1, 3, 4, 5])
    found = kinds(same_as_runtime(made, values(1, 3, 4, 5)))
    assert [kind for kind in found if kind != "BatchNorm"] == expected  # a second one folds into the first


CUTS: list[tuple[str, list[onnx.NodeProto], Mapping[str, Any]]] = [
    ("ceil", [n("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    ("same upper", [n("AveragePool", "x", "y", kernel_shape=[4, 3], strides=[2, 2], auto_pad="SAME_UPPER")], {}),
    ("same lower", [n("Conv", "x w", "y", auto_pad="SAME_LOWER")], {"w": values(4, 2, 2, 4)}),
    ("pad", [n("Pad", "x p", "y")], {"p": np.array([0, 1, 2, 0, 0, 0, 1, 3])}),
    ("hard", [n("HardSigmoid", "x", "a"), n("HardSwish", "a", "b"), n("LeakyRelu", "b", "y", alpha=0.3)], {}),
    ("clip", [n("Clip", "x low high", "y")], {"low": np.float32(-0.5), "high": np.float32(0.25)}),
    ("softmax", [n("Softmax", "x", "y", axis=1)], {}),
    ("squeeze", [n("GlobalMaxPool", "x", "p"), n("Squeeze", "p a", "s"), n("Neg", "s", "y")], {"a": np.array([2, 3])}),
    ("mean", [n("ReduceMean", "x", "y", axes=[1, 3])], {}),
    ("concat", [n("Concat", "x c", "y", axis=1)], {"c": values(1, 1, 7, 6)}),
    ("prelu", [n("PRelu", "x a", "y")], {"a": np.array([0.25], np.float32)}),
]


@pytest.mark.parametrize(("nodes", "constants"), [cut[1:] for cut in CUTS], ids=[cut[0] for cut in CUTS])
def test_operators_compute_what_onnx_runtime_does(nodes: list[onnx.NodeProto], constants: Mapping[str, Any]) -> None:
    same_as_runtime(model(nodes, constants, [1, 2, 7, 6]), values(1, 2, 7, 6))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "float16", "float64", "bool", "uint16"])
def test_tensors_are_read_from_raw_bytes_and_from_typed_fields(dtype: str) -> None:
    from crosslayer.read.onnx_file import array

    value = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    raw = numpy_helper.from_array(value, "t")
    typed = helper.make_tensor("t", raw.data_type, value.shape, value.ravel().tolist())
    assert raw.HasField("raw_data") and not typed.HasField("raw_data")
    for proto in (raw, typed):
        found = array(proto, None)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, value)


def test_four_bit_weights_are_read() -> None:
    import ml_dtypes

    codes = np.arange(-8, 7).reshape(3, 5).astype(ml_dtypes.int4)
    nodes = [
        n("DequantizeLinear", "x s", "a"),
        n("DequantizeLinear", "w s", "b"),
        n("Gemm", "a b", "g", transB=1),
        n("QuantizeLinear", "g s z", "y"),
    ]
    constants = {"s": np.float32(0.5), "w": codes, "z": np.int8(0)}
    graph = read_onnx(model(nodes, constants, [1, 5], opset=21, kind=TensorProto.INT8).SerializeToString())
    (dense,) = [node for node in graph.nodes if isinstance(node.op, Dense)]
    taps = graph.types[dense.inputs[1]].quant
    assert taps is not None and taps.bits == 4
    np.testing.assert_array_equal(graph.constants[dense.inputs[1]], codes.astype(np.int8))


def test_external_data_is_read_from_the_folder_of_the_model_only(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    made = model([n("Gemm", "x w", "y")], {"w": values(3, 2)}, [1, 3])
    path = folder / "net.onnx"
    onnx.save(made, path, save_as_external_data=True, location="w.bin", size_threshold=0, convert_attribute=True)
    assert kinds(read_onnx(path)) == ["Dense"]
    with pytest.raises(ReadError, match="give the path of the model, not its bytes"):
        read_onnx(path.read_bytes())
    (tmp_path / "secret").write_bytes(bytes(24))
    (folder / "link").symlink_to(tmp_path / "secret")
    outside = onnx.load(path, load_external_data=False)
    for place in ("../secret", str(tmp_path / "secret"), "link", "."):
        outside.graph.initializer[0].external_data[0].value = place
        path.write_bytes(outside.SerializeToString())
        with pytest.raises(ReadError, match=r"outside the model's folder|cannot be read"):
            read_onnx(path)


def test_all_that_cannot_be_read_is_told_at_once_with_its_place() -> None:
    nodes = [
        n("LSTM", "x w w", "a"),
        n("Relu", "a", "b"),
        n("Erf", "b", "c"),
        n("Conv", "x w", "d"),
        helper.make_node("Fancy", ["d"], ["e"], domain="org.example"),
        n("Concat", "c e", "y", axis=1),
    ]
    with pytest.raises(ReadError) as caught:
        read_onnx(model(nodes, {"w": values(2, 3, 2)}, [1, 2, 5, 5]).SerializeToString())
    assert str(caught.value).split("\n  ") == [
        "the ONNX model: cannot be read, for 4 reasons:",
        "node 0 'a' (LSTM): the operator LSTM is not supported; "
        "replace it by operators that are supported (docs/onnx.md lists them)",
        "node 2 'c' (Erf): the operator Erf is not supported; "
        "replace it by operators that are supported (docs/onnx.md lists them)",
        "node 3 'd' (Conv): has a kernel [2] on [1, 2, 5, 5]; correct the shapes",
        "node 4 'e' (Fancy): the operator org.example.Fancy is not supported; "
        "replace it by operators that are supported (docs/onnx.md lists them)",
    ]


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    made = model([n("Gemm", "x w b", "y")], {"w": values(3, 2), "b": values(2)}, [1, 3])
    change(made)
    return made.SerializeToString()


def huge(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].dims[:] = [1 << 30, 1 << 30]


REFUSED: list[tuple[str, bytes, str]] = [
    ("empty", b"", "holds no network"),
    ("text", b"hello, this is no model", "is no ONNX model, or a damaged one"),
    ("cut off", changed(lambda m: None)[:60], "is no ONNX model|holds no network"),
    (
        "old",
        changed(lambda m: setattr(m.opset_import[0], "version", 3)),
        "version 3 of the operators; export it in one",
    ),
    ("no output", changed(lambda m: m.graph.ClearField("output")), "holds no network"),
    ("output", changed(lambda m: setattr(m.graph.output[0], "name", "z")), "output 'z': reads 'z', which nothing"),
    ("two inputs", changed(lambda m: m.graph.ClearField("initializer")), "node 0|reads 'w', which nothing computes"),
    ("text input", changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8)), "of type unknown"),
    ("no shape", changed(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), "input 'x': has no shape"),
    (
        "free width",
        changed(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_param", "width")),
        "input 'x': axis 1 has no fixed size",
    ),
    (
        "bytes",
        changed(lambda m: setattr(m.graph.initializer[0], "raw_data", b"123")),
        r"\[3, 2\] has 3 bytes",
    ),
    ("huge", changed(huge), "more than 268435456 elements"),
    ("negative", changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -3)), "has a negative axis"),
    ("type", changed(lambda m: setattr(m.graph.initializer[0], "data_type", 8)), "elements of type 8; use one of"),
    (
        "attribute",
        changed(lambda m: m.graph.node[0].attribute.add(name="alpha", i=1, type=2)),
        "'alpha' has the wrong type",
    ),
]


@pytest.mark.parametrize(("raw", "complaint"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_file_that_cannot_be_read_gets_one_clear_error(raw: bytes, complaint: str) -> None:
    with pytest.raises(ReadError, match=complaint):
        read_onnx(raw)


def test_weights_with_a_zero_point_are_refused() -> None:
    nodes = [
        n("DequantizeLinear", "x s z", "a"),
        n("DequantizeLinear", "w s z", "b"),
        n("Gemm", "a b", "g"),
        n("QuantizeLinear", "g s z", "y"),
    ]
    constants = {"s": np.float32(0.5), "z": np.int8(3), "w": np.zeros((3, 2), np.int8)}
    with pytest.raises(ReadError, match="its weights have 8 bits and zero 3; quantize weights symmetrically"):
        read_onnx(model(nodes, constants, [1, 3], kind=TensorProto.INT8).SerializeToString())


def test_integers_are_not_padded_with_zeros_that_may_not_be_theirs() -> None:
    nodes = [n("QuantizeLinear", "x s z", "q"), n("Pad", "q p", "r"), n("DequantizeLinear", "r s z", "y")]
    constants = {"s": np.float32(0.5), "z": np.int8(3), "p": np.array([0, 0, 0, 2])}
    with pytest.raises(ReadError, match=r"node 1 'r' \(Pad\): computes with integers as if they were numbers"):
        read_onnx(model(nodes, constants, [1, 3]).SerializeToString())


def test_what_a_quantized_file_computes_in_floats_stays_in_floats() -> None:
    nodes = [n("QuantizeLinear", "x s z", "q"), n("DequantizeLinear", "q s z", "a"), n("Gemm", "a w", "y")]
    constants = {"s": np.float32(0.5), "z": np.int8(3), "w": values(3, 2)}
    graph = same_as_runtime(model(nodes, constants, [1, 3]), values(1, 3))
    assert kinds(graph) == ["Quantize", "Dequantize", "Dense"]


def test_what_no_output_needs_is_not_read() -> None:
    made = model([n("LSTM", "x x x", "unused"), n("Relu", "x", "y")], {}, [1, 3])
    assert kinds(read_onnx(made.SerializeToString())) == ["Relu"]


def test_an_absent_file_and_an_absent_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReadError, match=r"absent\.onnx: cannot be read"):
        read_onnx(tmp_path / "absent.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ToolError, match=r"needs the package onnx; install crosslayer\[convert\]"):
        read_onnx(b"")


def test_constants_keep_their_codes_when_their_axes_move() -> None:
    from crosslayer.core.quant import Quant

    code = Quant(bits=8, scale=(1.0, 2.0, 3.0), axis=1)
    fixed = Fixed(value=np.arange(24, dtype=np.int8).reshape(2, 3, 4), code=code)
    for order in itertools.permutations(range(3)):
        moved = fixed.moved(*order)
        assert moved.code is not None
        np.testing.assert_array_equal(moved.real(), fixed.real().transpose(order))
    for shape in ((2, 3, 2, 2), (1, 2, 1, 3, 4), (6, 4), (24,)):
        np.testing.assert_array_equal(fixed.reshaped(shape).real(), fixed.real().reshape(shape))
    assert fixed.reshaped((2, 3, 2, 2)).code == code


def test_no_transposition_is_left_where_two_cancel() -> None:
    nodes = [n("Transpose", "x", "a", perm=[0, 2, 1]), n("Relu", "a", "b"), n("Transpose", "b", "y", perm=[0, 2, 1])]
    graph = same_as_runtime(model(nodes, {}, [1, 3, 4]), values(1, 3, 4))
    assert not [node for node in graph.nodes if isinstance(node.op, (Transpose, DepthwiseConv2d))]

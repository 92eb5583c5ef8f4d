"""Damaged TFLite, ONNX and PyTorch files: one clear error each, never another exception, in bounded time and memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.testing.chance import Seeded
from crosslayer.testing.graphs import float_graph, integer_graph
from crosslayer.write.onnx import write_onnx
from crosslayer.write.tflite import write_tflite
from test_read_tflite import CODE, everything

KINDS = ("tflite", "onnx", "pt2")
WORKER = Path(__file__).with_name("fuzz_worker.py")


def fuzz(kind: str, folder: Path, first: int, count: int) -> dict[str, Any]:
    """What came of mutated files, read in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(WORKER), kind, str(folder), str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of small valid files for each format."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    graphs: list[Graph] = [float_graph(Seeded(seed)) for seed in range(6)]
    for seed in range(200):
        graph = integer_graph(Seeded(seed), Rounding.DOUBLE)
        if all(kind.quant is None or kind.quant.bits in (8, 32) for kind in graph.types.values()):
            graphs.append(graph)
    for i, graph in enumerate(graphs[:16]):
        (folders["onnx"] / f"{i}.onnx").write_bytes(write_onnx(graph))
    for name, code in (("floats", None), ("integers", CODE)):
        (folders["tflite"] / f"{name}.tflite").write_bytes(write_tflite(everything(code)))
    (folders["onnx"] / "shapes.onnx").write_bytes(with_shapes())
    for name, content in programs().items():
        (folders["pt2"] / f"{name}.pt2").write_bytes(content)
    return folders


def with_shapes() -> bytes:
    """A network that computes a shape, as exporters write them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("ConstantOfShape", ["one"], ["fill"], value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Concat", ["batch", "fill"], ["wanted"], axis=0),
        helper.make_node("Pad", ["x", "margins"], ["padded"]),
        helper.make_node("Reshape", ["padded", "wanted"], ["flat"]),
        helper.make_node("Expand", ["half", "sides"], ["halves"]),
        helper.make_node("Mul", ["flat", "halves"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["y"]),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "margins": np.array([0, 0, 1, 0, 0, 0, 1, 2]),
        "half": np.array(0.5, np.float32),
        "sides": np.array([1, 72]),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 4, 4])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def programs() -> dict[str, bytes]:
    from torch import nn

    from crosslayer.read.torch import exported

    image = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2, 2, 1, ceil_mode=True),
        nn.Flatten(), nn.Linear(36, 3), nn.Softmax(-1),
    )  # fmt: skip
    signal = nn.Sequential(
        nn.Conv1d(2, 3, 3, padding="same"), nn.Hardtanh(), nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )
    return {"image": exported(image, (2, 5, 5)), "signal": exported(signal, (2, 12))}


def check(found: dict[str, Any]) -> None:
    assert found["failed"] == []
    assert found["read"] > 0 and found["refused"] > 0
    assert found["grown"] < 1 << 30


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind: str, files: dict[str, Path]) -> None:
    check(fuzz(kind, files[kind], 0, 1000))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_forty_thousand_damaged_files_are_read_or_refused(kind: str, files: dict[str, Path]) -> None:
    check(fuzz(kind, files[kind], 1000, 40_000))

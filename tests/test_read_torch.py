"""PyTorch modules and .pt2 files: the same function, layouts, and archives that are refused."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses
from torch import nn

from crosslayer.core.errors import ReadError
from crosslayer.core.graph.graph import Graph
from crosslayer.execute import reference
from crosslayer.read.torch import exported, from_module, pt2_reading, read_pt2

Shape = tuple[int, ...]


class Function(nn.Module):
    """A function of a tensor and some modules."""

    def __init__(self, function: Callable[..., torch.Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.ModuleList(modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.inner)


class Residual(nn.Module):
    """Two convolutions beside one or none."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside))
        self.second = nn.Sequential(nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside))
        self.beside = nn.Identity() if stride == 1 else nn.Conv2d(inside, outside, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.beside(x))


def shuffled(x: torch.Tensor, first: nn.Module, last: nn.Module) -> torch.Tensor:
    y = first(x)
    return last(y.view(len(y), 2, 4, 6, 6).transpose(1, 2).reshape(len(y), 8, 6, 6))


def gated(x: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    return F.silu(conv(x)) * F.hardsigmoid(conv(x)) - F.softmax(x, dim=1)


MODULES: dict[str, tuple[Callable[[], nn.Module], Shape, Shape, list[str]]] = {
    "lenet": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.LeakyReLU(0.2),
            nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(256, 10), nn.Sigmoid(),
        ),
        (1, 28, 28),
        (28, 28, 1),
        ["Conv2d", "Tanh", "MaxPool", "Conv2d", "LeakyRelu", "MaxPool", "Reshape", "Dense", "Sigmoid"],
    ),
    "resnet": (
        lambda: nn.Sequential(
            Residual(3, 3, 1), Residual(3, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
        ),
        (3, 8, 8),
        (8, 8, 3),
        [*["Conv2d", "BatchNorm", "Relu", "Conv2d", "BatchNorm", "Add", "Relu"],
         *["Conv2d", "BatchNorm", "Relu", "Conv2d", "BatchNorm", "Conv2d", "Add", "Relu", "GlobalMean", "Dense"]],
    ),
    "mobilenet": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(inplace=True), nn.Conv2d(8, 16, 3, 1, "same", groups=8, dilation=2),
            nn.Hardswish(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(16, 4, 1, groups=2), nn.AdaptiveAvgPool2d((2, 2)),
            nn.Flatten(), nn.Dropout(), nn.Linear(16, 5), nn.Softmax(-1),
        ),
        (3, 16, 16),
        (16, 16, 3),
        ["Conv2d", "Relu6", "DepthwiseConv2d", "HardSwish", "Pad", "AveragePool", "Conv2d", "AveragePool", "Reshape",
         "Dense", "Softmax"],
    ),
    "one-dimensional": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 5, padding="same"), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, 2, 1, groups=8), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3),
        ),
        (2, 64),
        (1, 64, 2),
        ["Conv2d", "BatchNorm", "Relu", "MaxPool", "DepthwiseConv2d", "AveragePool", "GlobalMean", "Dense"],
    ),
    "dense": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(48, 20), nn.BatchNorm1d(20), nn.Hardtanh(), nn.Linear(20, 5, bias=False)
        ),
        (3, 4, 4),
        (4, 4, 3),
        ["Reshape", "Dense", "BatchNorm", "Clamp", "Dense"],
    ),
    "sequence": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 4)),
        (10, 6),
        (10, 6),
        ["Reshape", "Conv2d", "Reshape", "LeakyRelu", "Reshape", "Conv2d", "Reshape"],
    ),
    "shuffle": (
        lambda: Function(shuffled, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)),
        (3, 8, 8),
        (8, 8, 3),
        ["Conv2d", "Reshape", "Transpose", "Reshape", "Conv2d"],
    ),
    "channels last": (
        lambda: Function(lambda x, last: last(x.permute(0, 2, 3, 1)).mean((1, 2)), nn.Linear(3, 7)),
        (3, 5, 6),
        (5, 6, 3),
        ["Conv2d", "GlobalMean"],
    ),
    "gates": (
        lambda: Function(gated, nn.Conv2d(4, 4, 3, padding=1)),
        (4, 5, 6),
        (5, 6, 4),
        ["Conv2d", "Sigmoid", "Mul", "Conv2d", "HardSigmoid", "Mul", "Softmax", "DepthwiseConv2d", "Add"],
    ),
    "arithmetic": (
        lambda: Function(lambda x: torch.cat([(2 * x - 1) / 4, torch.add(1 - x, x, alpha=2), -x], 1)),
        (2, 4, 5),
        (4, 5, 2),
        [*["DepthwiseConv2d", "BatchNorm", "BatchNorm", "DepthwiseConv2d", "BatchNorm", "DepthwiseConv2d"],
         *["Add", "DepthwiseConv2d", "Concat"]],
    ),
    "pools": (
        lambda: nn.Sequential(
            nn.ZeroPad2d((1, 2, 0, 3)), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            nn.MaxPool2d(3, 2, 1, 1, ceil_mode=True), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        ),
        (2, 13, 12),
        (13, 12, 2),
        ["Pad", "AveragePool", "MaxPool", "MaxPool"],
    ),
}  # fmt: skip


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """A module with random weights and statistics."""
    torch.manual_seed(0)
    module = make()
    for inner in module.modules():
        if isinstance(inner, (nn.BatchNorm1d, nn.BatchNorm2d)):
            inner.running_mean = torch.randn(inner.num_features)
            inner.running_var = torch.rand(inner.num_features) + 0.5
    return module.eval()


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


@pytest.mark.parametrize("name", list(MODULES))
def test_a_module_and_its_graph_compute_the_same(name: str) -> None:
    make, taken, stored, expected = MODULES[name]
    module = trained(make)
    reading = pt2_reading(exported(module, taken))
    assert kinds(reading.graph) == expected
    assert reading.graph.types[reading.graph.inputs[0]].shape == stored
    x = torch.randn(1, *taken)
    found = reading.results[0].tensor(reference.run(reading.graph, reading.source.stored(x.numpy())))
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_a_module_stays_in_the_mode_it_was_in(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    graph = from_module(module, (3,))
    assert module.training
    path = tmp_path / "net.pt2"
    path.write_bytes(exported(module, (3,)))
    assert read_pt2(path) == graph


def test_a_batch_axis_of_any_size_is_dropped() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.zeros(4, 2, 6, 6),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    assert kinds(read_pt2(file.getvalue())) == ["Conv2d", "Reshape", "Dense"]


def test_quantized_programs_become_integers() -> None:
    import torch.ao.quantization.fx._decomposed  # registers the operations

    decomposed = torch.ops.quantized_decomposed

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8))
            self.register_buffer("scales", torch.rand(4) / 100 + 0.01)
            self.register_buffer("zeros", torch.zeros(4, dtype=torch.int64))
            self.bias = nn.Parameter(torch.randn(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = decomposed.quantize_per_tensor(x, 0.03, 131, 0, 255, torch.uint8)
            x = decomposed.dequantize_per_tensor(q, 0.03, 131, 0, 255, torch.uint8)
            w = decomposed.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
            y = F.relu(F.conv2d(x, w, self.bias))
            q = decomposed.quantize_per_tensor(y, 0.05, -128, -128, 127, torch.int8)
            return decomposed.dequantize_per_tensor(q, 0.05, -128, -128, 127, torch.int8)

    torch.manual_seed(0)
    module = Quantized().eval()
    reading = pt2_reading(exported(module, (3, 6, 5)))
    assert kinds(reading.graph) == ["Quantize", "Conv2d", "Dequantize"]
    x = torch.randn(4, 3, 6, 5)
    found = reading.results[0].tensor(reference.run(reading.graph, reading.source.stored(x.numpy())))
    with torch.no_grad():
        steps = (found - module(x).numpy()) / 0.05
    assert np.abs(steps).max() < 1.01


def test_all_that_cannot_be_read_is_told_at_once() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.GELU(), nn.ReLU(), nn.PReLU(4))
    with pytest.raises(ReadError) as caught:
        from_module(module, (3, 5, 5))
    lines = str(caught.value).split("\n  ")
    assert lines[0] == "the PyTorch model: cannot be read, for 2 reasons:"
    assert lines[1].startswith("'conv_transpose2d' (aten.conv_transpose2d.input): the operation aten.conv_transpose2d")
    assert lines[2].startswith("'gelu' (aten.gelu.default): the operation aten.gelu.default is not supported; replace")


def test_a_module_that_cannot_be_exported_gets_one_clear_error() -> None:
    module = Function(lambda x: x if float(x.sum()) > 0 else -x)
    with pytest.raises(ReadError, match=r"cannot be exported .*make torch\.export\.export accept it"):
        from_module(module, (3,))


CONTENT = exported(trained(lambda: nn.Linear(3, 2)), (3,))


def rewritten(change: Callable[[str, bytes], bytes | None], *, pressed: bool = False) -> bytes:
    """The archive with each of its files changed, or left out (None)."""
    result = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(CONTENT)) as old,
        zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED if pressed else zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return result.getvalue()


def in_json(suffix: str, change: Callable[[Any], object]) -> bytes:
    def rewrite(name: str, content: bytes) -> bytes:
        if not name.endswith(suffix):
            return content
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return rewritten(rewrite)


def weight(document: Any) -> Any:
    return document["config"]["weight"]


def graph(document: Any) -> Any:
    return document["graph_module"]["graph"]


CONFIG = "model_weights_config.json"
REFUSED: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is no .pt2 archive"),
    ("cut off", CONTENT[:200], "is no .pt2 archive"),
    ("no program", rewritten(lambda name, raw: None if name.endswith("model.json") else raw), "holds no exported"),
    ("pressed", rewritten(lambda name, raw: raw, pressed=True), "is compressed or cut off"),
    ("big-endian", rewritten(lambda name, raw: b"big" if name.endswith("byteorder") else raw), "big-endian machine"),
    ("no JSON", rewritten(lambda name, raw: b"{" if name.endswith("model.json") else raw), "model.json is no JSON"),
    ("deep", rewritten(lambda name, raw: b"[" * 10**5 if name.endswith("model.json") else raw), "is no JSON"),
    ("version", in_json("model.json", lambda d: d["schema_version"].update(major=9)), "version 9 of the schema, not 8"),
    ("pickle", in_json(CONFIG, lambda d: weight(d).update(use_pickle=True)), "holds a pickled tensor, which could run"),
    ("path", in_json(CONFIG, lambda d: weight(d).update(path_name="../../../x")), "is absent or damaged"),
    ("dtype", in_json(CONFIG, lambda d: weight(d)["tensor_meta"].update(dtype=99)), "tensor of an unknown type"),
    ("sizes", in_json(CONFIG, lambda d: weight(d)["tensor_meta"]["sizes"][0].update(as_int=9)), "outside its 24 bytes"),
    ("stride", in_json(CONFIG, lambda d: weight(d)["tensor_meta"]["strides"][0].update(as_int=-3)), "lies outside"),
    ("huge", in_json(CONFIG, lambda d: weight(d)["tensor_meta"]["sizes"][0].update(as_int=1 << 40)), "has more than"),
    ("offset", in_json(CONFIG, lambda d: weight(d)["tensor_meta"]["storage_offset"].update(as_int=1)), "outside its"),
    ("no weight", in_json(CONFIG, lambda d: d["config"].pop("weight")), "lacks the tensor 'weight'"),
    ("inputs", in_json("model.json", lambda d: graph(d)["nodes"][0]["inputs"].pop(0)), "lacks the tensor 'input'"),
    ("node", in_json("model.json", lambda d: graph(d)["nodes"].clear()), "which nothing computes before it"),
    ("result", in_json("model.json", lambda d: graph(d)["nodes"][0].update(target=3)), "'target' is not what"),
    ("axes", in_json("model.json", lambda d: graph(d)["tensor_values"]["input"]["sizes"].clear()), "multiplies"),
]


@pytest.mark.parametrize(("content", "complaint"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_an_archive_that_cannot_be_read_gets_one_clear_error(content: bytes, complaint: str) -> None:
    with pytest.raises(ReadError, match=complaint):
        read_pt2(content)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"absent\.pt2: is no \.pt2 archive"):
        read_pt2(tmp_path / "absent.pt2")


def test_reading_a_file_does_not_load_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(CONTENT)
    program = (
        "import sys; from pathlib import Path; from crosslayer.read.torch import read_pt2; "
        f"read_pt2(Path({str(path)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

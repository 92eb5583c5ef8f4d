"""Every operation by the conformance kit, and the lists that must agree with the files."""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crosslayer
from crosslayer.core.errors import GraphError, ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph import ops
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Op, Params, Shape, Slot
from crosslayer.core.graph.ops import (
    OPS,
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    DepthwiseConv2d,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Requantize,
    Reshape,
    Softmax,
    Tanh,
    Windows,
)
from crosslayer.core.graph.ops.windows import same
from crosslayer.core.quant import Array, Quant
from crosslayer.execute import reference
from crosslayer.kernels.choose import KERNELS as UNITS
from crosslayer.testing.chance import Chance, Seeded, grown
from crosslayer.testing.executors import check_exact, check_executors, random_inputs
from crosslayer.testing.graphs import has_integers, has_wide_integers, operation_graph
from crosslayer.testing.operations import check_operation

INTEGER_OPS = [op for op in OPS if has_integers(op)]
KERNELS = resources.files("crosslayer.kernels")
EXTEND = Path(__file__).parents[1] / "docs" / "extend.md"
WIDE = Windows(kernel=(3, 3))


@pytest.mark.parametrize("op", OPS)
def test_an_operation_keeps_its_promises(op: type[Op]) -> None:
    check_operation(op)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_an_operation_keeps_its_promises_in_many_networks(op: type[Op]) -> None:
    check_operation(op, graphs=400, compiled=12)


def another_value(self: Mul, params: Params, *codes: Array) -> Array:
    return np.clip(codes[0].astype(np.int64) + 3, -2, 1)


def no_such_operand(self: Op) -> list[Slot]:
    return [(3, -1)]


def another_shape(self: Op, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0], 1)


BROKEN: list[tuple[type[Op], str, Any, str]] = [
    (Mul, "integer", another_value, "steps away|bytes differ"),
    (Softmax, "frozen", no_such_operand, "ties operand 3, which is not there"),
    (Requantize, "infer", another_shape, "infers .*, computes"),
    (Add, "kernel", "absent_s8", r"kernels/absent_s8\.h is absent; write it"),
    (Add, "kernel", "mul_s8", "the firmware|compile|error"),
    (Pad, "is_view", True, "is a view and has a kernel"),
    (Dense, "channel_axis", None, "says which axis of the weight"),
    (GlobalMean, "__doc__", None, "has no docstring"),
]


@pytest.mark.parametrize(("op", "attribute", "value", "complaint"), BROKEN)
def test_the_kit_notices_what_is_broken(
    op: type[Op], attribute: str, value: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(op, attribute, value)
    with pytest.raises((AssertionError, ToolError), match=complaint):
        check_operation(op, graphs=5)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("op", INTEGER_OPS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_fast_executor_is_the_judge_around_any_operation(
    op: type[Op], rounding: Rounding, data: st.DataObject
) -> None:
    def make(chance: Chance) -> None:
        graph = operation_graph(chance, op, rounding)
        check_exact(graph, random_inputs(graph, chance, 8))

    data.draw(grown(make))


def test_files_and_list_agree() -> None:
    found: set[type[Op]] = set()
    for module in pkgutil.iter_modules(ops.__path__):
        content = vars(importlib.import_module(f"{ops.__name__}.{module.name}")).values()
        kinds = (
            v for v in content if isinstance(v, type) and issubclass(v, Op) and v.__module__.startswith(ops.__name__)
        )
        found |= {kind for kind in kinds if not kind.__abstractmethods__}
    assert found == set(OPS)
    assert [op.__name__ for op in OPS] == sorted(op.__name__ for op in OPS)


def test_every_kernel_file_is_some_operations_kernel() -> None:
    """Files with a kernel of another name than theirs are no operation's but those of several."""
    named = {kernel for op in OPS for kernel in (op.kernel, op.wide_kernel) if kernel}
    files = {file.name.removesuffix(".h"): text_of(file) for file in KERNELS.iterdir()}
    assert {name for name, text in files.items() if f"CL_KERNEL void {name}(" in text} == named


def text_of(file: Traversable) -> str:
    return file.read_text(encoding="utf-8") if file.name.endswith(".h") else ""


def test_every_unit_is_some_nodes_kernel() -> None:
    units = {Path(file.name).stem for file in KERNELS.iterdir() if file.name.endswith(".c")}
    assert units == {
        "run",
        "group",
        "stream",
        "tile",
        "weight_check",
        "weight_restore",
        *(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(k).__name__).lower() for k in UNITS),
    }


@pytest.mark.parametrize("op", [op for op in OPS if not has_integers(op)])
def test_an_operation_without_integers_says_what_to_do(op: type[Op]) -> None:
    graph = operation_graph(Seeded(0), op, None)
    node = graph.nodes[-1]
    with pytest.raises(GraphError, match="no integer meaning; run"):
        node.op.lower(graph.operands(node), graph.types[node.name], Rounding.DOUBLE)
    with pytest.raises(GraphError, match="no integer meaning; run"):
        node.op.integer({}, np.zeros((1, 1)))


@pytest.mark.parametrize("op", INTEGER_OPS)
def test_codes_that_no_kernel_reads_are_refused(op: type[Op]) -> None:
    graph = operation_graph(Seeded(0), op, Rounding.DOUBLE)
    codes: list[tuple[Quant, str]] = [
        (Quant(bits=8, scale=(1.0, 2.0), axis=0), "one scale only"),
        (Quant(bits=1, scale=(1.0,)), "activations of 2…16 bits, not 1"),
        (Quant(bits=32, scale=(1.0,)), "activations of 2…16 bits, not 32"),
        (Quant(bits=16, scale=(1.0,), zero=(3,)), "more than 8 bits must have zero 0"),
    ]
    if not has_wide_integers(op):
        codes.append((Quant(bits=16, scale=(1.0,)), "no integer meaning for codes of more than 8 bits"))
    for code, complaint in codes:
        types = {
            name: kind if kind.quant is None or name in graph.constants else replace(kind, quant=code)
            for name, kind in graph.types.items()
        }
        with pytest.raises(GraphError, match=complaint):
            _ = replace(graph, types=types).lowered


def dense(
    *, source: Quant, taps: Quant, bias_bits: int, weight: int = 1, inputs: int = 4, result: Quant | None = None
) -> Graph:
    b = Builder()
    w = b.constant("w", np.full((1, inputs), weight), taps)
    c = b.constant("c", np.zeros(1), Quant(bits=bias_bits, scale=(1.0,)))
    return b.graph(b.add(Dense(), b.input("x", (inputs,), source), w, c, quant=result or source))


def unary(op: Op, source: Quant, result: Quant, shape: tuple[int, ...] = (2,)) -> Graph:
    b = Builder()
    return b.graph(b.add(op, b.input("x", shape, source), quant=result))


BYTE, WORD, SHARE = Quant(bits=8, scale=(1.0,)), Quant(bits=16, scale=(1.0,)), Quant(bits=16, scale=(1 / 32768,))
NO_CODES: list[tuple[Graph, str]] = [
    (dense(source=BYTE, taps=Quant(bits=1, scale=(1.0,)), bias_bits=32, weight=0), "1 bits must be −1 and \\+1"),
    (dense(source=BYTE, taps=Quant(bits=3, scale=(1.0,)), bias_bits=32, weight=4), "3 bits must be -4…3; encode them"),
    (dense(source=BYTE, taps=WORD, bias_bits=32), "weights of up to 8 bits, and up to 16 where"),
    (dense(source=BYTE, taps=BYTE, bias_bits=64), "the bias must have 32 bits, not 64"),
    (dense(source=WORD, taps=BYTE, bias_bits=16), "the bias must have 32 bits or 64, not 16"),
    (dense(source=WORD, taps=BYTE, bias_bits=32, weight=127, inputs=517), "sums could grow past 32 bits"),
    (dense(source=WORD, taps=WORD, bias_bits=64, weight=2**15 - 1, inputs=2**17 + 9), "sums could grow past 48 bits"),
    (dense(source=WORD, taps=BYTE, bias_bits=64, result=SHARE), "scale of the result is too small"),
    (dense(source=WORD, taps=BYTE, bias_bits=64, result=BYTE), "put a Requantize between them"),
    (unary(GlobalMean(), WORD, WORD, (256, 256, 1)), "sums of 65536 values could grow past 32 bits"),
    (unary(LeakyRelu(slope=-0.5), WORD, WORD), "a falling slope has no integer meaning"),
    (unary(Softmax(), Quant(bits=16, scale=(6.0,)), SHARE), "a scale of at most 5 and at most 65535 values"),
    (unary(Tanh(), Quant(bits=16, scale=(6.0,)), SHARE), "too large: at most 5"),
]


@pytest.mark.parametrize(("graph", "complaint"), NO_CODES)
def test_codes_that_an_operation_cannot_compute_are_refused(graph: Graph, complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        _ = graph.lowered


REFUSED = [
    (Conv2d(windows=WIDE), ((4, 4),), "put a Reshape before it"),
    (Conv2d(windows=WIDE), ((2, 2, 1), (1, 3, 3, 1), (1,)), "the window spans 3×3, more than the padded input"),
    (Conv2d(windows=WIDE), ((4, 4, 1), (1, 2, 3, 1), (1,)), r"weight must be \(out, 3, 3, in / groups\)"),
    (Conv2d(windows=WIDE), ((4, 4, 2), (1, 3, 3, 1), (1,)), "expects 1 input channels and outputs in 1 groups"),
    (Conv2d(windows=WIDE, groups=2), ((4, 4, 2), (3, 3, 3, 1), (3,)), "in 2 groups, got 2 and 3"),
    (Conv2d(windows=WIDE), ((4, 4, 1), (5, 3, 3, 1), (4,)), "bias must have 5 values, got"),
    (DepthwiseConv2d(windows=WIDE), ((4, 4, 2), (3, 3, 3), (3,)), "for 2 channels × 1"),
    (Dense(), ((4, 4), (1, 4), (1,)), "expects a vector, got .*; put a Reshape before it"),
    (Dense(), ((4,), (1, 5), (1,)), r"expects weight \(out, 4\)"),
    (MaxPool(windows=Windows(kernel=(1, 1), padding=(1, 0, 0, 0))), ((3, 3, 1),), "wholly in the padding; pad less"),
    (AveragePool(windows=Windows(kernel=(2, 2), dilation=(9, 1), padding=(5, 5, 0, 0))), ((1, 3, 1),), "wholly in the"),
    (GlobalMean(), ((3,),), r"expects an input \(height, width, channels\)"),
    (Pad(margins=(0, 0, 0, 0)), ((3,),), r"pads an input \(height, width, channels\)"),
    (Reshape(shape=(5,)), ((2, 3),), r"cannot give 6 values the shape \[5\]"),
    (Concat(axis=2), ((2, 3),), r"axis 2 does not exist in \[2, 3\]"),
    (Concat(), ((2, 3), (1, 3)), "operands must agree outside axis 1"),
    (BatchNorm(), ((2, 3), (3,), (3,), (3,), (2,)), "expects four vectors of 3 values"),
]


@pytest.mark.parametrize(("op", "shapes", "complaint"), REFUSED)
def test_shapes_that_do_not_fit_are_refused_in_words(
    op: Op, shapes: tuple[tuple[int, ...], ...], complaint: str
) -> None:
    with pytest.raises(GraphError, match=complaint):
        op.infer(shapes if len(shapes) > 1 or not op.weights else (*shapes, (1, 3, 3, 1), (1,)))


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "margin"), [(0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0), (1, 1, 1, -1)]
)
def test_attributes_without_sense_do_not_construct(kernel: int, stride: int, dilation: int, margin: int) -> None:
    with pytest.raises(GraphError, match="must be at least 1, padding at least 0"):
        Windows(kernel=(1, kernel), stride=(stride, 1), dilation=(1, dilation), padding=(0, 0, margin, 0))
    with pytest.raises(GraphError, match="must be less than 65536"):
        Windows(kernel=(1, 1), padding=(0, 0, 0, 1 << 16))
    with pytest.raises(GraphError, match="epsilon must lie between 0 and 1"):
        BatchNorm(epsilon=0.0)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
def test_same_padding_keeps_one_output_per_stride(size: int, kernel: int, stride: int, dilation: int) -> None:
    shape, pair, steps, gaps = (size, size, 1), (kernel, kernel), (stride, stride), (dilation, dilation)
    top, bottom, left, right = same(shape, pair, steps, gaps)
    windows = Windows(kernel=pair, stride=steps, dilation=gaps, padding=(top, bottom, left, right))
    assert windows.output(shape) == (-(-size // stride),) * 2
    assert 0 <= bottom - top <= 1
    assert (left, right) == (top, bottom)


@given(grown(lambda chance: operation_graph(chance, AveragePool, None)))
def test_a_window_counts_the_places_inside_the_input(graph: Graph) -> None:
    (node,) = (n for n in graph.nodes if isinstance(n.op, AveragePool))
    assert isinstance(node.op, AveragePool)
    windows, shape = node.op.windows, graph.types[node.inputs[0]].shape
    counts = windows.counts(shape)
    for (i, j), count in np.ndenumerate(counts):
        rows = [i * windows.stride[0] + k * windows.dilation[0] - windows.padding[0] for k in range(windows.kernel[0])]
        columns = [
            j * windows.stride[1] + k * windows.dilation[1] - windows.padding[2] for k in range(windows.kernel[1])
        ]
        assert count == sum(0 <= r < shape[0] for r in rows) * sum(0 <= c < shape[1] for c in columns)


def test_macs_are_counted_by_hand() -> None:
    conv = Conv2d(windows=Windows(kernel=(3, 2), stride=(2, 1)), groups=2)
    assert conv.macs([(7, 5, 4), (6, 3, 2, 2), (6,)], (3, 4, 6)) == 3 * 4 * 6 * (3 * 2 * 2)
    depthwise = DepthwiseConv2d(windows=Windows(kernel=(3, 3)), multiplier=2)
    assert depthwise.macs([(5, 5, 3), (3, 3, 6), (6,)], (3, 3, 6)) == 3 * 3 * 6 * 9
    assert Dense().macs([(7,), (5, 7), (5,)], (5,)) == 35
    assert Softmax().macs([(7,)], (7,)) == 0


@pytest.mark.parametrize("rounding", Rounding)
def test_sums_and_scales_that_32_bits_cannot_hold_are_refused(rounding: Rounding) -> None:
    code = Quant(bits=8, scale=(0.5,), zero=(-128,))
    taps, sums = Quant(bits=8, scale=(1.0,)), Quant(bits=32, scale=(0.5,))
    for bias, scale, complaint in (
        (2**31 - 1 - 2 * 127 * 255, 2.0, None),
        (2**31 - 2 * 127 * 255, 2.0, "its sums could grow past 32 bits"),
        (0, 1e-12, "the scale of the result is too small"),
    ):
        b = Builder(rounding)
        x, w = b.input("x", (2,), code), b.constant("w", np.array([[127, -127]]), taps)
        c = b.constant("c", np.array([bias]), sums)
        graph = b.graph(b.add(Dense(), x, w, c, name="y", quant=replace(code, scale=(scale,))))
        if complaint is None:
            assert len(graph.lowered) == 1
            continue
        with pytest.raises(GraphError, match=rf"y \(Dense\): {complaint}"):
            _ = graph.lowered


@pytest.mark.parametrize("rounding", Rounding)
def test_shares_of_values_that_hardly_differ_are_equal(rounding: Rounding, tmp_path: Path) -> None:
    """Logits of an untrained network: their scale is so small that a fixed-point shift would go the other way."""
    for scale in (1e-30, 1e-9, 2.0**-26, 1e30):
        b = Builder(rounding)
        graph = b.graph(b.add(Softmax(), b.input("x", (8,), Quant(bits=8, scale=(scale,)))))
        x = random_inputs(graph, Seeded(0), 20)
        check_executors(graph, tmp_path / "firmware", x)
        if scale < 1:
            assert (reference.run(graph, x) == -128 + 256 // 8).all()


def test_more_shares_than_32_bits_can_sum_are_refused() -> None:
    for rounding, refused in ((Rounding.DOUBLE, True), (Rounding.REFERENCE, True), (Rounding.FLOAT, False)):
        b = Builder(rounding)
        graph = b.graph(b.add(Softmax(), b.input("x", (4096,), Quant(bits=8, scale=(0.1,)))))
        if refused:
            with pytest.raises(GraphError, match=r"shares of 4096 values; .* up to 4095"):
                _ = graph.lowered
        else:
            assert len(graph.lowered) == 1


@pytest.mark.parametrize("rounding", Rounding)
def test_a_clamp_is_what_its_real_function_says(rounding: Rounding) -> None:
    """Fused activations clamp codes where the float function clamps values."""
    for zero in (-128, -3, 60):
        code = Quant(bits=8, scale=(0.07,), zero=(zero,))
        for activation in Activation:
            b = Builder(rounding)
            x = b.input("x", (256,), code)
            weight = b.constant("w", np.full((1, 256), 1), Quant(bits=8, scale=(1.0,), axis=None))
            bias = b.constant("b", np.zeros(1), Quant(bits=32, scale=code.scale))
            graph = b.graph(b.add(Dense(activation=activation), x, weight, bias, quant=code))
            codes = np.zeros((256, 256), np.int8) + np.int8(zero)
            codes[:, 0] = np.arange(-128, 128)
            expected = code.encode(activation.real(np, code.decode(codes[:, 0])))
            assert np.abs(reference.run(graph, codes)[:, 0].astype(int) - expected).max() <= 1


def test_the_example_of_the_extension_page_is_an_operation(tmp_path: Path) -> None:
    """Three files, in a copy of the package, and the kit passes: the page is true, and three files are enough."""
    page = EXTEND.read_text(encoding="utf-8")
    package = tmp_path / "crosslayer"
    shutil.copytree(Path(crosslayer.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    meaning, row, kernel = re.findall(r"\*\*\d\.\*\*.*?```\w*\n(.*?)```", page, re.DOTALL)
    (package / "core/graph/ops/maximum.py").write_text(meaning, encoding="utf-8")
    (package / "kernels/maximum_s8.h").write_text(kernel, encoding="utf-8")
    listing = package / "core/graph/ops/__init__.py"
    line, entry = row.splitlines()[0], re.search(r"(\w+), \.\.\.\)", row)
    assert entry
    text = listing.read_text(encoding="utf-8").replace("OPS: ", f"{line}\n\nOPS: ", 1)
    listing.write_text(
        text.replace("    MaxPool,\n    Mul,", f"    MaxPool,\n    {entry[1]},\n    Mul,"), encoding="utf-8"
    )
    program = (
        "from crosslayer.core.graph.ops import Maximum\n"
        "from crosslayer.testing.operations import check_operation\n"
        "check_operation(Maximum)\n"
        "from crosslayer.core.fixed import Rounding\n"
        "from crosslayer.core.graph.build import Builder\n"
        "from crosslayer.core.graph.ops import Tanh\n"
        "from crosslayer.quantize.affine import quantize\n"
        "b = Builder()\n"
        "x = b.input('x', (3,))\n"
        "graph = b.graph(b.add(Maximum(), x, b.add(Tanh(), x, name='t'), name='y'))\n"
        "quantize(graph, {'x': (-2, 2), 't': (-1, 1), 'y': (-1, 2)}, Rounding.DOUBLE)\n"
        "import crosslayer; print(crosslayer.__file__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(package))

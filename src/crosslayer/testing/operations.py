"""What every operation must do. For people who add one: `check_operation(MyOp)` in a test is all it takes."""

import dataclasses
import itertools
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import OUTPUT, Op, Slot, is_wide
from crosslayer.core.graph.ops import OPS, Dequantize, Softmax
from crosslayer.core.quant import Array
from crosslayer.execute import reference
from crosslayer.testing.chance import Seeded
from crosslayer.testing.compiler import compile_strictly
from crosslayer.testing.executors import check_exact, check_executors, random_inputs
from crosslayer.testing.graphs import has_integers, has_wide_integers, operation_graph

_RULES = (
    "#define CL_RULE_FLOAT 0\n#define CL_DENSE_SINGLE 0\n",
    "#define CL_RULE_FLOAT 0\n#define CL_DENSE_SINGLE 1\n",
    "#define CL_RULE_FLOAT 1\n#define CL_DENSE_SINGLE 0\n",
)
_STEPS = 2.01  # how far an integer result may be from the real one, in steps of its code
_WIDE_STEPS = 4.01  # in those of a code of more than 8 bits, which come from shorter factors and interpolated tables
_WIDE_SHARES = 80.0  # the int16 softmax counts every share below e^-10 as e^-10, 1.5 steps


def check_operation(op: type[Op], *, graphs: int = 20, compiled: int = 1) -> None:
    """`op` keeps all promises of an operation. Raises `AssertionError` that says which one it breaks.

    Under each rounding rule `graphs` random networks around it are run by the judge and the fast executor, `compiled`
    of them as C too. The networks are the same each time.
    """
    check_declaration(op)
    for kernel in {op.kernel, op.wide_kernel} - {""}:
        check_kernel(kernel)
    for seed in range(graphs):
        check_float(operation_graph(Seeded(seed), op, None), seed)
    widths = (False, True) if has_wide_integers(op) else (False,)
    for rounding, wide in itertools.product(Rounding if has_integers(op) else (), widths):
        for seed in range(graphs // len(widths)):
            graph = operation_graph(Seeded(seed), op, rounding, wide=wide)
            check_integers(graph, seed)
            if seed < compiled and op.kernel:
                with tempfile.TemporaryDirectory() as scratch:
                    check_executors(graph, Path(scratch) / "firmware", random_inputs(graph, Seeded(seed), 50))


def check_declaration(op: type[Op]) -> None:
    """`op` is listed, frozen, described, and either has a kernel, or is a view, or has no integer meaning."""
    name = op.__name__
    assert op in OPS, f"{name} is not listed in OPS; add a row"
    assert dataclasses.is_dataclass(op) and op.__dataclass_params__.frozen, f"{name} is not a frozen dataclass"  # type: ignore[attr-defined]  # not in the stubs
    assert op.__doc__ and not op.__doc__.startswith(f"{name}("), f"{name} has no docstring"
    assert set(op.weights) <= set(op.operands), f"{name}: weights {op.weights} are not all operands {op.operands}"
    assert not (op.kernel and op.is_view), f"{name} is a view and has a kernel: it cannot be both"
    assert (op.channel_axis is None) == (op.operands[1:] != ("weight", "bias")), (
        f"{name}: a layer (x, weight, bias), and only that, says which axis of the weight holds its output channels"
    )


@cache
def check_kernel(kernel: str) -> None:
    """The kernel's file compiles alone under each rounding rule with all warnings on, and says what it does."""
    folder = resources.files("crosslayer.kernels")
    file = folder / f"{kernel}.h"
    assert file.is_file(), f"kernels/{kernel}.h is absent; write it"
    text = file.read_text(encoding="utf-8")
    assert text.startswith("/* ") and text.index("*/") < text.index("#include"), f"{kernel}.h: states no contract"
    assert f" void {kernel}(const struct {kernel} *p, " in text, f"{kernel}.h: defines no {kernel} kernel"
    with tempfile.TemporaryDirectory() as scratch:
        for name in (f"{kernel}.h", "arithmetic.h"):
            (Path(scratch) / name).write_text((folder / name).read_text(encoding="utf-8"), encoding="utf-8")
        (Path(scratch) / "rules.h").write_text("/* each unit has its own */\n", encoding="utf-8")
        units = [f"unit{i}.c" for i in range(len(_RULES))]
        for unit, rule in zip(units, _RULES, strict=True):
            (Path(scratch) / unit).write_text(f'{rule}#include "{kernel}.h"\n', encoding="utf-8")
        compile_strictly(Path(scratch), *units)


def check_float(graph: Graph, seed: int) -> None:
    """The last node's float result has the shape that it infers, whatever the batch; its ties are well formed."""
    node = _last(graph)
    check_ties(graph, node)
    for count in (1, 3):
        x = Seeded(seed).rng().normal(size=(count, *graph.types[graph.inputs[0]].shape)).astype(np.float32)
        result = reference.run(graph, x)
        shape = (count, *graph.types[node.name].shape)
        assert result.shape == shape, f"{node.op}: infers {list(shape)}, computes {list(result.shape)}"
        assert np.isfinite(result).all(), f"{node.op}: gives values that are not finite"


def check_integers(graph: Graph, seed: int) -> None:
    """The last node's codes have the inferred shape, lie in its number code, are near the real result, and are the same
    in the fast executor."""
    node, x = _last(graph), random_inputs(graph, Seeded(seed), 6)
    kind = graph.types[node.name]
    verify(graph)
    check_exact(graph, x)
    values = reference.trace(graph, x)
    inputs = [values[n] for n in graph.activations(node)]
    result = reference.repeated(node.op.integer(graph.lowered[node.name], *inputs), len(x))
    assert result.shape == (len(x), *kind.shape), f"{node.op}: infers {list(kind.shape)}, computes {result.shape}"
    operands = [_real(graph, n, values[n] if n in values else graph.constants[n]) for n in node.inputs]
    with np.errstate(invalid="ignore", over="ignore"):  # the inputs hold infinities
        expected = node.op.real(np, *operands)
    if kind.quant is None:
        assert isinstance(node.op, Dequantize) and np.array_equal(result, expected), f"{node.op}: is not the real value"
        return
    low, high = kind.quant.lowest, kind.quant.highest
    assert low <= result.min() and result.max() <= high, f"{node.op}: gives codes outside {low}…{high}"
    steps = np.clip(expected.astype(np.float64) / kind.quant.scale[0] + kind.quant.zero[0], low, high)
    away = float(np.abs(result - steps).max())
    wide = _WIDE_SHARES if isinstance(node.op, Softmax) else _WIDE_STEPS
    most = wide if is_wide(kind.quant) else _STEPS
    assert away <= most, f"{node.op} under '{graph.rounding}': {away:.2f} steps away from the real result"


def check_ties(graph: Graph, node: Node) -> None:
    """Ties and frozen slots name operands, axes and channels that exist, and pair them one to one."""
    shapes = [graph.types[n].shape for n in node.inputs]
    output = graph.types[node.name].shape

    def channels(slot: Slot) -> int:
        operand, axis = slot
        assert operand == OUTPUT or 0 <= operand < len(shapes), f"{node.op}: ties operand {operand}, which is not there"
        shape = output if operand == OUTPUT else shapes[operand]
        assert -len(shape) <= axis < len(shape), f"{node.op}: ties axis {axis} of a shape {list(shape)}"
        return shape[axis]

    for tie in node.op.ties(shapes, output):
        assert len(tie.left_index) == len(tie.right_index), f"{node.op}: ties unequal numbers of channels"
        for slot, index in ((tie.left, tie.left_index), (tie.right, tie.right_index)):
            inside = len(index) == 0 or (index.min() >= 0 and index.max() < channels(slot))
            assert inside, f"{node.op}: ties channels of slot {slot} that are not there"
    for slot in node.op.frozen():
        assert channels(slot) > 0, f"{node.op}: freezes a slot without channels"


def has_no_integers(graph: Graph) -> bool:
    """True if lowering the network is refused with a `GraphError`."""
    try:
        _ = graph.lowered
    except GraphError:
        return True
    return False


def _last(graph: Graph) -> Node:
    return graph.producers[graph.outputs[0]]


def _real(graph: Graph, name: str, value: Array) -> Array:
    quant = graph.types[name].quant
    return value if quant is None else quant.decode(value)

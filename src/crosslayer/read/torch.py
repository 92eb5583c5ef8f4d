"""PyTorch → Graph: exported programs (`torch.export`), from .pt2 files or from a module."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from crosslayer.core.errors import CrosslayerError, ReadError, ToolError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.core.quant import Array
from crosslayer.read.channels_first import ChannelsFirst, fewest_moves
from crosslayer.read.problems import Problems, Unreadable
from crosslayer.read.pt2_file import Argument, Operator, Pt2
from crosslayer.read.tensors import Fixed, Order, Reading, Tensor
from crosslayer.read.torch_call import REPLACE, Call
from crosslayer.read.torch_operations import OPERATIONS

if TYPE_CHECKING:
    import torch

_FLOATS = ("float32", "float16", "bfloat16")


def read_pt2(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """The network in a .pt2 file of `torch.export.save`, or in its bytes; of a quantized one the integers.

    The file's JSON and raw tensors are read; pickled parts are refused, and no code of the file is run. The batch axis
    is dropped. What the network takes as (batch, channels, height, width) the graph takes as (height, width, channels),
    and (batch, channels, length) as (1, length, channels) where the network slides over the length. Raises `ReadError`
    that lists all operations, types and shapes that cannot be read.
    """
    return pt2_reading(source, rounding).graph


def from_module(module: "torch.nn.Module", shape: Shape) -> Graph:
    """The network of a module in evaluation mode; `shape` is that of one sample as the module takes it.

    The module takes channels first, (channels, height, width); the graph takes channels last. See `read_pt2`.
    """
    return pt2_reading(exported(module, shape)).graph


def exported(module: "torch.nn.Module", shape: Shape) -> bytes:
    """The content of the .pt2 file of a module, for samples of this shape."""
    try:
        import torch
    except ImportError as error:
        raise ToolError("reading a PyTorch module needs the package torch; install crosslayer[train]") from error
    training = module.training
    buffer = io.BytesIO()
    try:
        program = torch.export.export(module.eval(), (torch.zeros(1, *shape),))
        torch.export.save(program, buffer)
    except Exception as error:  # torch.export raises errors of dozens of types for what it cannot trace
        what = str(error).partition("\n")[0]
        raise ReadError(f"the module cannot be exported ({what}); make torch.export.export accept it") from error
    finally:
        module.train(training)
    return buffer.getvalue()


def pt2_reading(source: Path | bytes, rounding: Rounding = Rounding.DOUBLE) -> Reading:
    """As `read_pt2`, with how the tensors of the program lie in the graph."""
    file = Pt2(source)
    problems = Problems(file.where)
    parts: list[_Program] = []
    with problems.at("the program"):
        parts.append(_program(file))
    problems.raise_if_any()
    (program,) = parts
    with np.errstate(all="ignore"):  # what is not finite is refused
        return fewest_moves(
            lambda order: _Network(file.where, program).reading(order, rounding), program.shape, batched=True
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """What the file says, before any of it is understood."""

    operators: Sequence[Operator]
    source: str
    shape: Shape
    kind: str
    outputs: Sequence[str]
    constants: Mapping[str, Callable[[], Array]]


def _program(file: Pt2) -> _Program:
    inputs = file.inputs()
    sources = [name for name, read in inputs.items() if read is None]
    if len(sources) != 1:
        raise Unreadable(f"has {len(sources)} inputs", "export it with one tensor as its input")
    shape, kind = file.type(sources[0])
    if kind not in (*_FLOATS, "int8", "uint8"):
        raise Unreadable(f"takes elements of type {kind}", "use float32, int8 or uint8")
    return _Program(
        operators=file.operators(),
        source=sources[0],
        shape=shape,
        kind=kind,
        outputs=file.outputs(),
        constants={name: read for name, read in inputs.items() if read is not None},
    )


@final
class _Network:
    """Turns the operations of a program into nodes, one by one; what depends on one that failed is left out."""

    def __init__(self, where: str, program: _Program) -> None:
        self._problems = Problems(where)
        self._program = program
        self._build = ChannelsFirst()
        self._values: dict[str, Tensor | int] = {}
        self._failed: set[str] = set()

    def reading(self, order: Order, rounding: Rounding) -> Reading:
        """The graph of the program. Raises `ReadError` with all that is wrong."""
        program = self._program
        with self._problems.at(f"input '{program.source}'"):
            batch = 0 if program.shape else None
            integers = program.kind not in _FLOATS
            live = self._build.input(program.source, program.shape, batch, order, integers=integers)
            self._values[program.source] = live
        self._problems.raise_if_any()
        for operator in program.operators:
            place = f"'{operator.name}' ({operator.target.removeprefix('torch.ops.')})"
            with self._problems.at(place):
                self._operator(operator)
            if operator.results and operator.results[0] not in self._values:
                self._failed.update(operator.results)
        outputs: list[Tensor] = []
        for name in program.outputs:
            with self._problems.at(f"output '{name}'"):
                found = self._find(name)
                if isinstance(found, int):
                    raise Unreadable("is a number", "return tensors")
                if found is not None:
                    outputs.append(found)
        self._problems.raise_if_any()
        with self._problems.at("the network"):
            reading = self._build.reading(outputs, rounding)
            _ = reading.graph.lowered
            return reading
        self._problems.raise_if_any()
        raise AssertionError

    def _operator(self, operator: Operator) -> None:
        target = operator.target.removeprefix("torch.ops.")
        if target not in OPERATIONS:
            raise Unreadable(f"the operation {target} is not supported", REPLACE)
        names = [name for told in operator.arguments.values() for name in _reads(told)]
        if any(self._find(name) is None for name in names):
            return  # what it needs has failed
        self._build.at(operator.name)
        call = Call(build=self._build, arguments=operator.arguments, values=self._values)
        try:
            result = OPERATIONS[target](call)
        except CrosslayerError:
            raise
        except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError, MemoryError) as error:
            raise Unreadable(f"holds values that do not fit together ({error})", "save it again") from error
        if not operator.results:
            raise Unreadable("has no result", "save it again")
        self._values[operator.results[0]] = result

    def _find(self, name: str) -> Tensor | int | None:
        if name in self._values:
            return self._values[name]
        if name in self._program.constants:
            self._values[name] = Fixed(value=self._program.constants[name]())
            return self._values[name]
        if name in self._failed:
            return None
        raise Unreadable(f"reads '{name[:80]}', which nothing computes before it", "save it again")


def _reads(told: Argument) -> list[str]:
    """The names of tensors and numbers that an argument reads."""
    if told.kind in ("as_tensor", "as_sym_int"):
        return [told.value]
    if told.kind == "as_tensors":
        return list(told.value)
    if told.kind == "as_sym_ints":
        return [name for item in told.value for name in _reads(item)]
    return []

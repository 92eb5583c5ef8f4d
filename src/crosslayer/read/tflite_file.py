"""The tables of a TFLite file as plain values, with every offset and length checked against the file.

Source: `tensorflow/lite/schema/schema.fbs`, by the accessors of the `tflite` package. FlatBuffers' Python accessors do
not verify a file; what they raise on a damaged one becomes one `ReadError` here.
"""

import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from crosslayer.core.errors import ReadError, ToolError
from crosslayer.core.quant import Array
from crosslayer.read.problems import Unreadable, checked_size

_IDENTIFIER = b"TFL3"
_DAMAGE = (struct.error, ValueError, TypeError, IndexError, OverflowError, AttributeError)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor:
    """One tensor: `kind` is the name of its element type; `scale` is empty where it has no number code."""

    name: str
    shape: tuple[int, ...]
    kind: str
    scale: tuple[float, ...]
    zero: tuple[int, ...]
    axis: int
    raw: memoryview | None
    """Little-endian content of a constant; None for what is computed."""

    def value(self) -> Array:
        """A constant's content. Raises `Unreadable` if its type or length is not what the shape asks for."""
        assert self.raw is not None
        size = checked_size(self.shape)
        if self.kind == "INT4":
            return _nibbles(self.raw, size).reshape(self.shape)
        if self.kind not in _DTYPES:
            raise Unreadable(f"the tensor '{self.name}' has type {self.kind}", "export it as int8 or float32")
        dtype = np.dtype(_DTYPES[self.kind]).newbyteorder("<")
        if len(self.raw) != size * dtype.itemsize:
            raise Unreadable(
                f"the tensor '{self.name}' has {len(self.raw)} bytes, its shape {list(self.shape)} needs "
                f"{size * dtype.itemsize}",
                "the file is damaged; export it again",
            )
        return np.frombuffer(self.raw, dtype).reshape(self.shape)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """One operator by its name in the schema; −1 among `inputs` is an operand that was left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """The one subgraph of a file."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_DTYPES: Mapping[str, type[Any]] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "AddOptions": ("FusedActivationFunction", "PotScaleInt16"),
    "SubOptions": ("FusedActivationFunction", "PotScaleInt16"),
    "MulOptions": ("FusedActivationFunction",),
    "DivOptions": ("FusedActivationFunction",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "Conv2DOptions": (
        "Padding",
        "StrideW",
        "StrideH",
        "FusedActivationFunction",
        "DilationWFactor",
        "DilationHFactor",
    ),
    "DepthwiseConv2DOptions": (
        "Padding",
        "StrideW",
        "StrideH",
        "FusedActivationFunction",
        "DilationWFactor",
        "DilationHFactor",
    ),
    "FullyConnectedOptions": ("FusedActivationFunction", "WeightsFormat", "KeepNumDims"),
    "LeakyReluOptions": ("Alpha",),
    "Pool2DOptions": ("Padding", "StrideW", "StrideH", "FilterWidth", "FilterHeight", "FusedActivationFunction"),
    "ReducerOptions": ("KeepDims",),
    "SoftmaxOptions": ("Beta",),
}
"""The fields that a reader of each table of options needs, by the schema's names."""


def parse(content: bytes, where: str) -> Model:
    """The tables of a file. Raises `ReadError` for what is no TFLite file or is damaged."""
    try:
        import tflite
    except ImportError as error:
        raise ToolError("reading TFLite needs the package 'tflite'; pip install 'crosslayer[convert]'") from error
    if content[4:8] != _IDENTIFIER:
        raise ReadError(f"{where}: is not a TFLite file (no '{_IDENTIFIER.decode()}' at byte 4); give a .tflite file")
    with _damage(where):
        return _Parser(tflite, content).model()


@contextmanager
def _damage(where: str) -> Generator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ReadError(f"{where}: the file is damaged or cut short ({error}); export it again") from error


@final
class _Parser:
    """Walks the tables of one file. All vectors together may not be longer than the file: tables of a sound file do
    not overlap, and those of a damaged one then cost no more time or memory."""

    def __init__(self, tflite: Any, content: bytes) -> None:
        self._schema = tflite
        self._root = tflite.Model.GetRootAs(content, 0)
        self._left = len(content)

    def model(self) -> Model:
        root = self._root
        if root.SubgraphsLength() != 1:
            raise ValueError(f"{root.SubgraphsLength()} subgraphs; only networks without control flow can be read")
        graph = root.Subgraphs(0)
        tensors, operators, codes = graph.TensorsLength(), graph.OperatorsLength(), root.OperatorCodesLength()
        self._take(tensors + operators + codes)
        names = [self._code(root.OperatorCodes(i)) for i in range(codes)]
        return Model(
            tensors=tuple(self._tensor(graph.Tensors(i)) for i in range(tensors)),
            operators=tuple(self._operator(graph.Operators(i), names, tensors) for i in range(operators)),
            inputs=self._indices(graph.InputsAsNumpy(), tensors, 0),
            outputs=self._indices(graph.OutputsAsNumpy(), tensors, 0),
        )

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("its vectors are longer than the file")

    def _vector(self, values: Any) -> list[Any]:
        """A vector as a list; an absent one is 0 in the accessors."""
        if isinstance(values, int):
            return []
        self._take(len(values))
        return values.tolist()

    def _indices(self, values: Any, count: int, least: int) -> tuple[int, ...]:
        found = tuple(self._vector(values))
        if any(not least <= i < count for i in found):
            raise ValueError(f"tensor numbers {found[:8]} of {count}")
        return found

    def _code(self, record: Any) -> str:
        """The operator's name: the newer field, or the older one-byte one (schema 3a)."""
        name = _named(self._schema.BuiltinOperator, max(record.BuiltinCode(), record.DeprecatedBuiltinCode()))
        custom = record.CustomCode()
        return f"CUSTOM {custom.decode(errors='replace')[:80]}" if name == "CUSTOM" and custom is not None else name

    def _tensor(self, record: Any) -> Tensor:
        code, index = record.Quantization(), record.Buffer()
        if record.Sparsity() is not None:
            raise ValueError("sparse weights; only dense ones can be read")
        buffer = self._root.Buffers(index) if 0 < index < self._root.BuffersLength() else None
        return Tensor(
            name=(record.Name() or b"")[:200].decode(errors="replace"),
            shape=tuple(self._vector(record.ShapeAsNumpy())),
            kind=_named(self._schema.TensorType, record.Type()),
            scale=() if code is None else tuple(self._vector(code.ScaleAsNumpy())),
            zero=() if code is None else tuple(self._vector(code.ZeroPointAsNumpy())),
            axis=0 if code is None else int(code.QuantizedDimension()),
            raw=None if buffer is None or buffer.DataLength() == 0 else memoryview(buffer.DataAsNumpy()),
        )

    def _operator(self, record: Any, names: list[str], tensors: int) -> Operator:
        kind, given = _named(self._schema.BuiltinOptions, record.BuiltinOptionsType()), record.BuiltinOptions()
        options: dict[str, int | float] = {}
        if kind in _OPTIONS and given is not None:
            table = getattr(self._schema, kind)()
            table.Init(given.Bytes, given.Pos)
            options = {field: getattr(table, field)() for field in _OPTIONS[kind]}
        index = record.OpcodeIndex()
        if not 0 <= index < len(names):
            raise ValueError(f"operator code {index} of {len(names)}")
        return Operator(
            name=names[index],
            inputs=self._indices(record.InputsAsNumpy(), tensors, -1),
            outputs=self._indices(record.OutputsAsNumpy(), tensors, 0),
            options=options,
        )


def _named(enumeration: type[Any], number: int) -> str:
    """The name of a value of an enumeration of the schema."""
    names = (name for name, value in vars(enumeration).items() if type(value) is int and value == number)
    return next(names, f"number {number}")


def _nibbles(raw: memoryview, size: int) -> Array:
    """4-bit integers, two in a byte, the lower half first."""
    if len(raw) != (size + 1) // 2:
        raise Unreadable(f"{len(raw)} bytes do not hold {size} 4-bit weights", "the file is damaged; export it again")
    packed = np.frombuffer(raw, np.uint8)
    halves = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:size].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)

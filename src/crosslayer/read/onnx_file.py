"""An ONNX file as protocol buffer, its tensors as arrays and its attributes as values, each checked.

Source: `onnx.proto` and `ExternalData.md` of the ONNX project.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np

from crosslayer.core.errors import ReadError, ToolError
from crosslayer.core.quant import Array
from crosslayer.read.problems import Unreadable, checked_size

TYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    21: "uint4",
    22: "int4",
}
"""`TensorProto.DataType` by the name of its elements' type; those that are left out have no use here."""
_FIELDS: Mapping[str, str] = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}
"""Where a tensor without raw bytes holds its elements; all others are in `int32_data`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """A parsed model, and the folder in which its external data may lie."""

    model: Any
    folder: Path | None
    where: str


def load(source: Path | bytes) -> OnnxFile:
    """The model in a file, or in its bytes. Raises `ReadError` if it is none."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ToolError("reading ONNX needs the package onnx; install crosslayer[convert]") from error
    where = source.name if isinstance(source, Path) else "the ONNX model"
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
        model = onnx.load_model_from_string(content)
    except OSError as error:
        raise ReadError(f"{source}: cannot be read ({error.strerror}); give an .onnx file") from error
    except (DecodeError, ValueError) as error:
        raise ReadError(f"{where}: is no ONNX model, or a damaged one ({error}); export it again") from error
    if not model.HasField("graph") or not model.graph.output:
        raise ReadError(f"{where}: holds no network; export it again")
    if not all(isinstance(name, str) for name in _names(model.graph)):  # bytes where they are not UTF-8
        raise ReadError(f"{where}: has names that are no text; export it again")
    return OnnxFile(model=model, folder=source.parent if isinstance(source, Path) else None, where=where)


def _names(graph: Any) -> Iterator[Any]:
    """All names of a `GraphProto` that matter."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def array(tensor: Any, folder: Path | None) -> Array:
    """The elements of a `TensorProto`. Four-bit ones become types of the package ml_dtypes, which onnx needs too."""
    import ml_dtypes

    kind = TYPES.get(tensor.data_type)
    if kind is None:
        raise Unreadable(f"a tensor has elements of type {tensor.data_type}", f"use one of {', '.join(TYPES.values())}")
    shape = tuple(tensor.dims)
    size = checked_size(shape)
    short = kind in ("int4", "uint4")
    stored = np.dtype("uint8" if short else "uint16" if kind == "bfloat16" else kind).newbyteorder("<")
    count = (size + 1) // 2 if short else size
    if tensor.data_location == 1:
        raw: bytes | None = _external(tensor, folder, count * stored.itemsize)
    else:
        raw = tensor.raw_data if tensor.HasField("raw_data") else None
    if raw is not None:
        if len(raw) != count * stored.itemsize:
            raise Unreadable(f"a tensor of shape {list(shape)} has {len(raw)} bytes of {kind}", "export it again")
        flat: Array = np.frombuffer(raw, stored)
    else:
        given = getattr(tensor, _FIELDS.get(kind, "int32_data"))
        if len(given) != count:
            raise Unreadable(f"a tensor of shape {list(shape)} has {len(given)} elements", "export it again")
        wide = np.asarray(given, dtype=np.uint16 if kind in ("float16", "bfloat16") else None)
        flat = wide.view(np.float16) if kind == "float16" else wide.astype(stored)
    if short:  # two in a byte, the first in its low half
        halves = np.stack((flat & 15, flat >> 4), axis=1).ravel()[:size]
        signed = np.where(halves > 7, halves.astype(np.int16) - 16, halves) if kind == "int4" else halves
        return signed.astype(np.int8).astype(ml_dtypes.int4 if kind == "int4" else ml_dtypes.uint4).reshape(shape)
    if kind == "bfloat16":
        return (flat.astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape)


def _external(tensor: Any, folder: Path | None, size: int) -> bytes:
    """The bytes of a tensor that lie in a file of their own, which must be in or under the model's folder."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    place = PurePosixPath(told.get("location", ""))
    if folder is None:
        raise Unreadable(f"a tensor's data lies in another file ({place})", "give the path of the model, not its bytes")
    path = folder / place
    if not place.parts or place.is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise Unreadable(f"a tensor's data lies outside the model's folder ({place})", "save the model in one file")
    try:
        offset, length = int(told.get("offset", 0)), int(told.get("length", size))
        if offset < 0 or length != size:
            raise Unreadable(f"a tensor has {length} bytes at {offset} of {place}, not {size}", "export it again")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except (OSError, ValueError) as error:
        raise Unreadable(
            f"a tensor's data cannot be read from {place} ({error})", "keep it beside the model"
        ) from error


@final
class Attributes:
    """The attributes of a node by name, each of the type that is asked for."""

    def __init__(self, node: Any, folder: Path | None) -> None:
        """Those of a `NodeProto`."""
        self._by_name = {attribute.name: attribute for attribute in node.attribute}
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def integer(self, name: str, default: int) -> int:
        """An integer."""
        found = self._found(name, 2)
        return default if found is None else int(found.i)

    def real(self, name: str, default: float) -> float:
        """A finite real number."""
        found = self._found(name, 1)
        value = default if found is None else float(found.f)
        if not np.isfinite(value):
            raise Unreadable(f"attribute '{name}' is {value}", "use a finite number")
        return value

    def text(self, name: str, default: str) -> str:
        """A text."""
        found = self._found(name, 3)
        return default if found is None else found.s.decode("utf-8", "replace")

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers; None if there is none."""
        found = self._found(name, 7)
        return None if found is None else tuple(found.ints)

    def value(self) -> Array:
        """What a `Constant` node holds."""
        if "value" in self:
            found = self._found("value", 4)
            return array(found.t, self._folder)
        for name, kind, field, dtype in (
            ("value_float", 1, "f", np.float32),
            ("value_floats", 6, "floats", np.float32),
            ("value_int", 2, "i", np.int64),
            ("value_ints", 7, "ints", np.int64),
        ):
            found = self._found(name, kind)
            if found is not None:
                return np.asarray(getattr(found, field), dtype)
        raise Unreadable("has no value that is a tensor or a number", "use one")

    def tensor(self, name: str) -> Array | None:
        """A tensor; None if there is none."""
        found = self._found(name, 4)
        return None if found is None else array(found.t, self._folder)

    def _found(self, name: str, kind: int) -> Any:
        found = self._by_name.get(name)
        if found is not None and found.type != kind:
            raise Unreadable(f"attribute '{name}' has the wrong type", "export it again")
        return found

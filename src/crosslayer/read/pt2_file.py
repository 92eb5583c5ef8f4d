"""A .pt2 archive as plain values: operators from JSON, tensors from raw bytes; nothing in it is unpickled or run.

Source: `torch/_export/serde/schema.py` (version 8) and `torch/export/pt2_archive/` of PyTorch 2.13.
"""

import functools
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, final

import numpy as np

from crosslayer.core.errors import ReadError
from crosslayer.core.graph.operation import Shape
from crosslayer.core.quant import Array
from crosslayer.read.problems import Unreadable, checked_size

T = TypeVar("T")
_SCHEMA = 8
_MODEL = "models/model.json"
_SAVE = "save it again with torch.export.save"
DTYPES: Mapping[int, str] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
"""`ScalarType` by the name of its elements' type."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One node of the file: its target, its arguments by name, and the names of its results."""

    name: str
    target: str
    arguments: Mapping[str, Any]
    results: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An argument as the file tags it, `as_tensor`, `as_ints`, …, and its value."""

    kind: str
    value: Any


@final
class Pt2:
    """The parts of an archive. Methods raise `Unreadable` where it does not hold what they return."""

    def __init__(self, source: Path | bytes) -> None:
        """Open and parse. Raises `ReadError` if it is no archive of an exported program."""
        self.where = source.name if isinstance(source, Path) else "the PyTorch model"
        try:
            content = source.read_bytes() if isinstance(source, Path) else source
            self._archive = zipfile.ZipFile(io.BytesIO(content))
            names = self._archive.namelist()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise ReadError(f"{self.where}: is no .pt2 archive, or a damaged one ({error}); {_SAVE}") from error
        roots = [name.removesuffix(_MODEL) for name in names if name.endswith(_MODEL)]
        if len(roots) != 1:
            raise ReadError(f"{self.where}: holds no exported program; {_SAVE}")
        self._root = roots[0]
        self._size = len(content)
        self._files: dict[str, bytes] = {}
        try:
            program = self._json(_MODEL)
            if self._root + "byteorder" in names and self._bytes("byteorder") != b"little":
                raise Unreadable("was written on a big-endian machine", "save it on another one")
            version = field(field(program, "schema_version", dict), "major", int)
            if version != _SCHEMA:
                raise Unreadable(f"has version {version} of the schema, not {_SCHEMA}", "save it with PyTorch 2.13")
            module = field(program, "graph_module", dict)
            self._graph = field(module, "graph", dict)
            self._signature = field(module, "signature", dict)
            self._weights = self._config("data/weights/model_weights_config.json")
            self._constants = self._config("data/constants/model_constants_config.json")
        except Unreadable as error:
            raise ReadError(f"{self.where}: {error.what}; {error.todo}") from error

    def operators(self) -> list[Operator]:
        """All nodes, in the order in which they run."""
        found: list[Operator] = []
        for node in field(self._graph, "nodes", list):
            arguments = {
                field(given, "name", str): argument(field(given, "arg", dict)) for given in field(node, "inputs", list)
            }
            results = tuple(name for result in field(node, "outputs", list) for name in _names(argument(_dict(result))))
            target = field(node, "target", str)
            found.append(
                Operator(name=results[0] if results else "", target=target, arguments=arguments, results=results)
            )
        return found

    def inputs(self) -> dict[str, Callable[[], Array] | None]:
        """What each input of the graph is: a tensor to be read, or None for one that is given at run time."""
        found: dict[str, Callable[[], Array] | None] = {}
        for spec in field(self._signature, "input_specs", list):
            (kind, content) = _only(spec)
            match kind:
                case "user_input":
                    told = argument(field(content, "arg", dict))
                    if told.kind != "as_tensor":
                        raise Unreadable("has an input that is no tensor", "export it with one tensor as its input")
                    found[told.value] = None
                case "parameter" | "buffer" | "tensor_constant":
                    name = field(field(content, "arg", dict), "name", str)
                    found[name] = self._reader(field(content, f"{kind}_name", str))
                case other:
                    raise Unreadable(f"has an input of kind '{other}'", "export it with one tensor as its input")
        return found

    def outputs(self) -> list[str]:
        """The names of what the network returns."""
        found: list[str] = []
        for spec in field(self._signature, "output_specs", list):
            (kind, content) = _only(spec)
            if kind != "user_output":
                raise Unreadable(f"has an output of kind '{kind}'", "export it in evaluation mode: module.eval()")
            told = argument(field(content, "arg", dict))
            if told.kind != "as_tensor":
                raise Unreadable("returns something that is no tensor", "return tensors")
            found.append(told.value)
        if not found:
            raise Unreadable("returns nothing", "return a tensor")
        return found

    def type(self, name: str) -> tuple[Shape, str]:
        """Shape (batch size 1 where it is not fixed) and element type of a tensor."""
        meta = field(field(self._graph, "tensor_values", dict), name, dict)
        shape: list[int] = []
        for axis, side in enumerate(field(meta, "sizes", list)):
            told = argument(_dict(side))
            if told.kind != "as_int" and axis > 0:
                raise Unreadable(f"its axis {axis} has no fixed size", "export it with a fixed input shape")
            shape.append(_integer(told.value) if told.kind == "as_int" else 1)
        checked_size(shape)
        return tuple(shape), DTYPES.get(field(meta, "dtype", int), "unknown")

    def _reader(self, name: str) -> Callable[[], Array]:
        def read() -> Array:
            for folder, config in (("data/weights/", self._weights), ("data/constants/", self._constants)):
                if name in config:
                    return self._tensor(folder, _dict(config[name]))
            raise Unreadable(f"lacks the tensor '{name}'", _SAVE)

        return functools.cache(read)

    def _tensor(self, folder: str, entry: Mapping[str, Any]) -> Array:
        """A tensor from the bytes of its storage."""
        if field(entry, "use_pickle", bool):
            raise Unreadable("holds a pickled tensor, which could run code", "save it with plain dense tensors only")
        meta = field(entry, "tensor_meta", dict)
        kind = DTYPES.get(field(meta, "dtype", int))
        if kind is None:
            raise Unreadable("holds a tensor of an unknown type", f"use one of {', '.join(DTYPES.values())}")
        shape, steps = (
            tuple(_integer(argument(_dict(side)).value) for side in field(meta, role, list))
            for role in ("sizes", "strides")
        )
        offset = _integer(argument(field(meta, "storage_offset", dict)).value)
        size = checked_size(shape)
        stored = np.dtype("uint16" if kind == "bfloat16" else kind).newbyteorder("<")
        raw = self._bytes(folder + field(entry, "path_name", str))
        storage: Array = np.frombuffer(raw, stored, count=len(raw) // stored.itemsize)
        last = offset + sum((side - 1) * step for side, step in zip(shape, steps, strict=False))
        if len(steps) != len(shape) or min((offset, *steps), default=0) < 0 or (size and last >= len(storage)):
            raise Unreadable(f"a tensor of shape {list(shape)} lies outside its {len(raw)} bytes", _SAVE)
        if size > len(storage):
            raise Unreadable(
                f"a tensor of shape {list(shape)} repeats its {len(storage)} elements", "make it contiguous"
            )
        strides = tuple(step * stored.itemsize for step in steps)
        view = np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)
        value = view.astype(view.dtype.newbyteorder("="))
        return (value.astype(np.uint32) << 16).view(np.float32) if kind == "bfloat16" else value

    def _config(self, name: str) -> dict[str, Any]:
        return field(self._json(name), "config", dict) if self._root + name in self._archive.namelist() else {}

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return _dict(json.loads(self._bytes(name)))
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{name} is no JSON ({error})", _SAVE) from error

    def _bytes(self, name: str) -> bytes:
        """A file of the archive, which must be stored without compression, so that none is larger than the archive."""
        if name not in self._files:
            try:
                info = self._archive.getinfo(self._root + name)
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
                    raise Unreadable(f"{name} is compressed or cut off", _SAVE)
                self._files[name] = self._archive.read(info)
            except (KeyError, ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
                raise Unreadable(f"{name} is absent or damaged ({error})", _SAVE) from error
        return self._files[name]


def field(entry: Any, name: str, kind: type[T]) -> T:
    """An entry of a JSON object, of the type that is asked for."""
    value = _dict(entry).get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Unreadable(f"its entry '{name}' is not what it should be", _SAVE)
    return value


def argument(entry: Mapping[str, Any]) -> Argument:
    """An argument from its tagged form; a tensor's or symbol's value is its name."""
    kind, value = _only(entry)
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        inner = _dict(value)
        if kind != "as_tensor" and "as_name" not in inner:
            return argument(inner)
        return Argument(kind=kind, value=field(inner, "name" if kind == "as_tensor" else "as_name", str))
    if kind in ("as_tensors", "as_sym_ints"):
        items = [_dict(item) for item in _list(value)]
        if kind == "as_tensors":
            return Argument(kind=kind, value=[field(item, "name", str) for item in items])
        return Argument(kind=kind, value=[argument(item) for item in items])
    return Argument(kind=kind, value=value)


def _names(result: Argument) -> Sequence[str]:
    if result.kind == "as_tensors":
        return result.value
    return [result.value] if isinstance(result.value, str) else []


def _only(entry: Any) -> tuple[str, Any]:
    """Key and value of an object with one entry."""
    content = _dict(entry)
    if len(content) != 1:
        raise Unreadable("holds an entry of an unknown kind", _SAVE)
    return next(iter(content.items()))


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable("holds something else where an object is expected", _SAVE)
    return cast("dict[str, Any]", value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unreadable("holds something else where a list is expected", _SAVE)
    return cast("list[Any]", value)


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise Unreadable("holds something else where an integer is expected", _SAVE)
    return value

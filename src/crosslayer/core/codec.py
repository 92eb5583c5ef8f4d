"""Frozen dataclasses to plain values and back, strictly: nothing is executed, nothing unknown is accepted."""

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from crosslayer.core.errors import CrosslayerError, InputError

T = TypeVar("T")


def dashed(name: str) -> str:
    """The name of a class in study files and on the command line.

    >>> dashed("PruneChannels")
    'prune-channels'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def to_plain(value: Any) -> Any:
    """The value as numbers, strings, lists and dicts (arrays as nested lists); the inverse of `from_plain`.

    >>> to_plain((1, 2.5, "a"))
    [1, 2.5, 'a']
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, np.ndarray):
        return cast("npt.NDArray[Any]", value).tolist()
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    return value


def from_plain(kind: type[T], plain: Any, where: str) -> T:
    """A value of type `kind` from plain values; `where` names the place in error messages.

    Where a dataclass is expected, an instance of it is taken as it is.

    Raises `InputError` for an unknown or missing key, a wrong type or a value outside an enumeration.
    """
    return cast("T", _convert(kind, plain, where))


def suggest(word: str, known: Sequence[str]) -> str:
    """The end of an error message about an unknown word: the nearest known one, or all of them.

    >>> suggest("lenet", ["lenet5", "vgg11"])
    "did you mean 'lenet5'?"
    """
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"


def _convert(kind: Any, plain: Any, where: str) -> Any:
    if kind is Any:
        return plain
    origin = get_origin(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(plain, kind):
        return plain
    if origin is np.ndarray:
        (element,) = get_args(get_args(kind)[1])
        return np.asarray(_expect(list, plain, where), element)
    if origin in (Union, types.UnionType):
        if plain is None and type(None) in get_args(kind):
            return None
        (kind,) = (option for option in get_args(kind) if option is not type(None))
        return _convert(kind, plain, where)
    if origin is tuple:
        return _tuple(get_args(kind), plain, where)
    if origin is not None and issubclass(origin, Mapping):
        value_kind = get_args(kind)[1]
        pairs = _expect(dict, plain, where).items()
        return {str(key): _convert(value_kind, item, f"{where}.{key}") for key, item in pairs}
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast("type[Any]", kind), plain, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        known = [member.value for member in kind]
        if plain not in known:
            raise InputError(f"{where}: '{plain}' is not one of its values; {suggest(str(plain), known)}")
        return kind(plain)
    if kind is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    return _expect(kind, plain, where)


def _expect(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, kind) or (isinstance(plain, bool) and kind is not bool):
        raise InputError(f"{where}: expected {kind.__name__}, got {plain!r}")
    return plain


def _tuple(args: tuple[Any, ...], plain: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(plain, (list, tuple)):
        raise InputError(f"{where}: expected a list, got {plain!r}")
    items = cast("Sequence[Any]", plain)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if len(items) != len(args):
        raise InputError(f"{where}: expected {len(args)} values, got {len(items)}")
    return tuple(_convert(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, items, strict=True)))


def _dataclass(kind: type[Any], plain: Any, where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    given = cast("dict[str, Any]", _expect(dict, plain, where))
    for key in given:
        if key not in fields:
            raise InputError(f"{where}: unknown key '{key}'; {suggest(key, list(fields))}")
    missing = [
        f.name
        for f in fields.values()
        if f.name not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: missing key '{missing[0]}'; add it")
    values = {key: _convert(hints[key], item, f"{where}.{key}") for key, item in given.items()}
    try:
        return kind(**values)
    except CrosslayerError as error:
        raise InputError(f"{where}: {error}") from error

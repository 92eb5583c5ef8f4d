"""C text of values and names: the same bytes every time."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.operation import Weights
from crosslayer.core.quant import Array, pack
from crosslayer.kernels.call import Records

_CTYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "uint64": "uint64_t",
    "float32": "float",
}

_SUFFIXES = {"uint32": "U", "uint64": "ULL"}

_RULES = {Rule.DOUBLE: "cl_fixed", Rule.REDUCED: "cl_fixed", Rule.SINGLE: "cl_double", Rule.FLOAT: "cl_float"}


def identifier(name: str) -> str:
    """A C identifier that reminds of `name`.

    >>> identifier("block 1/conv*/")
    'block_1_conv__'
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def number(value: int | float) -> str:
    """An integer literal, or a float literal with the nine digits that tell all float32 values apart.

    >>> number(1 / 255)
    '0.00392156886F'
    """
    if isinstance(value, float):
        text = f"{np.float32(value):.9g}"
        return f"{text}F" if "." in text or "e" in text else f"{text}.0F"
    if value == -(2**31):
        return "(-2147483647 - 1)"
    return str(value)


def array(name: str, value: Array | Weights | Rescale | Records, place: str = "") -> str:
    """A definition `static const … name[]place = {…};`; `place` is an attribute."""
    what = f"{name}[]{place}"
    if isinstance(value, Records):
        return _define(value.kind, what, (_nested(row) for row in value.rows))
    if isinstance(value, Weights):
        value = pack(value.codes, value.bits)
    if isinstance(value, Rescale):
        kind = _RULES[value.rule]
        return _define(kind, what, _rescale_items(value))
    suffix = _SUFFIXES.get(str(value.dtype), "")
    return _define(_CTYPES[str(value.dtype)], what, (number(v) + suffix for v in value.ravel().tolist()))


def _nested(value: Any) -> str:
    """A number, or values in braces."""
    return f"{{{', '.join(_nested(v) for v in value)}}}" if isinstance(value, tuple) else number(value)


def _rescale_items(value: Rescale) -> Iterable[str]:
    if value.rule is Rule.FLOAT:
        return [f"{{{number(float(f))}}}" for f in value.factor]
    if value.rule is Rule.SINGLE:
        return [f"{{{f!r}}}" for f in value.factor.tolist()]  # repr tells all float64 values apart
    return [f"{{{m}, {s}}}" for m, s in zip(value.mult.tolist(), value.shift.tolist(), strict=True)]


def _define(kind: str, what: str, items: Iterable[str]) -> str:
    lines: list[str] = []
    line = "   "
    for item in items:
        if len(line) + len(item) > 115:
            lines.append(line)
            line = "   "
        line += f" {item},"
    lines.append(line)
    return f"static const {kind} {what} = {{\n" + "\n".join(lines) + "\n};"

"""What removing channels costs: an expression that the user writes, by which layers are compared."""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, final

from crosslayer.core.codec import suggest
from crosslayer.core.errors import InputError

SAVED = ("parameters", "macs", "weights_bytes", "ram", "latency", "energy")
"""What can be saved; `savings.py` says how each is counted."""

_LONGEST = 200
_LEAST_DROP = 5e-5  # half a sample in 10,000: below what can be seen, so that what costs nothing ranks by what it saves
_LEAST_LOSS = 1e-6  # likewise, in nats: about the rounding of float32
_LEAST_SHARE = 1e-6  # so that what saves nothing can be divided by, and ranks last
_BINARY: Mapping[type[ast.operator], Callable[[float, float], Any]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.Pow: operator.pow,
    }
)
_FUNCTIONS: Mapping[str, Callable[..., float]] = MappingProxyType({"min": min, "max": max})
_HARM = ("drop", "loss")
_GRAMMAR = f"drop, loss, {', '.join(SAVED)}, numbers, + - * / ** ( ) min max"


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """An expression over what a removal harms and saves, such as `drop / (macs + 0.5 * ram)`; the least goes first.

    `drop` is the accuracy that a removal loses, as a share of the samples; a gain counts as 0, and 0.00005 is added.
    `loss` is the rise of the mean cross-entropy, in nats; a fall counts as 0, and 0.000001 is added. It tells apart
    what no sample shows yet, and what is left of a network that gets none right.
    Each name of `SAVED` is the share of it that the removal saves, of the network as it then is: 0.1 for a tenth; at
    least 0.000001. Operators, precedence and numbers are Python's, and `min` and `max` take several arguments. Where
    the expression has no finite value the cost is infinite.

    >>> Cost("drop / macs")(0.01, {"macs": 0.5})
    0.0201
    """

    text: str

    def __post_init__(self) -> None:
        names = _names(_parse(self.text))
        if not names & set(_HARM):
            raise InputError(f"cost {self.text!r}: says neither drop nor loss, the harm; write such as drop / macs")
        if not math.isfinite(self(0.01, dict.fromkeys(SAVED, 0.1), 0.01)):
            raise InputError(f"cost {self.text!r}: has no finite value where the harm is 0.01 and all savings are 0.1")

    @property
    def names(self) -> frozenset[str]:
        """What of `SAVED` must be known."""
        return _names(_parse(self.text)) - set(_HARM)

    def __call__(self, drop: float, saved: Mapping[str, float], loss: float = 0.0) -> float:
        """The cost of an accuracy `drop` and a rise of `loss` for shares `saved`, at least those in `names`."""
        known = {name: max(saved[name], _LEAST_SHARE) for name in self.names}
        harm = {"drop": max(drop, 0.0) + _LEAST_DROP, "loss": max(loss, 0.0) + _LEAST_LOSS}
        try:
            value = _value(_parse(self.text), {**known, **harm})
        except (ArithmeticError, TypeError):  # TypeError: complex numbers have no order
            return math.inf
        return value if isinstance(value, float) and math.isfinite(value) else math.inf


@cache
def _parse(text: str) -> ast.expr:
    """The expression, known to hold nothing but the grammar. Raises `InputError` that says where it does not."""
    if len(text) > _LONGEST:
        raise InputError(f"cost {text[:20] + '…'!r}: has {len(text)} characters; write at most {_LONGEST}")
    line = "".join(" " if character.isspace() else character for character in text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(line.lstrip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        place = getattr(error, "offset", None) or len(line.strip()) + 1
        raise _refusal(text, len(text) - len(text.lstrip()) + place, "cannot be read") from error
    if "#" in text:
        raise _refusal(text, text.index("#") + 1, "'#' is not allowed")
    _check(text, tree)
    return tree


def _check(text: str, node: ast.expr) -> None:
    match node:
        case ast.Constant(value=float() | int() as number) if not isinstance(number, bool):
            if not -1e300 < number < 1e300:
                raise _refusal(text, _place(text, node), "the number is too large")
        case ast.Name(id=name):
            if name not in (*_HARM, *SAVED):
                advice = suggest(name, (*_HARM, *SAVED))
                raise _refusal(text, _place(text, node), f"'{name}' is not known", advice)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(text, left)
            _check(text, right)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(text, operand)
        case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as values, keywords=[]) if name in _FUNCTIONS:
            for value in values:
                _check(text, value)
        case _:
            raise _refusal(text, _place(text, node), f"'{ast.unparse(node)[:20]}' is not allowed")


def _place(text: str, node: ast.expr) -> int:
    """Which character of the text a node begins at, from 1."""
    read = text.lstrip()
    return len(text) - len(read) + len(read.encode()[: node.col_offset].decode()) + 1


def _refusal(text: str, place: int, fault: str, advice: str = f"use {_GRAMMAR}") -> InputError:
    return InputError(f"cost {text!r}, character {place}: {fault}; {advice}")


def _names(node: ast.expr) -> frozenset[str]:
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id not in _FUNCTIONS)


def _value(node: ast.expr, known: Mapping[str, float]) -> Any:
    match node:
        case ast.Constant(value=float() | int() as number):
            return float(number)
        case ast.Name(id=name):
            return known[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, known), _value(right, known))
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, known)
            return -value if isinstance(op, ast.USub) else value
        case ast.Call(func=ast.Name(id=name), args=values):
            return _FUNCTIONS[name](*(_value(value, known) for value in values))
        case _:
            raise AssertionError(ast.dump(node))

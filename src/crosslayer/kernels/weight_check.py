"""Signatures of constants in flash, as `weight_check.c` computes them, and parity from which groups are restored.

A flip of bit b in word i moves a signature by ±2^b · factor_i, which no modulus shortens: b < 32 and factor_i < 2^32.
Factors are odd and differ, so one flip or two never cancel; that of these 64 factors no three or four do, where each
may be a bit of the group or of its signature, a test shows by trying all. A set of flips is therefore found for certain
if any group has one to four of them. More in one group cancel if their moves happen to add up to 0.

Plain sums lose pairs of flips in one column; modulo 2^32 even weighted sums lose pairs in the highest one, where only
the parity of a factor counts. Hence 64 bits.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from crosslayer.core.fixed import Rescale, Rule
from crosslayer.core.graph.operation import Weights
from crosslayer.core.quant import Array, pack
from crosslayer.kernels.call import Records
from crosslayer.kernels.steps import Step

GROUP_WORDS = 64
"""`CL_CHECK_WORDS`."""

Words = npt.NDArray[np.uint32]


def factors() -> Words:
    """The factor of each place in a group: the first bytes of SHA-256 of its number, made odd."""
    digests = (hashlib.sha256(f"crosslayer weight check {i}".encode()).digest() for i in range(GROUP_WORDS))
    return np.array([int.from_bytes(digest[:4], "little") | 1 for digest in digests], np.uint32)


def groups(tables: Sequence[Words]) -> Words:
    """(groups, GROUP_WORDS): the words of each table, its last group filled with 0, which no signature sees."""
    padded = [np.pad(words, (0, -len(words) % GROUP_WORDS)).reshape(-1, GROUP_WORDS) for words in tables]
    return np.concatenate(padded) if padded else np.zeros((0, GROUP_WORDS), np.uint32)


def signatures(contents: Words) -> npt.NDArray[np.uint64]:
    """The signature of each group of `groups`."""
    return (contents.astype(np.uint64) * factors().astype(np.uint64)).sum(axis=1, dtype=np.uint64)


def parity(contents: Words, rows: int) -> Words:
    """(rows, GROUP_WORDS): the exclusive or of the groups whose number leaves the same rest."""
    return np.array([np.bitwise_xor.reduce(contents[row::rows], axis=0) for row in range(rows)], np.uint32)


def words_of(value: object) -> Words:
    """A table of constants as a little-endian device stores it, its last word filled with 0; none for a scalar."""
    match value:
        case Weights():
            raw = pack(value.codes, value.bits).tobytes()
        case Rescale(rule=Rule.DOUBLE | Rule.REDUCED):
            raw = np.stack([value.mult, value.shift], axis=1).astype("<i4").tobytes()
        case Rescale():
            raw = _little(value.factor)
        case Records():
            raw = b"".join(_little(np.array(leaf, _MEMBERS[type(leaf)])) for row in value.rows for leaf in _leaves(row))
        case np.ndarray():
            raw = _little(value)
        case _:
            raw = b""
    return np.frombuffer(raw + bytes(-len(raw) % 4), "<u4").astype(np.uint32)


def checked_tables(steps: Sequence[Step]) -> list[Words]:
    """All tables of constants that a check looks at, in the order of `model.c`."""
    tables = (words_of(value) for step in steps for value in step.fields.values())
    return [words for words in tables if len(words)]


_MEMBERS: Mapping[type, str] = MappingProxyType({int: "int32", float: "float32"})
"""The type of a record's member."""


def _little(value: Array) -> bytes:
    return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()


def _leaves(value: Any) -> Iterable[int | float]:
    """The numbers of nested tuples, in order."""
    return (leaf for item in value for leaf in _leaves(item)) if isinstance(value, tuple) else (value,)

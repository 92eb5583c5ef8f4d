"""What firmware with a weight check has beside the plain one: which tables it looks at, and what they should hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.graph.operation import TensorType, Weights
from crosslayer.core.plan import CHECKED, Plan
from crosslayer.core.quant import Array, pack
from crosslayer.emit.literals import array
from crosslayer.kernels.weight_check import Words, factors, groups, parity, signatures

Table = tuple[str, Words]
"""The C name and the content of a table of constants."""


def in_words(value: Any) -> Any:
    """A table of short integers with zeros at its end, up to a whole word; all else as it is."""
    if isinstance(value, Weights):
        value = pack(value.codes, value.bits)
    if isinstance(value, np.ndarray) and value.itemsize < 4:
        flat: Array = value.ravel()
        return np.pad(flat, (0, -flat.nbytes % 4 // flat.itemsize))
    return value


def check_content(plan: Plan, tables: Sequence[Table], output: TensorType) -> dict[str, Any] | None:
    """What the templates need to write the check that a plan asks for; None if it asks for none.

    Raises `GraphError` if there is nothing to check.
    """
    if plan.check is None:
        return None
    if not tables:
        raise GraphError("has no constants that could be checked; leave protect-weights out")
    contents = groups([words for _, words in tables])
    rows = min(plan.check.parity, len(contents))
    pieces = {
        "check_factors": factors(),
        "check_signatures": signatures(contents),
        **({"check_parity": parity(contents, rows)} if rows else {}),
    }
    return {
        "kernels": ["argmax", "weight_restore" if rows else "weight_check"],
        "regions": [(name, len(words)) for name, words in tables],
        "tables": [array(name, value) for name, value in pieces.items()],
        "groups": len(contents),
        "slice": -(-len(contents) // plan.check.inferences),
        "inferences": plan.check.inferences,
        "next": plan.offsets.get(CHECKED),
        "parity": rows,
        "output_bytes": output.bytes // output.size,
    }

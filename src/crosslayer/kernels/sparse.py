"""Weights of which most are zero, as `sparse.h` reads them."""

from collections.abc import Mapping

import numpy as np

from crosslayer.core.graph.operation import Params, scalar, table
from crosslayer.core.quant import Array
from crosslayer.kernels.call import Fields, Records
from crosslayer.kernels.requant import layer_constants
from crosslayer.kernels.tally import Tally

LARGEST_SHARE = 9 / 20
"""Of the bytes of all weights that compressed ones may take, so that about seven of ten must be zero: one of four with
its mask takes 3/8, and in rows of 32 inputs 9/20. With fewer zeros flash would be bought too dearly: docs/pruning.md
says what it costs in time."""

_SPARE = 4  # zeros behind the last weight, for bits of its masks that flip


def sparse_fields(params: Params) -> Fields | None:
    """What both kernels need of a layer with weights (outputs, …); None where it runs better densely."""
    weight = table(params, "weight")
    rows = weight.reshape(len(weight), -1)
    if rows.shape[1] >= 1 << 16:
        return None
    numbers, tables = compressed(rows)
    if sum(value.nbytes for value in tables.values()) > LARGEST_SHARE * rows.size:
        return None
    constants = layer_constants(params, 0)
    if constants is None:
        return None
    bias, requants = constants
    per_channel = len(set(requants)) > 1
    return {
        "zero_out": scalar(params, "zero_out"),
        "per_channel": int(per_channel),
        **numbers,
        **tables,
        "bias": bias.astype(np.int32),
        "requant": Records(kind="cl_requant", rows=requants if per_channel else requants[:1]),
    }


def compressed(rows: Array) -> tuple[dict[str, int], dict[str, Array]]:
    """Of int8 codes (outputs, inputs) what `sparse.h` walks along, and its tables.

    Numbers: `words`, masks of an output; `filled`, masks that are not 0; `walked`, bits up to the last one of each;
    `codes`, those that are not 0. Tables: `mask` (outputs, words), whose highest bit is the first input; `stored`, how
    many codes of each output are not 0; `weight`, these codes, and four zeros behind.

    >>> numbers, tables = compressed(np.array([[0, 7], [5, -5]], np.int8))
    >>> numbers
    {'words': 1, 'filled': 2, 'walked': 4, 'codes': 3}
    >>> {name: value.tolist() for name, value in tables.items()}
    {'mask': [[1073741824], [3221225472]], 'stored': [1, 2], 'weight': [7, 5, -5, 0, 0, 0, 0]}
    """
    there = np.pad(rows != 0, ((0, 0), (0, -rows.shape[1] % 32)))
    mask = np.packbits(there, axis=1).view(">u4").astype(np.uint32)
    walked = there.reshape(-1, 32) * np.arange(1, 33)
    numbers = {
        "words": mask.shape[1],
        "filled": int((mask != 0).sum()),
        "walked": int(walked.max(axis=1).sum()),
        "codes": int(there.sum()),
    }
    weight = np.concatenate([rows[rows != 0], np.zeros(_SPARE)]).astype(np.int8)
    return numbers, {"mask": mask, "stored": there.sum(axis=1).astype(np.uint16), "weight": weight}


def row_trips(label: str, fields: Mapping[str, int], outputs: int, tally: Tally) -> None:
    """What the rows of all outputs take in `cl_sparse_one` or `cl_sparse_four`."""
    tally.add(f"{label} rows", outputs)
    tally.add(f"{label} masks", outputs * fields["words"])
    for part in ("filled", "walked", "codes"):
        tally.add(f"{label} {part}", fields[part])

"""LiteRT (TensorFlow Lite) on this computer: another runtime, to compare with."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from crosslayer.core.errors import InputError, ToolError
from crosslayer.core.quant import Array


class Kernels(StrEnum):
    """Which of LiteRT's implementations computes."""

    REFERENCE = "BUILTIN_REF"
    """The plain ones; agree with `Rounding.REFERENCE`."""
    OPTIMISED = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    DEFAULT = "AUTO"
    """XNNPACK where it can, else the optimised ones; agree with `Rounding.FLOAT`."""


def run(model: bytes, inputs: Sequence[Array], kernels: Kernels) -> Array:
    """The first output (samples, …) of a TFLite model for `inputs`, each (samples, …) in the file's own types.

    Raises `ToolError` if LiteRT is not installed, `InputError` if it refuses the model.
    """
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError as error:
        raise ToolError("comparing with LiteRT needs it; pip install 'crosslayer[litert]'") from error
    resolver = litert.OpResolverType[kernels.value]
    try:
        made: Any = litert.Interpreter(model_content=model, experimental_op_resolver_type=resolver, num_threads=1)
        made.allocate_tensors()
        details, result = made.get_input_details(), made.get_output_details()[0]["index"]
        size = int(details[0]["shape"][0])
        found: list[Array] = []
        for start in range(0, len(inputs[0]), size):
            for entry, values in zip(details, inputs, strict=True):
                made.set_tensor(entry["index"], _filled(values[start : start + size], size))
            made.invoke()
            found.append(made.get_tensor(result))
        return np.concatenate(found)[: len(inputs[0])]
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT refuses the model: {error}") from error


def _filled(values: Array, size: int) -> Array:
    """The samples, the last one repeated up to `size`."""
    return values if len(values) == size else np.concatenate([values, np.repeat(values[-1:], size - len(values), 0)])

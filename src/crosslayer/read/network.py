"""Any network file → Graph, by the end of its name."""

from pathlib import Path

from crosslayer.core.errors import ReadError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph

SUFFIXES = (".tflite", ".onnx", ".pt2")
"""The network files that can be read."""


def read_network(path: Path, rounding: Rounding = Rounding.DOUBLE) -> Graph:
    """The network in a file; `rounding` is that of its integers, if it has any. Raises `ReadError`."""
    match path.suffix.lower():
        case ".tflite":
            from crosslayer.read.tflite import read_tflite  # each format needs a package of its own

            return read_tflite(path, rounding)
        case ".onnx":
            from crosslayer.read.onnx import read_onnx

            return read_onnx(path, rounding)
        case ".pt2":
            from crosslayer.read.torch import read_pt2

            return read_pt2(path, rounding)
        case other:
            raise ReadError(f"{path}: '{other}' is no network file; give one that ends in {', '.join(SUFFIXES)}")

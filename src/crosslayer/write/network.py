"""Graph → network file, by the end of its name."""

from pathlib import Path

from crosslayer.core.errors import InputError
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.graph import Graph

SUFFIXES = (".tflite", ".onnx")
"""The network files that can be written."""


def write_network(graph: Graph, path: Path) -> None:
    """`path` holds the network; it appears whole or not at all. Raises `GraphError` for what the format cannot say."""
    match path.suffix.lower():
        case ".tflite":
            from crosslayer.write.tflite import write_tflite  # each format needs a package of its own

            content = write_tflite(graph)
        case ".onnx":
            from crosslayer.write.onnx import write_onnx

            content = write_onnx(graph)
        case other:
            known = " or ".join(SUFFIXES)
            raise InputError(f"{path}: '{other}' cannot be written; end the name in {known}, or name a folder")
    write_atomic(path, content)

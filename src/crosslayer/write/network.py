"""Graph → network file, by the end of its name."""

from pathlib import Path

from crosslayer.core.errors import InputError
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.graph import Graph

SUFFIXES = (".tflite", ".onnx")
"""The network files that can be written."""


def check_ending(path: Path) -> None:
    """Raises `InputError` if the end of the name is none that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: '{path.suffix}' cannot be written; end the name in {' or '.join(SUFFIXES)}")


def write_network(graph: Graph, path: Path) -> None:
    """`path` holds the network; it appears whole or not at all. Raises `GraphError` for what the format cannot say."""
    check_ending(path)
    if path.suffix.lower() == ".tflite":
        from crosslayer.write.tflite import write_tflite as write  # each format needs a package of its own
    else:
        from crosslayer.write.onnx import write_onnx as write
    write_atomic(path, write(graph))

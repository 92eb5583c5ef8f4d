"""Bytes of constants in flash, compressed weights among them."""

import numpy as np

from crosslayer.core.design import constant_bytes
from crosslayer.core.graph.graph import Graph
from crosslayer.kernels.call import WEIGHTS
from crosslayer.kernels.choose import call


def flash_bytes(graph: Graph) -> int:
    """Bytes of all constants as firmware stores them; those of a float network as they are."""
    return sum(constant_flash_bytes(graph, name) for name in graph.constants)


def constant_flash_bytes(graph: Graph, name: str) -> int:
    """Bytes of one constant: what `constant_bytes` says, or masks and codes where a kernel stores no zeros."""
    for node in graph.users[name]:
        if node.op.channel_axis is not None and node.inputs[1] == name and graph.integral(node):
            found = call(graph, node, by_rows=False)
            if found is not None and "mask" in found.fields:
                tables = (found.fields[table] for table in WEIGHTS)
                return sum(table.nbytes for table in tables if isinstance(table, np.ndarray))
    return constant_bytes(graph, name)

"""Writing a graph down, value by value."""

from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph, Node, verify
from crosslayer.core.graph.operation import Op, Shape, TensorType
from crosslayer.core.quant import Array, Quant


@final
class Builder:
    """Collects nodes; `graph()` verifies and returns them.

    >>> from crosslayer.core.graph.ops import Relu
    >>> b = Builder()
    >>> x = b.input("x", (2,))
    >>> len(b.graph(b.add(Relu(), x)).nodes)
    1
    """

    def __init__(self, rounding: Rounding = Rounding.DOUBLE) -> None:
        """Start an empty graph."""
        self._rounding = rounding
        self._inputs: list[str] = []
        self._nodes: list[Node] = []
        self._types: dict[str, TensorType] = {}
        self._constants: dict[str, Array] = {}

    def input(self, name: str, shape: Shape, quant: Quant | None = None) -> str:
        """Declare an input of one sample's shape."""
        self._types[self._fresh(name)] = TensorType(shape=shape, quant=quant)
        self._inputs.append(name)
        return name

    def constant(self, name: str, value: Array, quant: Quant | None = None) -> str:
        """Add a constant; float values become float32, integers keep the code's storage type."""
        self._constants[self._fresh(name)] = value.astype(np.float32 if quant is None else quant.dtype)
        self._types[name] = TensorType(shape=value.shape, quant=quant)
        return name

    def add(self, op: Op, *inputs: str, name: str | None = None, quant: Quant | None = None) -> str:
        """Apply `op`; returns the name of its result. `quant` is the result's code (forced ones may be left out)."""
        name = self._fresh(name or self._numbered(type(op).__name__.lower()))
        shapes = [self._types[n].shape for n in inputs]
        try:
            shape = op.infer(shapes)
            forced = op.code([self._types[n].quant for n in inputs if n not in self._constants], shapes)
        except GraphError as error:
            raise GraphError(f"{name} ({type(op).__name__}): {error}") from error
        self._types[name] = TensorType(shape=shape, quant=quant or forced)
        self._nodes.append(Node(name=name, op=op, inputs=inputs))
        return name

    def shape(self, name: str) -> Shape:
        """The shape of a value written so far."""
        return self._types[name].shape

    def code(self, name: str) -> Quant | None:
        """The number code of a value written so far; None for float32."""
        return self._types[name].quant

    def graph(self, *outputs: str) -> Graph:
        """The verified graph with the given outputs."""
        return verify(
            Graph(
                inputs=tuple(self._inputs),
                outputs=outputs,
                nodes=tuple(self._nodes),
                types=self._types,
                constants=self._constants,
                rounding=self._rounding,
            )
        )

    def _fresh(self, name: str) -> str:
        if name in self._types:
            raise GraphError(f"{name}: the name is used twice; rename one")
        return name

    def _numbered(self, stem: str) -> str:
        number = 1
        while f"{stem}{number}" in self._types:
            number += 1
        return f"{stem}{number}"

"""The network as immutable data."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from types import MappingProxyType
from typing import final

import numpy as np

from crosslayer.core.errors import GraphError
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.operation import Op, Operand, Params, TensorType
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One application of an operation. `name` is the node's and its result's."""

    name: str
    op: Op
    inputs: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """Typed values, nodes in an order that can be executed, and constants.

    `types` has an entry for each input, constant and node. Shapes have no batch axis: a graph describes one inference.
    Two graphs are equal when all of this is, bit for bit.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    rounding: Rounding = Rounding.DOUBLE

    def __post_init__(self) -> None:
        frozen: dict[str, Array] = {}
        for name, value in self.constants.items():
            fixed = np.ascontiguousarray(value).reshape(value.shape)
            if fixed.flags.writeable:
                fixed = fixed.copy()
                fixed.setflags(write=False)
            frozen[name] = fixed
        object.__setattr__(self, "constants", MappingProxyType(frozen))
        object.__setattr__(self, "types", MappingProxyType(dict(self.types)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole description."""
        head = (self.inputs, self.outputs, self.nodes, sorted(self.types.items()), self.rounding.value)
        digest = hashlib.sha256(repr(head).encode())
        for name in sorted(self.constants):
            value = self.constants[name]
            digest.update(f"{name}{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that makes each computed value."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value; a value nobody reads has none."""
        users: dict[str, list[Node]] = {name: [] for name in self.types}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                users[name].append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @property
    def is_integer(self) -> bool:
        """True if no activation between nodes is float32 (inputs and outputs may be)."""
        return all(self.types[n.name].quant is not None or n.name in self.outputs for n in self.nodes) and any(
            self.types[n.name].quant is not None for n in self.nodes
        )

    def operands(self, node: Node) -> tuple[Operand, ...]:
        """What a node is applied to."""
        return tuple(Operand(type=self.types[n], value=self.constants.get(n)) for n in node.inputs)

    def activations(self, node: Node) -> tuple[str, ...]:
        """The inputs of a node that are computed at run time."""
        return tuple(n for n in node.inputs if n not in self.constants)

    def integral(self, node: Node) -> bool:
        """True if the node computes with or towards integers."""
        return any(self.types[n].quant is not None for n in (*self.activations(node), node.name))

    def kernel(self, node: Node) -> str:
        """The C kernel of an integral node, "" for a view. Raises `GraphError` if its codes have none."""
        return node.op.kernel_for(self.types[n] for n in (*self.activations(node), node.name))

    @cached_property
    def lowered(self) -> Mapping[str, Params]:
        """The integer constants of each integral node. Raises `GraphError` naming the node that has no such meaning."""
        params: dict[str, Params] = {}
        for node in self.nodes:
            if self.integral(node):
                try:
                    _ = self.kernel(node)
                    params[node.name] = node.op.lower(self.operands(node), self.types[node.name], self.rounding)
                except GraphError as error:
                    raise GraphError(f"{node.name} ({type(node.op).__name__}): {error}") from error
        return params

    @cached_property
    def macs(self) -> Mapping[str, int]:
        """Multiply-accumulate operations of each node, for one sample."""
        return {
            node.name: node.op.macs([self.types[n].shape for n in node.inputs], self.types[node.name].shape)
            for node in self.nodes
        }

    @property
    def parameters(self) -> int:
        """Number of constant values."""
        return sum(value.size for value in self.constants.values())


def verify(graph: Graph) -> Graph:
    """`graph`, known to be well formed.

    Raises `GraphError` that says which node is wrong, what is wrong, and what to do.
    """
    known: set[str] = set(graph.inputs) | set(graph.constants)
    if len(set(graph.inputs)) != len(graph.inputs) or set(graph.inputs) & set(graph.constants):
        raise GraphError("the graph's inputs have names that are used twice; rename one")
    for name in known:
        if name not in graph.types:
            raise GraphError(f"{name}: has no type; add it to `types`")
    for name, kind in graph.types.items():
        _verify_type(name, kind)
    for name, value in graph.constants.items():
        kind = graph.types[name]
        dtype = np.dtype(np.float32) if kind.quant is None else kind.quant.dtype
        if value.shape != kind.shape or value.dtype != dtype:
            raise GraphError(
                f"{name}: the constant is {value.dtype}{list(value.shape)}, its type says {dtype}{list(kind.shape)}"
            )
    for node in graph.nodes:
        _verify_node(graph, node, known)
        known.add(node.name)
    for name in graph.outputs:
        if name not in known:
            raise GraphError(f"{name}: is a graph output that nothing computes")
    if not graph.outputs:
        raise GraphError("the graph has no output; name one")
    return graph


def _verify_type(name: str, kind: TensorType) -> None:
    shape, quant = kind.shape, kind.quant
    if not shape or min(shape) < 1 or math.prod(shape) >= 2**31:
        raise GraphError(f"{name}: the shape {list(shape)} is empty or too large; every axis has at least 1 place")
    if quant is None or quant.axis is None:
        return
    if not 0 <= quant.axis < len(shape) or len(quant.scale) != shape[quant.axis]:
        raise GraphError(f"{name}: {len(quant.scale)} scales along axis {quant.axis} do not fit {list(shape)}")


def _verify_node(graph: Graph, node: Node, known: set[str]) -> None:
    where = f"{node.name} ({type(node.op).__name__})"
    if node.name in known:
        raise GraphError(f"{where}: the name is used twice; rename one")
    if node.name not in graph.types:
        raise GraphError(f"{where}: its result has no type; add it to `types`")
    for name in node.inputs:
        if name not in known:
            raise GraphError(f"{where}: reads '{name}', which is not computed before it; reorder the nodes")
    want = len(node.op.operands)
    if len(node.inputs) != want and not (node.op.variadic and node.inputs):
        raise GraphError(f"{where}: takes {want} operands ({', '.join(node.op.operands)}), got {len(node.inputs)}")
    for role, name in zip_longest(node.op.operands, node.inputs, fillvalue=node.op.operands[-1]):
        if role in node.op.weights and name not in graph.constants:
            raise GraphError(f"{where}: '{role}' must be a constant, but '{name}' is computed")
        if role not in node.op.weights and name in graph.constants:
            raise GraphError(f"{where}: '{role}' must be computed, but '{name}' is a constant; only weights may be")
    if node.op.channel_axis is not None:
        taps = graph.types[node.inputs[1]].quant
        if taps is not None and taps.axis not in (None, node.op.channel_axis):
            raise GraphError(f"{where}: its weight has scales along axis {taps.axis}, not {node.op.channel_axis}")
    shapes = [graph.types[n].shape for n in node.inputs]
    try:
        shape = node.op.infer(shapes)
        codes = [graph.types[n].quant for n in graph.activations(node)]
        forced = node.op.code(codes, shapes)
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from error
    kind = graph.types[node.name]
    if shape != kind.shape:
        raise GraphError(f"{where}: makes shape {list(shape)}, its type says {list(kind.shape)}")
    if forced is not None and kind.quant is not None and forced != kind.quant:
        raise GraphError(f"{where}: keeps or fixes its number code: expected {forced}, its type says {kind.quant}")

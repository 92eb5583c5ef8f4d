"""What a network takes, for comparing it with a smaller one before either is quantized."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from crosslayer.core.errors import GraphError, InputError
from crosslayer.core.graph.edit import rewire, without_unused
from crosslayer.core.graph.graph import Graph, Node
from crosslayer.core.graph.operation import TensorType
from crosslayer.core.graph.ops import BatchNorm, Relu, Relu6, Requantize
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.plan import Plan, peak_bytes
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Target
from crosslayer.hardware.cycles import latency
from crosslayer.hardware.energy import energy
from crosslayer.hardware.macs import INSTRUCTIONS_PER_MAC
from crosslayer.kernels.counts import predict
from crosslayer.kernels.storage import flash_bytes

_CODE = Quant(bits=8, scale=(1 / 16,))  # any: costs depend on shapes alone


def check_known(target: Target, names: Collection[str]) -> None:
    """Raises `InputError` if one of the amounts is not known on the target."""
    if target.active_power is None and "energy" in names:
        raise InputError(f"cost: no power figure of {target.name} is known; write latency instead of energy")


def amounts(graph: Graph, target: Target, names: Collection[str]) -> dict[str, float]:
    """What a float network takes, by the names of `cost.SAVED`.

    parameters and macs are counted. The others are those of its int8 form: weights_bytes those of all constants; ram
    the bytes of values alive at once, one node run after the other; latency (s) and energy (J) those of the
    instructions that its firmware is predicted to execute.
    """
    whole = outline(graph) if set(names) - {"parameters", "macs"} else graph
    return {name: _amount(name, graph, whole, target) for name in names}


def _amount(name: str, graph: Graph, whole: Graph, target: Target) -> float:
    match name:
        case "parameters":
            return graph.parameters
        case "macs":
            return sum(graph.macs.values())
        case "weights_bytes":
            return flash_bytes(whole)
        case "ram":
            return peak_bytes(whole, tuple(node.name for node in whole.nodes))
        case "latency":
            return latency(_instructions(whole, target), target).value
        case _:
            check_known(target, (name,))
            spent = energy(_instructions(whole, target), target)
            assert spent is not None
            return spent.value


def outline(graph: Graph) -> Graph:
    """A float network's int8 form as far as costs depend on it: its shapes, with ones for weights that are not zero.

    Normalizations and rectifiers are taken to be folded into the layer before them; operands that must share a
    code but do not are requantized, as quantization would.
    """
    renamed = {n.name: n.inputs[0] for n in graph.nodes if isinstance(n.op, (BatchNorm, Relu, Relu6))}
    nodes = tuple(node for node in graph.nodes if node.name not in renamed)
    slim = without_unused(rewire(replace(graph, nodes=nodes), renamed))
    codes: dict[str, Quant] = dict.fromkeys((*slim.inputs, *slim.constants), _CODE)
    shapes = {name: kind.shape for name, kind in slim.types.items()}
    whole: list[Node] = []
    for node in slim.nodes:
        own = [shapes[n] for n in node.inputs]
        axis = node.op.channel_axis
        if axis is not None:
            taps = Quant(bits=8, scale=_CODE.scale * own[1][axis], axis=axis)
            codes |= {node.inputs[1]: taps, node.inputs[2]: bias_code(_CODE, taps)}
        if not node.op.takes([codes[n] for n in slim.activations(node)], own):
            parts = {n: f"{node.name}.part{i}" for i, n in enumerate(node.inputs) if codes[n] != _CODE}
            whole += [Node(name=part, op=Requantize(), inputs=(n,)) for n, part in parts.items()]
            codes |= dict.fromkeys(parts.values(), _CODE)
            shapes |= {part: shapes[n] for n, part in parts.items()}
            whole.append(replace(node, inputs=tuple(parts.get(n, n) for n in node.inputs)))
        else:
            whole.append(node)
        codes[node.name] = node.op.code([codes[n] for n in slim.activations(whole[-1])], own) or _CODE
    types = {name: TensorType(shape=shape, quant=codes[name]) for name, shape in shapes.items()}
    weights = {node.inputs[1] for node in slim.nodes if node.op.channel_axis is not None}
    constants: dict[str, Array] = {
        n: ((value != 0) if n in weights else np.zeros(value.shape)).astype(codes[n].dtype)
        for n, value in slim.constants.items()
    }
    return replace(slim, nodes=tuple(whole), types=types, constants=constants)


def _instructions(whole: Graph, target: Target) -> int:
    """Those predicted for the nodes run one after the other; where a kernel's are not known, by its MACs."""
    plan = Plan(order=tuple(n.name for n in whole.nodes), offsets={}, arena_bytes=0, bound_bytes=0, exact=False)
    try:
        found = predict(whole, plan, target.core)
    except GraphError:
        found = None
    by_step = {} if found is None else found.by_step
    unknown = [node.name for node in whole.nodes if not node.op.is_view and by_step.get(node.name) is None]
    known = 0 if found is None else found.outside + sum(filter(None, by_step.values()))
    return known + round(sum(whole.macs[name] for name in unknown) * INSTRUCTIONS_PER_MAC[8].value)

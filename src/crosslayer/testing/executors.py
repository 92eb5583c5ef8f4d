"""Every executor against the judge, byte by byte."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from crosslayer.core.design import Design
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.evaluate.firmware import compare
from crosslayer.execute import exact, reference
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena
from crosslayer.testing.chance import Chance

_TARGET = "stm32f769"  # firmware does not depend on the device but for a comment


def random_inputs(graph: Graph, chance: Chance, samples: int) -> Array:
    """Inputs of a network: the least and largest first, then random codes, or real values of every size and halves."""
    kind, rng = graph.types[graph.inputs[0]], chance.rng()
    shape = (samples, *kind.shape)
    if kind.quant is not None:
        x = rng.integers(kind.quant.lowest, kind.quant.highest, shape, kind.quant.dtype, endpoint=True)
        x[:1], x[1:2], x[2:3] = kind.quant.lowest, kind.quant.highest, kind.quant.zero[0]
        return x
    x = (rng.normal(size=shape) * np.exp2(rng.integers(-6, 8, (samples, *(1 for _ in kind.shape))))).astype(np.float32)
    x[:1], x[1:2], x[2:3] = -np.inf, np.finfo(np.float32).max, 0.0
    first = graph.types[graph.nodes[0].name].quant
    if first is not None:
        x[3:5] = (np.rint(x[3:5]) + np.float32(0.5)) * np.float32(first.scale[0])
    return x


def write_firmware(graph: Graph, folder: Path, samples: Array) -> Path:
    """`folder`, which now holds the firmware of an integer network with golden outputs for `samples`."""
    emit(Design(graph=graph, target=load_target(_TARGET), plan=plan_arena(graph)), folder, samples)
    return folder


def check_exact(graph: Graph, x: Array) -> None:
    """Every value of the fast executor is that of the judge. Raises `AssertionError` that names the first that is not.

    Both its forms are run: node by node, and prepared as a whole.
    """
    truth, fast = reference.trace(graph, x), exact.trace(graph, x)
    for name, value in truth.items():
        assert value.dtype == fast[name].dtype, f"{name}: stored as {fast[name].dtype}, the judge says {value.dtype}"
        assert np.array_equal(value, fast[name], equal_nan=value.dtype == np.float32), f"{name}: exact differs"
    output = graph.outputs[0]
    assert np.array_equal(exact.run(graph, x), truth[output]), f"{output}: exact differs when prepared as a whole"


def check_executors(graph: Graph, folder: Path, x: Array, *, cores: Iterable[Core] = (), emulated: int = 3) -> None:
    """No executor gives a byte other than the judge: fast batches, C on this computer, firmware on emulated `cores`.

    The first `emulated` samples of `x` run on each core. Raises `AssertionError` that says which executor differs.
    """
    firmware = write_firmware(graph, folder, x[:1])
    for found in compare(graph, firmware, x, emulated=emulated, cores=cores):
        assert found.differing_bytes == 0, (
            f"{found.executor}: {found.differing_bytes} bytes differ from the reference over {found.samples} samples "
            f"under '{graph.rounding}': {[node.op for node in graph.nodes]}"
        )

"""Compressed weights beside dense ones: flash and instructions of LeNet-5 with zeros, and where a layer breaks even.

    python benchmarks/sparse.py lenet5      # as linked, and run on an emulated Cortex-M4; MNIST must be there
    python benchmarks/sparse.py layers      # as predicted

The figures of docs/pruning.md are from here.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Conv2d, Dense, Windows
from crosslayer.core.graph.ops.products import bias_code
from crosslayer.core.quant import Array, Quant
from crosslayer.core.target import Core
from crosslayer.datasets.catalog import load
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Image
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels import sparse
from crosslayer.kernels.choose import call
from crosslayer.kernels.counts import predict
from crosslayer.kernels.storage import flash_bytes
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.prune.weights import PruneWeights
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.integers import simplify_integers

TARGET = load_target("stm32f769")
SHARES = {"compressed": sparse.LARGEST_SHARE, "always": 100.0, "dense": 0.0}
CORES = (Core.CORTEX_M4, Core.CORTEX_M0, Core.RV32)
_UNTUNED = PruneWeights(rounds=1, drop=1.0, tuning=Training(epochs=0))
PRUNED = {
    "0 %": None,
    **{f"{round(100 * zeros)} %": replace(_UNTUNED, zeros=zeros) for zeros in (0.5, 0.7, 0.8, 0.9, 0.95)},
    **{pattern: replace(_UNTUNED, pattern=pattern) for pattern in ("2:4", "1:4")},
}


def lenet5(epochs: int, samples: int) -> None:
    """Trained on the first samples of MNIST, pruned at once and not tuned."""
    data = load("mnist")
    data = replace(data, train=data.train.take(slice(0, samples)))
    bench = Bench(data=data, seed=0, executor=execute)
    trained = Train(epochs=epochs)(Design(graph=network("lenet5", data.shape, 10, 0), target=TARGET), bench)
    x = data.train.real(slice(0, 256))
    for name, stage in PRUNED.items():
        design = trained if stage is None else stage(trained, bench)
        graph = fuse_activations(design.graph)
        graph = quantize(graph, reference.calibrate(graph, [x], exact.evaluate), Rounding.DOUBLE)
        graph = simplify_integers(graph)
        for storage, share in SHARES.items():
            sparse.LARGEST_SHARE = share
            print(name, storage, *_linked(graph, reference.encode_input(graph, x[:2])), flush=True)


def _linked(graph: Graph, x: Array) -> tuple[object, ...]:
    """Bytes of weights and of the library, instructions, RAM, and the compressed layers."""
    plan = plan_arena(graph)
    kernels = {node.name: call(graph, node, by_rows=False) for node in graph.nodes}
    chosen = [name for name, found in kernels.items() if found is not None and "mask" in found.fields]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "firmware"
        emit(Design(graph=graph, target=TARGET, plan=plan), folder, x[:1])
        image = Image.link(folder, Core.CORTEX_M4)
        ran = image.run(x)
    assert np.array_equal(ran.outputs, reference.run(graph, x).reshape(len(x), -1).view(np.uint8))
    return flash_bytes(graph), image.flash_bytes, int(ran.instructions.max()), plan.arena_bytes, chosen


def layers() -> None:
    """Of layers with evenly spread zeros, instructions compressed over instructions dense."""
    cases = {
        "conv 3x3, 32 to 32 channels, 6x6 places": ((8, 8, 32), (32, 3, 3, 32)),
        "conv 5x5, 6 to 16 channels, 10x10 places": ((14, 14, 6), (16, 5, 5, 6)),
        "dense, 400 to 120": ((400,), (120, 400)),
    }
    for name, (shape, weight) in cases.items():
        for zeros in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
            graph = _layer(shape, weight, zeros)
            found: dict[str, list[int]] = {}
            for storage in ("always", "dense"):
                sparse.LARGEST_SHARE = SHARES[storage]
                taken = [predict(graph, plan_arena(graph), core) for core in CORES]
                found[storage] = [sum(filter(None, one.by_step.values())) for one in taken if one is not None]
            ratios = [f"{a / b:.2f}" for a, b in zip(found["always"], found["dense"], strict=True)]
            print(name, zeros, *ratios, flush=True)


def _layer(shape: tuple[int, ...], size: tuple[int, ...], zeros: float) -> Graph:
    rng = np.random.default_rng(0)
    code, taps = Quant(bits=8, scale=(0.1,)), Quant(bits=8, scale=(0.003,))
    weight = rng.integers(1, 128, size) * (rng.random(size) >= zeros)
    b = Builder(Rounding.DOUBLE)
    constants = b.constant("w", weight, taps), b.constant("c", np.zeros(size[0]), bias_code(code, taps))
    op = Dense() if len(shape) == 1 else Conv2d(windows=Windows(kernel=(size[1], size[2])))
    return b.graph(b.add(op, b.input("x", shape, code), *constants, quant=code))


def main() -> None:
    """Prints one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["lenet5", "layers"])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--samples", type=int, default=10_000)
    given = parser.parse_args()
    if given.table == "lenet5":
        lenet5(given.epochs, given.samples)
    else:
        layers()


if __name__ == "__main__":
    main()

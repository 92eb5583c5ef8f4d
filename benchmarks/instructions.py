"""Instructions per multiply-accumulate and code bytes of reference networks on emulated cores; exact counts."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Emulation, Image, left_out, runnable_cores
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.quantize.affine import quantize
from crosslayer.quantize.precision import Precision
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms

CASES = (
    ("lenet5", (28, 28, 1), 10),
    ("dscnn", (49, 10, 1), 12),
    ("resnet8", (32, 32, 3), 10),
    ("mobilenet", (96, 96, 3), 2),
    ("autoencoder", (640,), 0),
)


NARROW = ("lenet5", "dscnn", "resnet8")
NARROW_CORES = (Core.CORTEX_M4, Core.CORTEX_M0, Core.RV32)


def main() -> None:
    print("| network | core | instructions | per MAC | flash less weights, B | stack, B |")
    print("|---|---|---|---|---|---|")
    for name, shape, classes in CASES:
        for core, ran, graph in runs(name, shape, classes, 8, runnable_cores()):
            count, code = int(ran.instructions[0]), ran.image.flash_bytes - weight_bytes(graph)
            per_mac = count / sum(graph.macs.values())
            print(f"| {name} | {core} | {count} | {per_mac:.2f} | {code} | {ran.stack_bytes} |", flush=True)
    for why in left_out().values():
        print(f"\nLeft out: {why}")
    print("\n| network | core | " + " | ".join(f"{bits}-bit weights" for bits in range(1, 9)) + " |")
    print("|---|---|" + "---|" * 8)
    for name, shape, classes in (case for case in CASES if case[0] in NARROW):
        per_mac: dict[Core, list[str]] = {core: [] for core in NARROW_CORES}
        for bits in range(1, 9):
            for core, ran, graph in runs(name, shape, classes, bits, NARROW_CORES):
                per_mac[core].append(f"{int(ran.instructions[0]) / sum(graph.macs.values()):.2f}")
        for core, values in per_mac.items():
            print(f"| {name} | {core} | {' | '.join(values)} |", flush=True)


def runs(
    name: str, shape: tuple[int, ...], classes: int, bits: int, cores: Iterable[Core]
) -> Iterator[tuple[Core, Emulation, Graph]]:
    """One inference of a reference network with weights of that many bits, on each core."""
    graph = fuse_activations(fold_norms(network(name, shape, classes, 0)))
    x = np.random.default_rng(0).random((8, *shape)).astype(np.float32)
    ranges = reference.calibrate(graph, [x], exact.evaluate)
    graph = quantize(graph, ranges, Rounding.DOUBLE, Precision(weights=bits))
    design = Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "firmware"
        emit(design, folder, x[:1])
        for core in cores:
            yield core, Image.link(folder, core).run(reference.encode_input(graph, x[:1])), graph


if __name__ == "__main__":
    main()

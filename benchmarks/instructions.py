"""Instructions per multiply-accumulate and code bytes of reference networks on all emulated cores; exact counts."""

import tempfile
from pathlib import Path

import numpy as np

from crosslayer.core.design import Design, weight_bytes
from crosslayer.core.fixed import Rounding
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute.emulate import Image
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import plan_arena
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms

CASES = (
    ("lenet5", (28, 28, 1), 10),
    ("dscnn", (49, 10, 1), 12),
    ("resnet8", (32, 32, 3), 10),
    ("mobilenet", (96, 96, 3), 2),
    ("autoencoder", (640,), 0),
)


def main() -> None:
    print("| network | core | instructions | per MAC | flash less weights, B | stack, B |")
    print("|---|---|---|---|---|---|")
    for name, shape, classes in CASES:
        graph = fuse_activations(fold_norms(network(name, shape, classes, 0)))
        x = np.random.default_rng(0).random((8, *shape)).astype(np.float32)
        graph = quantize(graph, reference.calibrate(graph, [x], exact.evaluate), Rounding.DOUBLE)
        design = Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph))
        macs = sum(graph.macs.values())
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "firmware"
            emit(design, folder, x[:1])
            for core in Core:
                ran = Image.link(folder, core).run(reference.encode_input(graph, x[:1]))
                count, code = int(ran.instructions[0]), ran.image.flash_bytes - weight_bytes(graph)
                print(f"| {name} | {core} | {count} | {count / macs:.2f} | {code} | {ran.stack_bytes} |", flush=True)


if __name__ == "__main__":
    main()

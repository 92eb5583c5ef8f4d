"""A step of quantization-aware training as a ratio to a step of float training; batches of 128, same run, by turns.

The float network keeps its batch normalizations, as `fit` trains it; the integer one has them folded and learns steps.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses

from crosslayer.core.fixed import Rounding
from crosslayer.execute import exact, reference
from crosslayer.execute.straight import StraightThrough
from crosslayer.execute.torch import Learner, to_torch
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import quantize
from crosslayer.quantize.precision import Precision
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms

ROUNDS, BATCH = 15, 128
CASES = (("resnet8", (32, 32, 3), 10), ("dscnn", (49, 10, 1), 12))


def stepper(module: Learner, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    """A training step as `execute.torch_training.train` does it; returns its seconds."""
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=1e-4)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x, upto="logits"), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        return time.perf_counter() - start

    return step


def main() -> None:
    print("| network | weights | rounding | float, ms | aware, ms | ratio | convert, ms |")
    print("|---|---|---|---|---|---|---|")
    for name, shape, classes in CASES:
        rng = np.random.default_rng(0)
        x = rng.random((BATCH, *shape)).astype(np.float32)
        labels = torch.from_numpy(rng.integers(0, classes, BATCH))
        graph = network(name, shape, classes, 0)
        folded = fuse_activations(fold_norms(graph))
        ranges = reference.calibrate(folded, [x], exact.evaluate)
        for bits, rounding in ((8, Rounding.DOUBLE), (8, Rounding.FLOAT), (2, Rounding.DOUBLE)):
            integer = quantize(folded, ranges, rounding, Precision(weights=bits))
            aware = StraightThrough(folded, integer, learn_steps=True)
            steps = [stepper(module, torch.from_numpy(x), labels) for module in (to_torch(graph), aware)]
            pairs = [[step() for step in steps] for _ in range(ROUNDS)][2:]  # the first ones warm up
            peer, ours = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(b / a for a, b in pairs)
            start = time.perf_counter()
            aware.convert()
            convert = 1e3 * (time.perf_counter() - start)
            print(
                f"| {name} | {bits} | {rounding} | {peer:.0f} | {ours:.0f} | {ratio:.2f} | {convert:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()

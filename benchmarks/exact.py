"""Speed of the exact integer executor as a ratio to float PyTorch: LeNet-5 on MNIST's 10,000 test images, same run."""

import statistics
import time
from collections.abc import Callable

from crosslayer.core.fixed import Rounding
from crosslayer.datasets.catalog import load
from crosslayer.execute import exact, reference
from crosslayer.execute import torch as bridge
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations

ROUNDS = 7


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    data = load("mnist")
    graph = fuse_activations(network("lenet5", data.shape, len(data.classes), 0))
    ranges = reference.calibrate(graph, [data.train.real(slice(0, 256))], exact.evaluate)
    integer = quantize(graph, ranges, Rounding.DOUBLE)
    x = data.test.real()
    pairs = [(seconds(lambda: exact.run(integer, x)), seconds(lambda: bridge.run(graph, x))) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print("| executor | seconds for 10,000 images (median of", ROUNDS, "rounds) |")
    print("|---|---|")
    print(f"| exact, int8 | {ours:.3f} |")
    print(f"| PyTorch, float32 | {theirs:.3f} |")
    print(f"\nspeed of exact relative to PyTorch, round by round: median {ratio:.2f}")


if __name__ == "__main__":
    main()

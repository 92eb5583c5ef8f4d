"""The least weight memory of LeNet-5 on MNIST, by structured pruning and few bits, beside PruNet's 190 times.

    python studies/talk/smallest.py     [--out runs/talk] [--seed 0]

Takes networks of the pruning curve of `talk.py lenet5-mnist`, which it computes if it is not there, lets the float
network teach them while they are tuned and trained for few bits, and prints a row for each. The one to be taken is that
with the best validation accuracy; its test figure counts.
"""

import argparse
import json
from pathlib import Path

from subjects import SUBJECTS, trained
from talk import SIMPLIFY, pruned, shown

from crosslayer.core.bench import Bench
from crosslayer.core.design import save_design, weight_bytes
from crosslayer.core.stage import run
from crosslayer.datasets.catalog import load
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.learn.train import FineTune
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.aware import QuantizeAware
from crosslayer.quantize.precision import Precision

LEAST = 190  # PruNet's memory-saving ratio on LeNet/MNIST (Marchisio et al. 2018, abstract)


def main() -> None:
    """Print a row for each number of bits, with the largest network of the curve that takes little enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/talk"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    subject, work = SUBJECTS["lenet5-mnist"], given.out / "lenet5-mnist" / f"seed{given.seed}" / "work"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(data=load(subject.data), seed=given.seed, executor=execute, progress=shown, cache=work / "cache")
    start = trained(subject, bench.data, bench, work)
    save_design(start, work / "float")
    whole = weight_bytes(start.graph)
    for bits in (3, 4):
        first = QuantizeAffine(precision=Precision(weights=bits), correct_biases=True)
        design = next(
            design
            for design in pruned(subject, start, bench, work)
            if weight_bytes(run((*SIMPLIFY, first), design, bench, judge=lambda _: ()).graph) * LEAST <= whole
        )
        tune = FineTune(epochs=12, rate=2e-3, shift=1, distill=0.5, teacher=str(work / "float"))
        learn = Training(epochs=8, rate=2e-3, decay=0.0, shift=1, distill=0.5)
        recipe = (tune, *SIMPLIFY, QuantizeAware(start=first, training=learn))
        made = run(recipe, design, bench, judge=lambda _: (), checkpoints=work / "smallest")
        row = {
            "bits": bits,
            "parameters": design.graph.parameters,
            "weights_bytes": weight_bytes(made.graph),
            "saving": round(whole / weight_bytes(made.graph), 1),
            "validation": round(bench.accuracy(made.graph, bench.data.validation), 4),
            "test": round(bench.accuracy(made.graph, bench.data.test), 4),
            "float_validation": round(bench.accuracy(start.graph, bench.data.validation), 4),
            "float_test": round(bench.accuracy(start.graph, bench.data.test), 4),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

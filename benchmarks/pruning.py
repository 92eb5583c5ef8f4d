"""Our iterative pruning beside torch-pruning's global pruning: accuracy at equal MACs, and at equal modelled energy.

    python benchmarks/pruning.py [--out runs/pruning] [--seeds 3] [--network lenet5-mnist]

Each method prunes the same trained network in rounds, in each to the same share of MACs, or of the energy modelled for
the target, and then trains for the same epochs. torch-pruning (Fang et al. 2023, arXiv 2301.12900) removes one group
after the other, in the order that it ranks them all by, while the share is not undercut; so do we. Ours
looks at validation samples to compare layers, theirs at none. Our importance, L2, was the best of three by validation
accuracy of LeNet-5, seed 0; theirs are its two usual ones. A killed run goes on where it was.
"""

import argparse
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that PyTorch's own documentation uses
import torch_pruning
from rich.progress import track
from torch_mirror import Mirror, members

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.files import write_atomic
from crosslayer.core.graph.channels import Channel, layers, remove
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import BatchNorm
from crosslayer.core.stage import Stage, run
from crosslayer.datasets.catalog import load
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.prune.channels import PruneChannels, Schedule
from crosslayer.prune.importance import Importance
from crosslayer.prune.rounds import tuned
from crosslayer.prune.savings import amounts

T = TypeVar("T")
GOALS = (0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25)
TARGET = "stm32l4r5"
_SMALL = 400  # steps of torch-pruning, so that each takes about one channel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TorchPruning(Stage):
    """Prunes by torch-pruning's global ranking until the next group would leave less than the share `keep` of `of`."""

    taylor: bool
    keep: float
    of: str
    evidence: int = 512
    tuning: Training = field(default_factory=lambda: Training(epochs=1))

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The pruned and tuned design."""
        graph, train = design.graph, bench.data.train
        floor = self.keep * amounts(graph, design.target, (self.of,))[self.of]
        seen = train.take(bench.rng().permutation(len(train))[: self.evidence])
        images, labels = torch.from_numpy(seen.real()).permute(0, 3, 1, 2), torch.from_numpy(seen.labels)
        mirror = Mirror(graph).eval()
        kinds = torch_pruning.importance
        pruner = torch_pruning.pruner.BasePruner(
            mirror,
            images[:1],
            importance=kinds.GroupTaylorImportance() if self.taylor else kinds.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=0.99,
            iterative_steps=_SMALL,
            ignored_layers=[list(mirror.parts.values())[-1]],
        )
        if self.taylor:
            F.nll_loss(torch.log(mirror(images)), labels).backward()
        for _ in range(_SMALL):
            for group in pruner.step(interactive=True):
                smaller = remove(graph, _channels(mirror, graph, group))
                if amounts(smaller, design.target, (self.of,))[self.of] < floor:
                    graph = tuned(graph, self.tuning, graph, bench, 0)
                    return replace(design, graph=graph), {}
                group.prune()
                mirror.graph = graph = smaller
        raise AssertionError("torch-pruning took all it may take and left more")


def _channels(mirror: Mirror, graph: Graph, group: Any) -> list[Channel]:
    """Ours for a group of theirs: the same sets, as the tests of coupling show."""
    owner: dict[tuple[str, int], Channel] = {}
    for layer in layers(graph):
        for channel in layer.channels:
            for node in graph.nodes:
                if isinstance(node.op, BatchNorm) or node.op.channel_axis is not None:
                    axis = (node.inputs[1], node.op.channel_axis or 0)
                    owner |= dict.fromkeys(((node.name, i) for i in channel.places.get(axis, ())), channel)
    pairs = [(dependency, list(indices)) for dependency, indices in group]
    found = [owner[name, i] for name, side, i in members(mirror, graph, pairs) if side == "out"]
    return list({channel.index: channel for channel in found}.values())


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its data, how its weights are learned, and how it is tuned in each round."""

    network: str
    data: str
    learn: Train
    tuning: Training


CASES = {
    "lenet5-mnist": Case(
        network="lenet5", data="mnist", learn=Train(epochs=8, shift=1), tuning=Training(epochs=1, rate=1e-3, shift=1)
    ),
    "resnet8-digits": Case(
        network="resnet8",
        data="digits",
        learn=Train(epochs=20, batch=64),
        tuning=Training(epochs=3, batch=64, rate=1e-3),
    ),
    "dscnn-digits": Case(
        network="dscnn",
        data="digits",
        learn=Train(epochs=20, batch=64),
        tuning=Training(epochs=3, batch=64, rate=1e-3),
    ),
}


def ours(of: str) -> Callable[[float, Training], Stage]:
    """Our stage for a round, with the cost of what is to be saved."""
    return lambda keep, tuning: PruneChannels(
        step=0.05,
        drop=1.0,
        keep=keep,
        of=of,
        schedule=Schedule.ONE_SHOT,
        importance=Importance.L2,
        cost=f"loss / {of}",
        tuning=tuning,
    )


def theirs(of: str, *, taylor: bool) -> Callable[[float, Training], Stage]:
    """Their stage for a round."""
    return lambda keep, tuning: TorchPruning(taylor=taylor, keep=keep, of=of, tuning=tuning)


METHODS = {
    "torch-pruning, magnitude": lambda of: theirs(of, taylor=False),
    "torch-pruning, Taylor": lambda of: theirs(of, taylor=True),
    "crosslayer": ours,
}


def shown(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """Progress on the terminal."""
    yield from track(items, description=title, total=total, transient=True)


def rows(name: str, seed: int, out: Path) -> Iterator[dict[str, Any]]:
    """A row for each method, amount and goal."""
    case, work = CASES[name], out / name / f"seed{seed}"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(data=load(case.data), seed=seed, executor=execute, progress=shown, cache=work / "cache")
    graph = network(case.network, bench.data.shape, len(bench.data.classes), seed)
    start = run((case.learn,), Design(graph=graph, target=load_target(TARGET)), bench, judge=_none, checkpoints=work)
    for of in ("macs", "energy"):
        whole = amounts(start.graph, start.target, (of,))[of]
        for method, stages in METHODS.items():
            design = start
            for turn, goal in enumerate((1.0, *GOALS)):
                turned = replace(bench, seed=1000 * (seed + 1) + turn)
                if turn:
                    stage = stages(of)(goal * whole / amounts(design.graph, design.target, (of,))[of], case.tuning)
                    design = run((stage,), replace(design, trail=()), turned, judge=_none, checkpoints=work)
                left = amounts(design.graph, design.target, ("macs", "energy", "parameters"))
                yield {
                    "network": name,
                    "seed": seed,
                    "equal": of,
                    "method": method,
                    "goal": goal,
                    "left": round(left[of] / whole, 3),
                    "parameters": int(left["parameters"]),
                    "macs": int(left["macs"]),
                    "modelled_energy_uJ": round(1e6 * left["energy"], 2),
                    "validation": round(bench.accuracy(design.graph, bench.data.validation), 4),
                    "test": round(bench.accuracy(design.graph, bench.data.test), 4),
                }


def _none(_: Design) -> tuple[()]:
    return ()


def summary(found: list[dict[str, Any]]) -> str:
    """Test accuracy at equal amounts, as mean and standard deviation over seeds: a table for each network and amount.

    Removals are not equally large, so that a round ends some way above its goal: accuracy at the goal is taken from the
    straight line between the rounds before and after it.
    """
    lines: list[str] = []
    for name, of in sorted({(row["network"], row["equal"]) for row in found}):
        own = [row for row in found if (row["network"], row["equal"]) == (name, of)]
        head = ["", f"{name}, test accuracy in % at equal {of}", "", "| method | " + " | ".join(map(str, GOALS)) + " |"]
        lines += [*head, "|---" * (len(GOALS) + 1) + "|"]
        for method in METHODS:
            curves = []
            for seed in sorted({row["seed"] for row in own}):
                points = sorted(
                    (row["left"], row["test"]) for row in own if (row["method"], row["seed"]) == (method, seed)
                )
                curves.append(np.interp(GOALS, *zip(*points, strict=True), left=np.nan))
            means, spread = 100 * np.mean(curves, 0), 100 * np.std(curves, 0, ddof=min(1, len(curves) - 1))
            cells = ["–" if np.isnan(m) else f"{m:.2f} ± {s:.2f}" for m, s in zip(means, spread, strict=True)]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network", choices=CASES, action="append")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    for name in given.network or CASES:
        for seed in range(given.seeds):
            for row in rows(name, seed, given.out):
                found.append(row)
                print(json.dumps(row), flush=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_atomic(given.out / "pruning.csv", text.getvalue())
    print(summary(found))


if __name__ == "__main__":
    main()

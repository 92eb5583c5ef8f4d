"""Pruning of single weights: by size, or some of every few."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.training import Training
from crosslayer.prune.rounds import check_float, last_round, save_round, tuned


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PruneWeights(Stage):
    """Makes the share `zeros` of the weights of layers zero, those of least size in all layers together (PruNet,
    Marchisio et al. 2018), in `rounds` on the cubic curve of Zhu & Gupta 2017 (arXiv 1710.01878), with `tuning` after
    each; or, with `pattern` "n:m", all but the n largest of every m that follow each other in an output channel.

    Ends before a round that validation accuracy does not survive within `drop`. Shapes stay: choose `PruneChannels` for
    what is faster and smaller on every device. Training and quantization leave the zeros where they are.
    """

    zeros: float = 0.8
    pattern: str = ""
    rounds: int = 5
    drop: float = 0.005
    tuning: Training = field(default_factory=lambda: Training(epochs=1, rate=1e-3, decay=0.0))

    def __post_init__(self) -> None:
        check_parameters(
            (0 < self.zeros < 1, "zeros must lie between 0 and 1"),
            (
                not self.pattern or _parsed(self.pattern) is not None,
                "pattern must be such as '2:4', the first one less",
            ),
            (self.rounds >= 1, "rounds must be at least 1"),
            (0 <= self.drop <= 1, "drop must lie in 0…1"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with zeros; notes: the trajectory, one entry per round, whose parameters are those not zero."""
        self.check(design)
        graph, notes = last_round(design, bench)
        if not notes:
            start = bench.accuracy(graph, bench.data.validation)
            first = {"zeros": 0.0, "parameters": _present(graph), "accuracy": start, "kept": True}
            notes |= {"trajectory": [first], "limit": start - self.drop}
        trajectory: list[dict[str, Any]] = notes["trajectory"]
        rounds = 1 if self.pattern else self.rounds
        while trajectory[-1]["kept"] and len(trajectory) <= rounds:
            share = self.zeros * (1 - (1 - len(trajectory) / rounds) ** 3)
            sparser = tuned(self._sparser(graph, share), self.tuning, design.graph, bench, len(trajectory))
            reached = bench.accuracy(sparser, bench.data.validation)
            kept = reached >= notes["limit"]
            entry = {"zeros": _share(sparser), "parameters": _present(sparser), "accuracy": reached, "kept": kept}
            trajectory.append(entry)
            graph = sparser if kept else graph
            save_round(self, replace(design, graph=graph), notes, bench)
        return replace(design, graph=graph, plan=None), notes

    def check(self, design: Design) -> None:
        """Raises `GraphError` if a design cannot be pruned so, whatever is learned before."""
        check_float(design.graph)

    def _sparser(self, graph: Graph, share: float) -> Graph:
        """The graph with a share of its weights zero, or with the pattern."""
        weights = _weights(graph)
        pattern = _parsed(self.pattern)
        if pattern is None:
            sizes = np.sort(np.concatenate([np.abs(rows).ravel() for rows in weights.values()]))
            limit = sizes[min(round(share * len(sizes)), len(sizes) - 1)]
            kept = {name: np.abs(rows) >= min(limit, np.abs(rows).max()) for name, rows in weights.items()}
        else:
            kept = {name: _largest(np.abs(rows), *pattern) for name, rows in weights.items()}
        changed = {name: _folded(graph, name, rows * kept[name]) for name, rows in weights.items()}
        return replace(graph, constants={**graph.constants, **changed})


def _weights(graph: Graph) -> dict[str, Array]:
    """The weights of layers by name, each as (output channels, what makes one of them)."""
    axes = {node.inputs[1]: node.op.channel_axis for node in graph.nodes if node.op.channel_axis is not None}
    return {n: np.moveaxis(v := graph.constants[n], a, 0).reshape(v.shape[a], -1) for n, a in axes.items()}


def _folded(graph: Graph, name: str, rows: Array) -> Array:
    """A weight in its own shape again."""
    (axis,) = {n.op.channel_axis for n in graph.users[name] if n.op.channel_axis is not None and n.inputs[1] == name}
    shape = list(graph.constants[name].shape)
    return np.moveaxis(rows.reshape([shape.pop(axis), *shape]), 0, axis).astype(np.float32)


def _largest(sizes: Array, keep: int, every: int) -> Array:
    """Where the `keep` largest of each `every` in a row are; of equal ones the first."""
    padded = np.pad(sizes, ((0, 0), (0, -sizes.shape[1] % every)), constant_values=-1.0)
    groups = padded.reshape(len(sizes), -1, every)
    rank = np.argsort(np.argsort(-groups, axis=2, kind="stable"), axis=2, kind="stable")
    return (rank < keep).reshape(padded.shape)[:, : sizes.shape[1]]


def _parsed(pattern: str) -> tuple[int, int] | None:
    """How many of how many stay; None for no pattern, or a text that is none."""
    match = re.fullmatch(r"([1-9]\d{0,2}):([1-9]\d{0,2})", pattern)
    return (int(match[1]), int(match[2])) if match and int(match[1]) < int(match[2]) else None


def _present(graph: Graph) -> int:
    """The constants of a graph but for weights that are zero."""
    return graph.parameters - sum(int((rows == 0).sum()) for rows in _weights(graph).values())


def _share(graph: Graph) -> float:
    weights = _weights(graph).values()
    return sum(int((rows == 0).sum()) for rows in weights) / max(1, sum(rows.size for rows in weights))

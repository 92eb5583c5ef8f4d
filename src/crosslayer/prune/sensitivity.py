"""The sensitivity of each layer: what accuracy is left without the channels of it that matter least."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.channels import Channel, Layer, layers, remove, together
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import BatchNorm
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.prune.importance import Importance
from crosslayer.prune.rounds import check_float
from crosslayer.prune.variants import Quality, qualities


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """Channels of a layer that could be removed, and the network without them."""

    layer: Layer
    doomed: Sequence[Channel]
    graph: Graph


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSensitivity(Stage):
    """Measures, on `samples` validation samples, the accuracy without each of the `shares` of each layer's channels.

    Those of the least `importance` go, as `PruneChannels` would choose them. The network stays as it is.
    """

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    importance: Importance = Importance.L1
    evidence: int = 512
    samples: int = 2000

    def __post_init__(self) -> None:
        check_parameters(
            (len(self.shares) > 0, "shares must not be empty"),
            (all(0 < share < 1 for share in self.shares), "shares must lie between 0 and 1"),
            (self.evidence >= 1, "evidence must be at least 1"),
            (self.samples >= 1, "samples must be at least 1"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design; notes: the sensitivity of its layers."""
        self.check(design)
        ranks = ranked(design.graph, self.importance, self.evidence, bench)
        tried = [next(removals(design.graph, *rank, share), None) for rank in ranks for share in self.shares]
        found = [candidate for candidate in tried if candidate is not None]
        seen = bench.data.validation.take(slice(0, self.samples))
        start, *reached = qualities(design.graph, [candidate.graph for candidate in found], seen, bench)
        return design, {"sensitivity": sensitivity_notes(start, found, reached)}

    def check(self, design: Design) -> None:
        """Raises `GraphError` if a design's sensitivity cannot be measured so, whatever is learned before."""
        check_prunable(design.graph, self.importance)


def check_prunable(graph: Graph, importance: Importance) -> None:
    """Raises `GraphError` if channels cannot be removed or not be judged so."""
    check_float(graph)
    normed = any(isinstance(node.op, BatchNorm) for node in graph.nodes)
    if importance is Importance.BATCH_NORM and not normed:
        raise GraphError("has no batch normalization whose scales would say what matters; choose other importance")


def ranked(
    graph: Graph, importance: Importance, evidence: int, bench: Bench, spared: Collection[str] = ()
) -> list[tuple[Layer, list[Channel]]]:
    """Each layer but those `spared`, and its channels that can be removed together, the least important first.

    Importance that depends on data is taken from `evidence` random training samples.
    """
    found = [layer for layer in layers(graph) if layer.nodes[0] not in spared]
    train = bench.data.train
    samples = train.take(bench.rng().permutation(len(train))[:evidence])
    ranks: list[tuple[Layer, list[Channel]]] = []
    for layer, scores in zip(found, importance(graph, found, samples), strict=True):
        order = [layer.channels[i] for i in np.argsort(scores, kind="stable") if np.isfinite(scores[i])]
        ranks.append((layer, list(together(graph, order))))
    return ranks


def removals(
    graph: Graph, layer: Layer, order: Sequence[Channel], share: float, multiple: int = 1
) -> Iterator[Candidate]:
    """What is left without a share of a layer's channels, and then without ever fewer of them, to one.

    A multiple of `multiple` stays, if there is one below.
    """
    count = max(1, round(share * len(layer.channels)))
    while count:
        left = (len(layer.channels) - count) // multiple * multiple or len(layer.channels) - count
        doomed = order[: len(layer.channels) - left]
        if not doomed:
            return
        yield Candidate(layer=layer, doomed=doomed, graph=remove(graph, doomed))
        count //= 2


def sensitivity_notes(
    start: Quality, found: Sequence[Candidate], reached: Sequence[Quality]
) -> list[Mapping[str, Any]]:
    """For the report: each layer, the share of its channels that a removal took, and the accuracy before and after."""
    return [
        {
            "layer": candidate.layer.nodes[0],
            "removed": len(candidate.doomed) / len(candidate.layer.channels),
            "accuracy": after.accuracy,
            "start": start.accuracy,
        }
        for candidate, after in zip(found, reached, strict=True)
    ]

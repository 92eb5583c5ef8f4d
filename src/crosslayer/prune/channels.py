"""Structured pruning in five steps, after the talk "A Cross-Layer Approach" (Shafique, tinyML Talks, 2022)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, Step, load_design, save_design
from crosslayer.core.errors import DesignError, GraphError
from crosslayer.core.graph.channels import Channel, Layer, layers, remove, together
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import BatchNorm
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.prune.cost import Cost
from crosslayer.prune.importance import Importance
from crosslayer.prune.savings import amounts, check_known


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannels(Stage):
    """Removes filters and neurons, with everything coupled to them, while validation accuracy stays within `drop`.

    1. The sensitivity of each layer: the `cost` (an expression, see `Cost`), on `samples` validation samples, of
       removing the share `step` of its channels that have the least `importance`. 2. The least sensitive layer loses
       that share. 3. `epochs` of fine-tuning. 4. Validation accuracy is compared with that of the start less `drop`.
    5. If it holds, go on; else take the step back and leave that layer alone. Ends after `patience` steps taken back,
       or when less than `keep` of the parameters would be left.

    Importance that depends on data is taken from `evidence` random training samples.
    """

    step: float = 0.1
    epochs: int = 1
    drop: float = 0.005
    keep: float = 0.1
    importance: Importance = Importance.L1
    evidence: int = 512
    cost: str = "drop / parameters"
    samples: int = 2000
    patience: int = 1
    batch: int = 128
    rate: float = 1e-3

    def __post_init__(self) -> None:
        check_parameters(
            (0 < self.step < 1, "step must lie between 0 and 1"),
            (self.epochs >= 0, "epochs must be at least 0"),
            (0 <= self.drop <= 1, "drop must lie in 0…1"),
            (0 < self.keep <= 1, "keep must lie above 0 and at most at 1"),
            (self.evidence >= 1, "evidence must be at least 1"),
            (self.samples >= 1, "samples must be at least 1"),
            (self.patience >= 1, "patience must be at least 1"),
            (self.batch >= 1, "batch must be at least 1"),
            (0 < self.rate < math.inf, "rate must be a finite number above 0"),
        )
        Cost(self.cost)

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The smaller design; notes: the trajectory, one entry per step with `kept` false for those taken back."""
        self.check(design)
        floor = self.keep * design.graph.parameters
        graph, trajectory = self._resume(design, bench)
        if not trajectory:
            start = bench.accuracy(design.graph, bench.data.validation)
            trajectory = [_entry(design.graph, "", 0, start, kept=True)]
        limit = float(trajectory[0]["accuracy"]) - self.drop
        while sum(not entry["kept"] for entry in trajectory) < self.patience:
            banned = {entry["layer"] for entry in trajectory if not entry["kept"]}
            choice = self._least_sensitive(replace(design, graph=graph), banned, floor, bench)
            if choice is None:
                break
            layer, doomed = choice
            smaller = self._tune(remove(graph, doomed), bench, len(trajectory))
            reached = bench.accuracy(smaller, bench.data.validation)
            kept = reached >= limit
            trajectory = [*trajectory, _entry(smaller, layer.nodes[0], len(doomed), reached, kept=kept)]
            graph = smaller if kept else graph
            if bench.scratch is not None:
                state = Step(stage=str(self), notes={"trajectory": trajectory})
                save_design(replace(design, graph=graph, plan=None, trail=(state,)), bench.scratch / "pruned")
        return replace(design, graph=graph, plan=None), {"trajectory": trajectory, "limit": limit}

    def check(self, design: Design) -> None:
        """Raises `GraphError` or `InputError` if a design cannot be pruned so, whatever is learned before."""
        if design.graph.is_integer:
            raise GraphError("cannot prune integer weights; put this stage before quantization")
        normed = any(isinstance(node.op, BatchNorm) for node in design.graph.nodes)
        if self.importance is Importance.BATCH_NORM and not normed:
            raise GraphError("has no batch normalization whose scales would say what matters; choose other importance")
        check_known(design.target, Cost(self.cost).names)

    def _resume(self, design: Design, bench: Bench) -> tuple[Graph, list[dict[str, Any]]]:
        """The graph and trajectory that a killed run left, or those of the start."""
        saved = None if bench.scratch is None else bench.scratch / "pruned"
        try:
            found = None if saved is None or not saved.is_dir() else load_design(saved)
        except DesignError:
            found = None
        if found is None:
            return design.graph, []
        return found.graph, list(found.trail[0].notes["trajectory"])

    def _least_sensitive(
        self, design: Design, banned: set[str], floor: float, bench: Bench
    ) -> tuple[Layer, Sequence[Channel]] | None:
        """The layer whose least important channels cost least, and these channels; None if no layer may lose any.

        Of equal costs the one that saves more parameters counts.
        """
        graph, cost = design.graph, Cost(self.cost)
        seen = bench.data.validation.take(slice(0, self.samples))
        accuracy, size = bench.accuracy(graph, seen), amounts(graph, design.target, cost.names)
        candidates = self._candidates(graph, banned, bench)
        ranked: list[tuple[float, int, int, Layer, Sequence[Channel]]] = []
        for i, (layer, doomed) in enumerate(bench.progress(candidates, "sensitivity", len(candidates))):
            smaller = remove(graph, doomed)
            if smaller.parameters >= floor:
                drop = accuracy - bench.accuracy(smaller, seen)
                left = amounts(smaller, design.target, cost.names)
                saved = {name: 1 - left[name] / size[name] for name in left}
                ranked.append((cost(drop, saved), smaller.parameters, i, layer, doomed))
        if not ranked:
            return None
        *_, layer, doomed = min(ranked, key=lambda item: item[:3])
        return layer, doomed

    def _candidates(self, graph: Graph, banned: set[str], bench: Bench) -> list[tuple[Layer, Sequence[Channel]]]:
        """The layers that may lose channels, and the least important share of each."""
        found = [layer for layer in layers(graph) if layer.nodes[0] not in banned]
        train = bench.data.train
        evidence = train.take(bench.rng().permutation(len(train))[: self.evidence])
        candidates: list[tuple[Layer, Sequence[Channel]]] = []
        for layer, scores in zip(found, self.importance(graph, found, evidence), strict=True):
            order = [int(i) for i in np.argsort(scores, kind="stable") if np.isfinite(scores[i])]
            count = max(1, round(self.step * len(layer.channels)))
            doomed = together(graph, [layer.channels[i] for i in order])[:count]
            if doomed:
                candidates.append((layer, doomed))
        return candidates

    def _tune(self, graph: Graph, bench: Bench, turn: int) -> Graph:
        if self.epochs == 0:
            return graph
        from crosslayer.execute.torch import Training, fit  # PyTorch is loaded only by who trains

        training = Training(epochs=self.epochs, batch=self.batch, rate=self.rate, decay=0.0)
        seed = bench.stage_seed() + turn
        checkpoint: Path | None = None if bench.scratch is None else bench.scratch / f"turn{turn}.safetensors"
        tuned = fit(graph, bench.data.train, training, seed=seed, progress=bench.progress, checkpoint=checkpoint)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return tuned


def _entry(graph: Graph, layer: str, removed: int, reached: float, *, kept: bool) -> dict[str, Any]:
    return {
        "layer": layer,
        "removed": removed,
        "parameters": graph.parameters,
        "macs": sum(graph.macs.values()),
        "accuracy": reached,
        "kept": kept,
    }

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
from crosslayer.core.graph.channels import Channel, Layer, layers, remove
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.prune.cost import Cost
from crosslayer.prune.importance import magnitude


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannels(Stage):
    """Removes filters and neurons, with everything coupled to them, while validation accuracy stays within `drop`.

    1. The sensitivity of each layer: the `cost` of removing its least important share `step`, on `samples` validation
       samples. 2. The least sensitive layer loses that share. 3. `epochs` of fine-tuning. 4. Validation accuracy is
       compared with that of the start less `drop`. 5. If it holds, go on; else take the step back and leave that layer
       alone. Ends after `patience` steps taken back, or when less than `keep` of the parameters would be left.
    """

    step: float = 0.1
    epochs: int = 1
    drop: float = 0.005
    keep: float = 0.1
    cost: Cost = Cost.PARAMETERS
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
            (self.samples >= 1, "samples must be at least 1"),
            (self.patience >= 1, "patience must be at least 1"),
            (self.batch >= 1, "batch must be at least 1"),
            (0 < self.rate < math.inf, "rate must be a finite number above 0"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The smaller design; notes: the trajectory, one entry per step with `kept` false for those taken back."""
        if design.graph.is_integer:
            raise GraphError("cannot prune integer weights; put this stage before quantization")
        floor = self.keep * design.graph.parameters
        graph, trajectory = self._resume(design, bench)
        if not trajectory:
            start = bench.accuracy(design.graph, bench.data.validation)
            trajectory = [_entry(design.graph, "", 0, start, kept=True)]
        limit = float(trajectory[0]["accuracy"]) - self.drop
        while sum(not entry["kept"] for entry in trajectory) < self.patience:
            banned = {entry["layer"] for entry in trajectory if not entry["kept"]}
            choice = self._least_sensitive(graph, banned, floor, bench)
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
        self, graph: Graph, banned: set[str], floor: float, bench: Bench
    ) -> tuple[Layer, Sequence[Channel]] | None:
        """The layer whose least important channels cost least, and these channels; None if no layer may lose any."""
        validation = bench.data.validation
        seen = validation.take(slice(0, self.samples))
        before = bench.accuracy(graph, seen)
        ranked: list[tuple[float, int, Layer, Sequence[Channel]]] = []
        candidates = [layer for layer in layers(graph) if layer.nodes[0] not in banned and len(layer.channels) > 1]
        for i, layer in enumerate(bench.progress(candidates, "sensitivity", len(candidates))):
            count = min(max(1, round(self.step * len(layer.channels))), len(layer.channels) - 1)
            order = np.argsort(magnitude(graph, layer), kind="stable")[:count]
            doomed = [layer.channels[i] for i in order]
            smaller = remove(graph, doomed)
            if smaller.parameters >= floor:
                drop = before - bench.accuracy(smaller, seen)
                ranked.append((self.cost(graph, smaller, drop), i, layer, doomed))
        if not ranked:
            return None
        _, _, layer, doomed = min(ranked, key=lambda item: item[:2])
        return layer, doomed

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

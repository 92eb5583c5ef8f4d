"""The search for the two parameters of pruning in the talk: how much goes at once, and how long is tuned after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.codec import suggest
from crosslayer.core.design import Design
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.prune.channels import PruneChannels
from crosslayer.prune.cost import SAVED
from crosslayer.prune.savings import amounts, check_known


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPruning(Stage):
    """Prunes as `pruning` says with each of the `steps` and each of the `epochs` of tuning, and keeps the network that
    takes least of the amount `least` (a name of `SAVED`); all of them hold the accuracy constraint.

    Of equal ones the more accurate on validation data is kept, then the first.
    """

    pruning: PruneChannels = field(default_factory=PruneChannels)
    steps: tuple[float, ...] = (0.05, 0.1, 0.2)
    epochs: tuple[int, ...] = (1, 2)
    least: str = "parameters"

    def __post_init__(self) -> None:
        check_parameters(
            (len(self.steps) > 0 and len(self.epochs) > 0, "steps and epochs must not be empty"),
            (all(0 < step < 1 for step in self.steps), "steps must lie between 0 and 1"),
            (all(epochs >= 0 for epochs in self.epochs), "epochs must be at least 0"),
            (self.least in SAVED, f"least '{self.least}' is not known; {suggest(self.least, SAVED)}"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The chosen design; notes: those of its pruning, and for each trial what it reached."""
        self.check(design)
        found: list[tuple[float, float, int, Design, Mapping[str, Any]]] = []
        trials: list[dict[str, Any]] = []
        for i, stage in enumerate(self._tried()):
            scratch = None if bench.scratch is None else bench.scratch / f"trial{i}"
            if scratch is not None:
                scratch.mkdir(exist_ok=True)
            pruned, notes = stage.apply(design, replace(bench, scratch=scratch))
            amount = amounts(pruned.graph, design.target, (self.least,))[self.least]
            accuracy = next(entry["accuracy"] for entry in reversed(notes["trajectory"]) if entry["kept"])
            found.append((amount, -accuracy, i, pruned, notes))
            trial = {"step": stage.step, "epochs": stage.tuning.epochs, self.least: amount, "accuracy": accuracy}
            trials.append(trial)
        *_, chosen, best, notes = min(found, key=lambda item: item[:3])
        return best, {**notes, "chosen": chosen, "trials": trials}

    def check(self, design: Design) -> None:
        """Raises `GraphError` or `InputError` if a design cannot be pruned so, whatever is learned before."""
        self.pruning.check(design)
        check_known(design.target, (self.least,))

    def _tried(self) -> list[PruneChannels]:
        return [
            replace(self.pruning, step=step, tuning=replace(self.pruning.tuning, epochs=epochs))
            for step, epochs in product(self.steps, self.epochs)
        ]

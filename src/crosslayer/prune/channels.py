"""Structured pruning in five steps, after the talk "A Cross-Layer Approach" (Shafique, tinyML Talks, 2022)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.codec import suggest
from crosslayer.core.design import Design
from crosslayer.core.graph.channels import remove, together
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.training import Training
from crosslayer.kernels.choose import liked_channels
from crosslayer.prune.cost import SAVED, Cost
from crosslayer.prune.importance import Importance
from crosslayer.prune.rounds import last_round, save_round, tuned
from crosslayer.prune.savings import amounts, check_known
from crosslayer.prune.sensitivity import Candidate, check_prunable, ranked, removals, sensitivity_notes
from crosslayer.prune.variants import Quality, qualities

_DEARER = 2.0
_CLOSE = 0.02  # of what is left: nearer to a share that cost too much no other is tried


class Schedule(StrEnum):
    """When the network is tuned and held against the accuracy constraint, which makes a round."""

    ITERATIVE = "iterative"
    """After each removal, as in the talk."""
    GRADUAL = "gradual"
    """In `rounds` of removals, fewer in each, on the cubic curve of Zhu & Gupta 2017 (arXiv 1710.01878)."""
    ONE_SHOT = "one-shot"
    """After all removals at once."""


def _without(graph: Graph, ladders: Sequence[Sequence[Candidate]], taken: Sequence[int]) -> Graph | None:
    """The graph without what that many rungs of each ladder remove; None if nothing would stay somewhere."""
    doomed = [channel for ladder, n in zip(ladders, taken, strict=True) if n for channel in ladder[n - 1].doomed]
    return remove(graph, doomed) if len(together(graph, doomed)) == len(doomed) else None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannels(Stage):
    """Removes filters and neurons, with everything coupled to them, while validation accuracy stays within `drop`.

    1. The sensitivity of each layer: the `cost` (an expression, see `Cost`), on `samples` validation samples, of
       removing the share `step` of its channels that have the least `importance`. 2. The least sensitive layer loses
       that share. 3. `tuning`. 4. Validation accuracy is compared with that of the start less `drop`. 5. If it holds,
       go on; else take the step back and leave that layer alone. Ends after `patience` steps taken back, or when the
       share `keep` of the amount `of` (a name of `SAVED`) would be undercut.

    Other schedules remove from several layers before 3 and 4, down to the share that their curve asks for, by what each
    layer alone costs at the start of the round; a round that is taken back is tried again half as far.

    Importance that depends on data is taken from `evidence` random training samples. A layer that loses channels keeps
    a multiple of `multiple`, 0 for what the target's kernels take at once, while it has that many. With
    `tuning.distill` the network as it was before teaches the smaller one.
    """

    step: float = 0.1
    drop: float = 0.005
    keep: float = 0.1
    of: str = "parameters"
    schedule: Schedule = Schedule.ITERATIVE
    rounds: int = 10
    importance: Importance = Importance.L1
    evidence: int = 512
    cost: str = "drop / parameters"
    samples: int = 2000
    patience: int = 1
    multiple: int = 1
    tuning: Training = field(default_factory=lambda: Training(epochs=1, rate=1e-3, decay=0.0))

    def __post_init__(self) -> None:
        check_parameters(
            (0 < self.step < 1, "step must lie between 0 and 1"),
            (0 <= self.drop <= 1, "drop must lie in 0…1"),
            (0 < self.keep <= 1, "keep must lie above 0 and at most at 1"),
            (self.of in SAVED, f"of '{self.of}' is not known; {suggest(self.of, SAVED)}"),
            (self.rounds >= 1, "rounds must be at least 1"),
            (self.evidence >= 1, "evidence must be at least 1"),
            (self.samples >= 1, "samples must be at least 1"),
            (self.patience >= 1, "patience must be at least 1"),
            (self.multiple >= 0, "multiple must be at least 0"),
        )
        Cost(self.cost)

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The smaller design; notes: the trajectory, one entry per round with `kept` false for those taken back, and
        the sensitivity of the layers at the start."""
        self.check(design)
        graph, notes = last_round(design, bench)
        if not notes:
            start = bench.accuracy(graph, bench.data.validation)
            first = {"layer": "", "removed": 0, "accuracy": start, "kept": True, **self._left(design, graph)}
            sensitivity = sensitivity_notes(*self._sensitivity(design, design, 0.0, (), bench))
            notes |= {"trajectory": [first], "limit": start - self.drop, "sensitivity": sensitivity}
        trajectory: list[dict[str, Any]] = notes["trajectory"]
        while (found := self._round(replace(design, graph=graph), design, trajectory, bench)) is not None:
            smaller = tuned(found[0], self.tuning, design.graph, bench, len(trajectory))
            reached = bench.accuracy(smaller, bench.data.validation)
            kept = reached >= notes["limit"]
            trajectory.append({**found[1], "accuracy": reached, "kept": kept, **self._left(design, smaller)})
            graph = smaller if kept else graph
            save_round(self, replace(design, graph=graph), notes, bench)
        return replace(design, graph=graph, plan=None), notes

    def check(self, design: Design) -> None:
        """Raises `GraphError` or `InputError` if a design cannot be pruned so, whatever is learned before."""
        check_prunable(design.graph, self.importance)
        check_known(design.target, {*Cost(self.cost).names, self.of})

    def _left(self, whole: Design, graph: Graph) -> dict[str, Any]:
        """What is left of the network: counts, and the share of what is to be saved."""
        return {
            "parameters": graph.parameters,
            "macs": sum(graph.macs.values()),
            "left": self._amount(whole, graph) / self._amount(whole, whole.graph),
        }

    def _amount(self, whole: Design, graph: Graph) -> float:
        return amounts(graph, whole.target, (self.of,))[self.of]

    def _round(
        self, start: Design, whole: Design, trajectory: Sequence[Mapping[str, Any]], bench: Bench
    ) -> tuple[Graph, dict[str, Any]] | None:
        """The network after the removals of a round, and what to note of them; None if there is to be no round."""
        undone = [entry for entry in trajectory if not entry["kept"]]
        if len(undone) >= self.patience:
            return None
        if self.schedule is Schedule.ITERATIVE:
            chosen = self._least_sensitive(start, whole, self.keep, {entry["layer"] for entry in undone}, bench)
            if chosen is None:
                return None
            return chosen.graph, {"layer": chosen.layer.nodes[0], "removed": len(chosen.doomed)}
        goal = self._goal(trajectory)
        if goal is None:
            return None
        smaller, removed = self._down_to(goal, start, whole, bench)
        if not removed:
            return None
        return smaller, {"layer": " ".join(removed), "removed": sum(removed.values()), "goal": goal}

    def _goal(self, trajectory: Sequence[Mapping[str, Any]]) -> float | None:
        """The share of `of` that the next round should leave; None after the last."""
        rounds = 1 if self.schedule is Schedule.ONE_SHOT else self.rounds
        held = next(entry.get("goal", 1.0) for entry in reversed(trajectory) if entry["kept"])
        undone = [entry["goal"] for entry in trajectory if not entry["kept"]]
        if undone:
            return (held + max(undone)) / 2 if held - max(undone) > _CLOSE * held else None
        done = len(trajectory) - 1
        return None if done == rounds else self.keep + (1 - self.keep) * (1 - (done + 1) / rounds) ** 3

    def _down_to(self, goal: float, start: Design, whole: Design, bench: Bench) -> tuple[Graph, dict[str, int]]:
        """The network that leaves at least the share `goal` of the whole, and how many channels each layer lost.

        Harm and savings are those of each layer's removals alone, from the network at the start of the round: one that
        lost much already, and was not tuned since, shows no harm of anything more. The round ends where all that still
        fits costs more than `_DEARER` times the cheapest that does not, rather than fill the gap at any price.
        """
        cost, floor = Cost(self.cost), goal * self._amount(whole, whole.graph)
        ladders = self._ladders(start.graph, whole, floor, bench)
        seen = bench.data.validation.take(slice(0, self.samples))
        now, *reached = qualities(start.graph, [rung.graph for ladder in ladders for rung in ladder], seen, bench)
        rest, size = iter(reached), amounts(start.graph, whole.target, cost.names)
        courses = [
            [(now, size), *((next(rest), amounts(rung.graph, whole.target, cost.names)) for rung in ladder)]
            for ladder in ladders
        ]
        graph, taken = start.graph, [0] * len(ladders)
        while True:
            moves: list[tuple[float, int, int]] = []
            for i, course in enumerate(courses):
                before, held = course[taken[i]]
                for n, (after, left) in enumerate(course[taken[i] + 1 :], taken[i] + 1):
                    saved = {name: (held[name] - left[name]) / size[name] for name in left}
                    moves.append((cost(before.accuracy - after.accuracy, saved, after.loss - before.loss), i, n))
            cheapest = min(moves, default=(0.0, 0, 0))[0]
            for price, i, n in sorted(moves):
                smaller = _without(start.graph, ladders, [*taken[:i], n, *taken[i + 1 :]])
                if price <= _DEARER * cheapest and smaller is not None and self._amount(whole, smaller) >= floor:
                    graph, taken[i] = smaller, n
                    break
            else:
                last = [ladder[n - 1] for ladder, n in zip(ladders, taken, strict=True) if n]
                return graph, {rung.layer.nodes[0]: len(rung.doomed) for rung in last}

    def _ladders(self, graph: Graph, whole: Design, floor: float, bench: Bench) -> list[list[Candidate]]:
        """For each layer ever more of its channels, `step` of them each time, to the first that leaves too little."""
        multiple = self.multiple or liked_channels(whole.target.core)
        found: list[list[Candidate]] = []
        for layer, order in ranked(graph, self.importance, self.evidence, bench):
            ladder: list[Candidate] = []
            for count in range(1, round(1 / self.step) + 1):
                rung = next(removals(graph, layer, order, min(1.0, count * self.step), multiple), None)
                if rung is not None and len(rung.doomed) > (len(ladder[-1].doomed) if ladder else 0):
                    ladder.append(rung)
                    if self._amount(whole, rung.graph) < floor:
                        break
            found.append(ladder)
        return found

    def _least_sensitive(
        self, start: Design, whole: Design, keep: float, spared: Collection[str], bench: Bench
    ) -> Candidate | None:
        """The candidate of least cost that leaves the share `keep` of the whole; None if there is none.

        Of equal costs the one that saves more parameters counts.
        """
        cost = Cost(self.cost)
        now, found, reached = self._sensitivity(start, whole, keep, spared, bench)
        size = amounts(start.graph, whole.target, cost.names)
        ranks: list[tuple[float, int, int]] = []
        for i, (candidate, after) in enumerate(zip(found, reached, strict=True)):
            left = amounts(candidate.graph, whole.target, cost.names)
            saved = {name: 1 - left[name] / size[name] for name in left}
            harm = cost(now.accuracy - after.accuracy, saved, after.loss - now.loss)
            ranks.append((harm, candidate.graph.parameters, i))
        return found[min(ranks)[2]] if ranks else None

    def _sensitivity(
        self, start: Design, whole: Design, keep: float, spared: Collection[str], bench: Bench
    ) -> tuple[Quality, list[Candidate], Sequence[Quality]]:
        """How well the network does, what could be removed from each layer, and how well it does without that."""
        graph, multiple = start.graph, self.multiple or liked_channels(whole.target.core)
        floor = keep * self._amount(whole, whole.graph)
        found: list[Candidate] = []
        for layer, order in ranked(graph, self.importance, self.evidence, bench, spared):
            for candidate in removals(graph, layer, order, self.step, multiple):
                if self._amount(whole, candidate.graph) >= floor:
                    found.append(candidate)
                    break
        seen = bench.data.validation.take(slice(0, self.samples))
        now, *reached = qualities(graph, [candidate.graph for candidate in found], seen, bench)
        return now, found, reached

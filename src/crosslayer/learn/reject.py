"""Firmware that says when it does not know an input."""

import math
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.edit import up_to
from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Plan, feature_maps
from crosslayer.core.rejection import Features, Rejection, Statistic, channel_sums
from crosslayer.core.stage import Stage, check_parameters

_HEAVIEST = 65535
_FARTHEST = -(2**63) + 1
_MOST_POSITIONS = 1 << 14  # so that sums of int16 codes, and their differences, fit int32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectUnknown(Stage):
    """Firmware gets a function that tells whether it knows an input: whether an integer `statistic` is as large as it
    is for a share `accept` of the validation data. Inputs of other kinds tend to have a smaller one.

    `largest` and `margin` are of the outputs: `model_accepts` says it after a run. `nearest` is of the feature map that
    the node `after` makes: `model_run_known` ends there if the input is not known, and saves the rest. What features
    are like is learned from the training data.

    The threshold is a split-conformal one (Vovk et al. 2005): of new inputs like the validation data at least that
    share is accepted on average. Of inputs unlike it nothing is known for certain. Put it after `plan-arena`;
    `drop-softmax` before that one leaves the logits, which tell inputs apart better than shares do.
    """

    accept: float = 0.95
    statistic: Statistic = Statistic.LARGEST
    after: str = ""

    def __post_init__(self) -> None:
        check_parameters(
            (0 < self.accept < 1, "accept must lie between 0 and 1"),
            (
                (self.statistic is Statistic.NEAREST) == bool(self.after),
                'after, the name of a node, goes with statistic = "nearest", and each needs the other',
            ),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with a threshold in its plan; notes: the threshold, the share of validation samples that is
        accepted, how many of all and of these are right, and the share of the multiply-accumulates that the decision
        takes."""
        graph, plan = design.graph, design.plan
        if plan is None or not graph.is_integer:
            raise GraphError("only planned integer designs can reject; put this stage after plan-arena")
        if plan.rejection is not None:
            raise GraphError("the design rejects inputs already; leave the second reject-unknown out")
        kind = graph.types[graph.outputs[0]]
        if kind.quant is None or kind.size < 2:
            raise GraphError("rejection compares the codes of at least two outputs; let the network end with these")
        features = self._learned(graph, plan, bench) if self.after else None
        known = bench.data.validation
        rejection = Rejection(statistic=self.statistic, threshold=0, features=features)
        found = rejection.values(bench.executor(rejection.watched(graph), known.real()))
        below = math.floor((1 - self.accept) * (len(known) + 1) + 1e-9)
        least = {Statistic.LARGEST: kind.quant.lowest, Statistic.MARGIN: 0, Statistic.NEAREST: _FARTHEST}
        threshold = int(np.sort(found)[below - 1]) if below else least[self.statistic]
        rejection = replace(rejection, threshold=threshold)
        outputs = bench.executor(graph, known.real()).reshape(len(known), -1)
        kept, right = found >= rejection.threshold, outputs.argmax(1) == known.labels
        notes = {
            "threshold": rejection.threshold,
            "accepted": float(kept.mean()),
            "samples": len(known),
            "accuracy": float(right.mean()),
            "accuracy_accepted": float(right[kept].mean()),
            "macs_share": sum(rejection.watched(graph).macs.values()) / max(sum(graph.macs.values()), 1),
        }
        return replace(design, plan=replace(plan, rejection=rejection)), notes

    def _learned(self, graph: Graph, plan: Plan, bench: Bench) -> Features:
        """What the training data's features are like after the node."""
        if plan.streamed:
            raise GraphError("firmware that takes its input row by row does not stop early; reject by the outputs")
        possible = feature_maps(graph, plan)
        if self.after not in possible:
            known = ", ".join(possible)
            raise GraphError(f"after = '{self.after}' is no result that is whole in memory; known are: {known}")
        kind, train = graph.types[self.after], bench.data.train
        if kind.quant is None or kind.size // kind.shape[-1] > _MOST_POSITIONS:
            raise GraphError(f"{self.after} is no feature map of integers with at most {_MOST_POSITIONS} positions")
        sums = channel_sums(bench.executor(up_to(graph, self.after), train.real()))
        classes, members = np.unique(train.labels, return_inverse=True)
        centres = np.stack([np.rint(sums[members == k].mean(0)) for k in range(len(classes))]).astype(np.int64)
        spread = np.maximum((sums - centres[members]).std(0), 1)
        weights = np.maximum(np.rint(_HEAVIEST * spread.min() / spread), 1).astype(np.int64)
        return Features(
            after=self.after,
            centres=tuple(tuple(int(v) for v in row) for row in centres),
            weights=tuple(int(v) for v in weights),
        )

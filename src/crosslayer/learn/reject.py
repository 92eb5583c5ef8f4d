"""Firmware that says when it does not know an input."""

import math
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.rejection import Rejection, Statistic, statistics
from crosslayer.core.stage import Stage, check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectUnknown(Stage):
    """Firmware gets `model_accepts`: whether an integer `statistic` of its outputs is as large as it is for a share
    `accept` of the validation data. Inputs of other kinds tend to have a smaller one.

    The threshold is a split-conformal one (Vovk et al. 2005): of new inputs like the validation data at least that
    share is accepted on average. Of inputs unlike it nothing is known for certain. Put it after `plan-arena`;
    `drop-softmax` before that one leaves the logits, which tell inputs apart better than shares do.
    """

    accept: float = 0.95
    statistic: Statistic = Statistic.LARGEST

    def __post_init__(self) -> None:
        check_parameters((0 < self.accept < 1, "accept must lie between 0 and 1"))

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with a threshold in its plan; notes: the threshold, the share of validation samples that is
        accepted, and how many of all and of these are right."""
        graph, plan = design.graph, design.plan
        if plan is None or not graph.is_integer:
            raise GraphError("only planned integer designs can reject; put this stage after plan-arena")
        if plan.rejection is not None:
            raise GraphError("the design rejects inputs already; leave the second reject-unknown out")
        kind = graph.types[graph.outputs[0]]
        if kind.quant is None or kind.size < 2:
            raise GraphError("rejection compares the codes of at least two outputs; let the network end with these")
        known = bench.data.validation
        codes = bench.executor(graph, known.real()).reshape(len(known), -1)
        found = np.sort(statistics(self.statistic, codes))
        below = math.floor((1 - self.accept) * (len(known) + 1) + 1e-9)
        least = kind.quant.lowest if self.statistic is Statistic.LARGEST else 0
        rejection = Rejection(statistic=self.statistic, threshold=int(found[below - 1]) if below else least)
        kept, right = rejection.accepts(codes), codes.argmax(1) == known.labels
        notes = {
            "threshold": rejection.threshold,
            "accepted": float(kept.mean()),
            "samples": len(known),
            "accuracy": float(right.mean()),
            "accuracy_accepted": float(right[kept].mean()),
        }
        return replace(design, plan=replace(plan, rejection=rejection)), notes

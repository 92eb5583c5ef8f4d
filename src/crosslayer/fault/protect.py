"""Checks of the constants in flash, made by the firmware itself."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.plan import CHECKED, WORD, WeightCheck, whole_words
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.kernels.steps import steps_of
from crosslayer.kernels.weight_check import GROUP_WORDS, checked_tables, groups

_SIGNATURE_BYTES = 8
_REGION_BYTES = 8


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectWeights(Stage):
    """Makes the firmware look for changed bits in the constants of its layers, before each inference in a slice of
    them, so that `inferences` in a row see all; `model_run` then returns −2. With `parity` rows of parity, groups of 64
    words that changed can be restored, at best that many at once. `kernels/weight_check.py` says which flips are found
    for certain.

    Signatures of groups of weights are those of RADAR (Li et al. 2021, arXiv 2101.08254) in purpose; here they are
    weighted sums, of all bits. Put it after `plan-arena`, which plans without.
    """

    inferences: int = 8
    parity: int = 0

    def __post_init__(self) -> None:
        check_parameters(
            (1 <= self.inferences <= 10_000, "inferences must lie in 1…10000"),
            (0 <= self.parity <= 1000, "parity must lie in 0…1000"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with a check in its plan; notes: bytes that are checked, and bytes of flash and RAM that this
        takes, without code."""
        graph, plan = design.graph, design.plan
        if plan is None or not graph.is_integer:
            raise GraphError("only planned integer designs can be protected; put this stage after plan-arena")
        if plan.check is not None:
            raise GraphError("the design is protected already; leave the second protect-weights out")
        if plan.fetched:
            raise GraphError("fetch-weights hides the constants from a check; leave it or protect-weights out")
        tables = checked_tables(steps_of(graph, plan)[0])
        count = len(groups(tables))
        if not count:
            raise GraphError("the design has no constants in flash; leave protect-weights out")
        check = WeightCheck(inferences=min(self.inferences, count), parity=min(self.parity, count))
        if check.inferences > 1:
            place = whole_words(plan.arena_bytes)
            grown = {"arena_bytes": place + WORD, "bound_bytes": plan.bound_bytes + WORD}
            plan = replace(plan, offsets={**plan.offsets, CHECKED: place}, **grown)
        words = GROUP_WORDS * (1 + check.parity)
        notes = {
            "checked": 4 * sum(len(words) for words in tables),
            "groups": count,
            "flash": _SIGNATURE_BYTES * count + _REGION_BYTES * len(tables) + 4 * words,
            "ram": WORD * (check.inferences > 1),
        }
        return replace(design, plan=replace(plan, check=check)), notes

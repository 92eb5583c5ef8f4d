"""Constants that are brought into RAM before a layer runs, by a function of the integrator."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.plan import FETCHED
from crosslayer.core.stage import Stage
from crosslayer.kernels.fetch import fetched_places, in_blocks
from crosslayer.kernels.steps import steps_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FetchWeights(Stage):
    """Makes the firmware call `model_fetch` for the constants of a layer before it runs. The integrator writes it: a
    driver that decrypts, or reads another memory. The arena grows by the constants of the largest turn: of a layer, or
    of layers that run together. Put it after `plan-arena`.
    """

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design with room in its plan; notes: bytes that are fetched in an inference, and bytes of RAM."""
        graph, plan = design.graph, design.plan
        if plan is None or not graph.is_integer:
            raise GraphError("only planned integer designs can fetch constants; put this stage after plan-arena")
        if plan.fetched:
            raise GraphError("the design fetches its constants already; leave the second fetch-weights out")
        if plan.check is not None:
            raise GraphError("protect-weights reads constants where they lie; leave it or fetch-weights out")
        steps, _ = steps_of(graph, plan)
        places, size = fetched_places(steps, plan)
        if not size:
            raise GraphError("the design has no constants in flash; leave fetch-weights out")
        place = in_blocks(plan.arena_bytes)
        grown = place + size - plan.arena_bytes
        plan = replace(
            plan,
            offsets={**plan.offsets, FETCHED: place},
            arena_bytes=plan.arena_bytes + grown,
            bound_bytes=plan.bound_bytes + size,
            exact=plan.exact and grown == size,
            fetched=size,
        )
        return replace(design, plan=plan), {"tables": sum(map(len, places.values())), "ram": grown}

"""Ending a network with its logits."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.edit import up_to
from crosslayer.core.graph.outputs import logits_of
from crosslayer.core.stage import Stage


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DropSoftmax(Stage):
    """Takes away a softmax at the end: the largest logit is the largest share.

    Integer shares saturate, so that logits tell more of how sure a network is. Classes stay the same, but where several
    shares had one code the largest logit decides.
    """

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The design that ends with its logits; notes: nodes that are gone."""
        graph = up_to(design.graph, logits_of(design.graph))
        gone = len(design.graph.nodes) - len(graph.nodes)
        return replace(design, graph=graph, plan=None) if gone else design, {"nodes": gone}

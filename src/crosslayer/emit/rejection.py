"""What firmware that rejects inputs has beside the plain one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crosslayer.core.graph.graph import Graph
from crosslayer.core.plan import Plan
from crosslayer.core.rejection import Features
from crosslayer.emit.literals import array
from crosslayer.kernels.steps import Step


def rejection_content(graph: Graph, plan: Plan, steps: Sequence[Step]) -> dict[str, Any] | None:
    """What the templates need to write the rejection that a plan asks for; None if it asks for none."""
    rejection = plan.rejection
    if rejection is None:
        return None
    watched = graph.types[graph.outputs[0] if rejection.features is None else rejection.features.after]
    return {
        "statistic": rejection.statistic.value,
        "threshold": rejection.threshold,
        "wide": int(watched.bytes // watched.size > 1),
        "features": None if rejection.features is None else _features(graph, plan, steps, rejection.features),
    }


def _features(graph: Graph, plan: Plan, steps: Sequence[Step], features: Features) -> dict[str, Any]:
    kind = graph.types[features.after]
    channels = kind.shape[-1]
    return {
        "end": next(i for i, step in enumerate(steps) if step.name == features.after) + 1,
        "offset": plan.offsets[features.after],
        "positions": kind.size // channels,
        "channels": channels,
        "classes": len(features.centres),
        "tables": [
            array("accept_centres", np.array(features.centres, np.int32)),
            array("accept_weights", np.array(features.weights, np.uint16)),
        ],
    }

"""Training from fresh weights, and fine-tuning."""

import math
from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import Stage, check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Train(Stage):
    """Trains all weights on the training split: AdamW, cosine schedule, cross-entropy (`execute.torch.fit`)."""

    epochs: int = 10
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-4
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The trained design; notes: epochs and samples."""
        graph = _fit(design.graph, bench, self)
        return replace(design, graph=graph, plan=None), {"epochs": self.epochs, "samples": len(bench.data.train)}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(Stage):
    """As `Train`, with a smaller rate, for weights that have been trained before."""

    epochs: int = 3
    batch: int = 128
    rate: float = 5e-4
    decay: float = 0.0
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The tuned design; notes: epochs and samples."""
        graph = _fit(design.graph, bench, self)
        return replace(design, graph=graph, plan=None), {"epochs": self.epochs, "samples": len(bench.data.train)}


def _check(stage: Train | FineTune) -> None:
    check_parameters(
        (stage.epochs >= 1, "epochs must be at least 1"),
        (stage.batch >= 1, "batch must be at least 1"),
        (0 < stage.rate < math.inf, "rate must be a finite number above 0"),
        (0 <= stage.decay < math.inf, "decay must be a finite number of at least 0"),
        (stage.shift >= 0, "shift must be at least 0"),
    )


def _fit(graph: Graph, bench: Bench, stage: Train | FineTune) -> Graph:
    if graph.is_integer:
        raise GraphError("cannot train integer weights; put this stage before quantization")
    from crosslayer.execute.torch import Training, fit  # PyTorch is loaded only by who trains

    training = Training(
        epochs=stage.epochs,
        batch=stage.batch,
        rate=stage.rate,
        decay=stage.decay,
        shift=stage.shift,
        flip=stage.flip,
    )
    checkpoint = None if bench.scratch is None else bench.scratch / "training.safetensors"
    return fit(
        graph, bench.data.train, training, seed=bench.stage_seed(), progress=bench.progress, checkpoint=checkpoint
    )

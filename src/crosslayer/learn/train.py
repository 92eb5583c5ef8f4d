"""Training from fresh weights, and fine-tuning."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, load_design
from crosslayer.core.errors import GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.outputs import reconstructs
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.training import Training


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Train(Stage):
    """Trains all weights on the training split: AdamW, cosine schedule, cross-entropy (`torch_training.fit`)."""

    epochs: int = 10
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-4
    shift: int = 0
    flip: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_parameters((self.epochs >= 1, "epochs must be at least 1"))
        Training.of(self)  # which checks the rest

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The trained design; notes: epochs and samples."""
        graph = _fit(design.graph, bench, self)
        return replace(design, graph=graph, plan=None), {"epochs": self.epochs, "samples": len(bench.data.train)}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(Stage):
    """As `Train`, with a smaller rate, for weights that have been trained before.

    A classifier whose validation accuracy has fallen gets them back.

    With `distill` (see `Training`) it learns from `teacher` too, the folder of a saved float design for the same inputs
    and classes, such as `runs/large/design`.
    """

    epochs: int = 3
    batch: int = 128
    rate: float = 5e-4
    decay: float = 0.0
    shift: int = 0
    flip: bool = False
    bfloat16: bool = False
    distill: float = 0.0
    temperature: float = 4.0
    teacher: str = ""

    def __post_init__(self) -> None:
        check_parameters(
            (self.epochs >= 1, "epochs must be at least 1"),
            ((self.distill > 0) == bool(self.teacher), "distill and teacher belong together; give both or none"),
        )
        Training.of(self)  # which checks the rest

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The tuned design; notes: epochs, samples, and whether the new weights were kept. Raises `DesignError` if the
        teacher cannot be read."""
        graph = _fit(design.graph, bench, self, self._taught_by())
        notes = {"epochs": self.epochs, "samples": len(bench.data.train)}
        if reconstructs(graph):
            return replace(design, graph=graph, plan=None), notes
        before, after = (bench.accuracy(g, bench.data.validation) for g in (design.graph, graph))
        kept = after >= before
        return replace(design, graph=graph if kept else design.graph, plan=None), {**notes, "kept": kept}

    def check(self, design: Design) -> None:
        """Raises `GraphError` if the design cannot be tuned, `DesignError` if the teacher cannot be read."""
        _check_float(design.graph)
        self._taught_by()

    def _taught_by(self) -> Graph | None:
        return load_design(Path(self.teacher)).graph if self.teacher else None


def _fit(graph: Graph, bench: Bench, stage: Train | FineTune, teacher: Graph | None = None) -> Graph:
    _check_float(graph)
    from crosslayer.execute.torch_training import fit  # PyTorch is loaded only by who trains

    checkpoint = None if bench.scratch is None else bench.scratch / "training.safetensors"
    return fit(
        graph,
        bench.data.train,
        Training.of(stage),
        seed=bench.stage_seed(),
        progress=bench.progress,
        checkpoint=checkpoint,
        teacher=teacher,
    )


def _check_float(graph: Graph) -> None:
    if graph.is_integer:
        raise GraphError("cannot train integer weights; put this stage before quantization")

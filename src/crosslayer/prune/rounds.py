"""What ways of pruning in rounds have in common: tuning in each, and going on after the last one that was finished."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, Step, load_design, save_design
from crosslayer.core.errors import DesignError, GraphError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import Stage
from crosslayer.execute.training import Training


def check_float(graph: Graph) -> None:
    """Raises `GraphError` for integer weights."""
    if graph.is_integer:
        raise GraphError("cannot prune integer weights; put this stage before quantization")


def tuned(graph: Graph, training: Training, teacher: Graph, bench: Bench, turn: int) -> Graph:
    """The network after the training of round `turn`, which goes on where it was killed."""
    if training.epochs == 0:
        return graph
    from crosslayer.execute.torch_training import fit  # PyTorch is loaded only by who trains

    checkpoint = None if bench.scratch is None else bench.scratch / f"turn{turn}.safetensors"
    found = fit(
        graph,
        bench.data.train,
        training,
        seed=bench.stage_seed() + turn,
        progress=bench.progress,
        checkpoint=checkpoint,
        teacher=teacher,
    )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return found


def save_round(stage: Stage, design: Design, notes: Mapping[str, Any], bench: Bench) -> None:
    """The network and notes after a round, for `last_round`."""
    if bench.scratch is not None:
        state = Step(stage=str(stage), notes=notes)
        save_design(replace(design, plan=None, trail=(state,)), bench.scratch / "pruned")


def last_round(design: Design, bench: Bench) -> tuple[Graph, dict[str, Any]]:
    """The graph and notes that a killed run left, or the graph of the start and none."""
    if bench.scratch is not None and (saved := bench.scratch / "pruned").is_dir():
        with suppress(DesignError):
            found = load_design(saved)
            return found.graph, dict(found.trail[0].notes)
    return design.graph, {}

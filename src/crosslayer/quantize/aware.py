"""Quantization-aware training: float weights in, trained integer firmware out."""

from dataclasses import dataclass, field, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.graph.graph import Graph
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.adversary import Adversary
from crosslayer.execute.training import Training
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.quantize.mixed import MixedPrecision


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeAware(Stage):
    """Quantizes as `start` says and trains on: each step computes, to the bit, what the firmware would compute.

    With `learn_steps` the scales are trained with the weights (LSQ). Fold normalizations first: what is trained is what
    ships, and batch statistics would not ship. Choose this over `QuantizeAffine` alone for less than 8 bits, or where
    that costs accuracy; with few bits `start.correct_biases` is a much better start. With `mixed`, that stage chooses
    the bits, and its `start` holds instead of this one's. With `training.distill` the float network teaches.
    With `against` it learns from attacked samples; the attack in each step goes through the integers themselves.
    """

    start: QuantizeAffine = field(default_factory=QuantizeAffine)
    training: Training = field(default_factory=lambda: Training(epochs=10, rate=5e-4, decay=0.0))
    learn_steps: bool = True
    mixed: MixedPrecision | None = None
    against: Adversary | None = None

    def __post_init__(self) -> None:
        check_parameters(
            (self.training.epochs >= 1, "training.epochs must be at least 1; for none, use quantize-affine"),
            (not self.training.bfloat16, "training.bfloat16 is for float networks; integers are computed exactly"),
            (not self.start.learn_rounding, "training rounds to nearest; leave start.learn_rounding out"),
            (self.against is None or self.training.distill == 0, "against and training.distill exclude each other"),
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The trained integer design; notes: those of the start, epochs and samples, and with `against` those of
        `train_robust`."""
        start, chosen = self.start, dict[str, Any]()
        if self.mixed is not None:
            precision, chosen = self.mixed.choose(design, bench)
            start = replace(self.mixed.start, precision=precision)
        started, notes = start.apply(design, bench)
        from crosslayer.execute.straight import StraightThrough  # PyTorch is loaded only by who trains
        from crosslayer.execute.torch_robust import train_robust
        from crosslayer.execute.torch_training import train

        module = StraightThrough(
            _with_biases(design.graph, started.graph) if start.correct_biases else design.graph,
            started.graph,
            learn_steps=self.learn_steps,
            power_of_two=start.precision.power_of_two,
        )
        seed, progress = bench.stage_seed(), bench.progress
        checkpoint = None if bench.scratch is None else bench.scratch / "training.safetensors"
        data, training = bench.data, self.training
        notes |= {**chosen, "epochs": training.epochs, "trained": len(data.train)}
        if self.against is not None:
            notes |= train_robust(
                module, data, training, self.against, seed=seed, progress=progress, checkpoint=checkpoint
            )
        else:
            train(
                module,
                data.train,
                training,
                seed=seed,
                progress=progress,
                checkpoint=checkpoint,
                teacher=design.graph,
            )
        return replace(started, graph=module.convert()), notes


def _with_biases(graph: Graph, integer: Graph) -> Graph:
    """The float network with the biases of its quantized form."""
    constants = dict(graph.constants)
    for node in integer.nodes:
        quant = integer.types[node.inputs[-1]].quant
        if node.op.channel_axis is not None and quant is not None:
            constants[graph.producers[node.name].inputs[2]] = quant.decode(integer.constants[node.inputs[2]])
    return replace(graph, constants=constants)

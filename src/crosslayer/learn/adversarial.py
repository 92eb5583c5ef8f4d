"""Training against attacks."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.adversary import Adversary, Method
from crosslayer.execute.training import Training


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRobust(Stage):
    """As `Train`, with an attack in each step: the weights are learned from samples that an `Adversary` has moved.

    What stays right within `epsilon` costs accuracy on clean samples, and several times the training time. Choose
    `trades` where `pgd` learns too little of the clean samples, `fast` where time is short, `TrainCertified` where a
    proof is wanted. For the integers themselves, go on with `quantize-aware` and its `against`.
    """

    epsilon: float = 8 / 255
    method: Method = Method.PGD
    steps: int = 7
    step: float = 0.35
    beta: float = 6.0
    ramp: float = 0.3
    epochs: int = 20
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-4
    shift: int = 0
    flip: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_parameters((self.epochs >= 1, "epochs must be at least 1"))
        _ = self.adversary, Training.of(self)  # which check the rest

    @property
    def adversary(self) -> Adversary:
        """Whom training defends against."""
        return Adversary(
            epsilon=self.epsilon,
            method=self.method,
            steps=self.steps,
            step=self.step,
            beta=self.beta,
            ramp=self.ramp,
        )

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The trained design; notes: epochs and those of `train_robust`."""
        if design.graph.is_integer:
            raise GraphError("cannot train integer weights; put this stage before quantization")
        from crosslayer.execute.torch import from_torch, to_torch  # PyTorch is loaded only by who trains
        from crosslayer.execute.torch_robust import train_robust

        module = to_torch(design.graph).train()
        notes = train_robust(
            module,
            bench.data,
            Training.of(self),
            self.adversary,
            seed=bench.stage_seed(),
            progress=bench.progress,
            checkpoint=None if bench.scratch is None else bench.scratch / "training.safetensors",
        )
        return replace(design, graph=from_torch(module), plan=None), {"epochs": self.epochs, **notes}

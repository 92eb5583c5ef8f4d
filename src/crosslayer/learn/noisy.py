"""Training in noise."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.training import Training


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainNoisy(Stage):
    """As `Train`, from samples in Gaussian noise of standard deviation `noise`, a share of the range of the training
    data, clipped to that range (Lecuyer et al. 2019, arXiv 1802.03471).

    It is what randomized smoothing needs (`evaluate/smoothing.py`): give the noise that will be smoothed over.
    """

    noise: float = 0.25
    epochs: int = 20
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-4
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_parameters(
            (self.epochs >= 1, "epochs must be at least 1"),
            (0 < self.noise <= 10, "noise must be above 0 and at most 10"),
        )
        _ = Training.of(self)  # which checks the rest

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The trained design; notes: epochs and samples."""
        if design.graph.is_integer:
            raise GraphError("cannot train integer weights; put this stage before quantization")
        from crosslayer.execute.torch import from_torch, to_torch  # PyTorch is loaded only by who trains
        from crosslayer.execute.torch_robust import Reach, noisy_loss
        from crosslayer.execute.torch_training import train

        data, module = bench.data, to_torch(design.graph).train()
        train(
            module,
            data.train,
            Training.of(self),
            seed=bench.stage_seed(),
            progress=bench.progress,
            checkpoint=None if bench.scratch is None else bench.scratch / "training.safetensors",
            loss=noisy_loss(module, Reach.of(self.noise, data.train)),
        )
        notes = {"epochs": self.epochs, "samples": len(data.train)}
        return replace(design, graph=from_torch(module), plan=None), notes

"""Training for robustness that can be proved."""

from dataclasses import dataclass, replace
from typing import Any, final

from crosslayer.core.bench import Bench
from crosslayer.core.design import Design
from crosslayer.core.errors import GraphError
from crosslayer.core.stage import Stage, check_parameters
from crosslayer.execute.training import Training


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCertified(Stage):
    """Trains so that interval bounds prove many samples right whatever moves their values by at most `epsilon`.

    Interval bound propagation (Gowal et al. 2018, arXiv 1810.12715); `epsilon` is a share of the range of the training
    data. During the first share `warm` of training only clean samples count; over the share `ramp` after it epsilon
    grows from 0, and the weight of clean samples falls from 1 to `kappa`. Bounds suit small networks without
    normalizations. `evaluate.certificate` says what the integers that ship can prove: train with a slightly larger
    epsilon than is to be proved of them. Choose `TrainRobust` where no proof is needed.
    """

    epsilon: float = 8 / 255
    kappa: float = 0.5
    warm: float = 0.05
    ramp: float = 0.5
    epochs: int = 60
    batch: int = 128
    rate: float = 1e-3
    decay: float = 0.0
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_parameters(
            (self.epochs >= 1, "epochs must be at least 1"),
            (0 < self.epsilon <= 1, "epsilon must be above 0 and at most 1"),
            (0 <= self.kappa <= 1, "kappa must lie in 0…1"),
            (self.warm >= 0, "warm must be at least 0"),
            (self.ramp >= 0 and self.warm + self.ramp <= 1, "ramp must be at least 0, and warm + ramp at most 1"),
        )
        _ = Training.of(self)  # which checks the rest

    def apply(self, design: Design, bench: Bench) -> tuple[Design, dict[str, Any]]:
        """The trained design; notes: epochs, samples, and `certified_accuracy`: of the float network, on validation
        data, by the same bounds."""
        if design.graph.is_integer:
            raise GraphError("cannot train integer weights; put this stage before quantization")
        from crosslayer.execute.torch import from_torch, to_torch  # PyTorch is loaded only by who trains
        from crosslayer.execute.torch_intervals import certified_accuracy, certified_loss
        from crosslayer.execute.torch_robust import Reach
        from crosslayer.execute.torch_training import train

        data, module = bench.data, to_torch(design.graph).train()
        reach = Reach.of(self.epsilon, data.train)
        train(
            module,
            data.train,
            Training.of(self),
            seed=bench.stage_seed(),
            progress=bench.progress,
            checkpoint=None if bench.scratch is None else bench.scratch / "training.safetensors",
            loss=certified_loss(module, reach, kappa=self.kappa, warm=self.warm, ramp=self.ramp),
        )
        notes = {
            "epochs": self.epochs,
            "samples": len(data.train),
            "certified_accuracy": certified_accuracy(module, data.validation, reach),
        }
        return replace(design, graph=from_torch(module), plan=None), notes

"""How to train. Needs no PyTorch, so that a stage can say it."""

import math
from dataclasses import dataclass, fields
from typing import final

from crosslayer.core.stage import Stage, check_parameters


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to train: Adam (Kingma & Ba 2015) with decoupled weight decay and a cosine schedule from `rate` to 0.

    `shift` moves images by up to that many pixels and `flip` mirrors them, at random, where images are trained on.
    With `bfloat16`, layers multiply numbers of eight significant bits and add them up as float32; weights, statistics
    and the loss stay float32. That is up to 3 times faster where the processor has instructions for it, and slower
    elsewhere.

    `distill` is the share of the loss that compares with a teacher's logits, both divided by `temperature` (Hinton et
    al. 2015, arXiv 1503.02531); who trains says who the teacher is.
    """

    epochs: int
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-4
    shift: int = 0
    flip: bool = False
    bfloat16: bool = False
    distill: float = 0.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_parameters(
            (self.epochs >= 0, "epochs must be at least 0"),
            (self.batch >= 1, "batch must be at least 1"),
            (0 < self.rate < math.inf, "rate must be a finite number above 0"),
            (0 <= self.decay < math.inf, "decay must be a finite number of at least 0"),
            (self.shift >= 0, "shift must be at least 0"),
            (0 <= self.distill <= 1, "distill must lie in 0…1"),
            (0 < self.temperature < math.inf, "temperature must be a finite number above 0"),
        )

    @classmethod
    def of(cls, stage: Stage) -> "Training":
        """What a stage says in fields of the same names; the rest is as usual."""
        return cls(**{f.name: getattr(stage, f.name) for f in fields(cls) if hasattr(stage, f.name)})

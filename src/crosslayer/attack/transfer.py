"""What fools one network, tried on another."""

from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np

from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.victim import Victim
from crosslayer.attack.worst import Worst
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Attack):
    """Runs `attack` on `source` and replays what it finds: the victim is asked once a sample, for no slopes.

    Float to integer and back, it shows what a victim's own slopes hide (Papernot et al. 2016, arXiv 1605.07277). Give
    an attack that goes on after the source is fooled (`stop` false): what only just fools it fools few others. It is
    not in the catalogue, for no text can name its source.
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)
    source: Victim
    attack: Attack = field(default_factory=lambda: Pgd(stop=False))

    def search(
        self, victim: Victim, x: Array, labels: Array, budget: Budget, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """What was found on the source where it is worse for the victim than `x`; `start` is where `attack` begins.

        Raises `InputError` if the source has another sensor, or is one that `attack` is not made for.
        """
        if self.source.sensor != victim.sensor:
            raise InputError("transfer needs two networks behind one sensor; give the source the victim's")
        worst = Worst(victim, x, labels, budget)
        worst.ask(np.arange(len(x)), self.attack(self.source, x, labels, budget, rng, start))
        return worst.found

"""The attacks, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from crosslayer.attack.apgd import Apgd
from crosslayer.attack.attack import Attack
from crosslayer.attack.carlini import CarliniWagner
from crosslayer.attack.fab import Fab
from crosslayer.attack.fgsm import Fgsm
from crosslayer.attack.noise import RandomNoise
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.universal import UniversalPerturbation

CATALOGUE: Mapping[str, type[Attack]] = MappingProxyType(
    {
        attack.name(): attack
        for attack in (
            # random
            RandomNoise,
            # by gradients
            Fgsm,
            Pgd,
            Apgd,
            Fab,
            CarliniWagner,
            UniversalPerturbation,
            # by scores
            # by labels
            # by natural changes
        )
    }
)
"""What the command line can name, sorted by what an attack needs."""

"""The attacks, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from crosslayer.attack.apgd import Apgd
from crosslayer.attack.attack import Attack
from crosslayer.attack.carlini import CarliniWagner
from crosslayer.attack.fab import Fab
from crosslayer.attack.fgsm import Fgsm
from crosslayer.attack.hopskipjump import HopSkipJump
from crosslayer.attack.imperceptible import Imperceptible
from crosslayer.attack.noise import RandomNoise
from crosslayer.attack.one_pixel import OnePixel
from crosslayer.attack.patch import AdversarialPatch, PatchSearch
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.spsa import Spsa
from crosslayer.attack.square import Square
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
            AdversarialPatch,
            # by scores
            Square,
            Spsa,
            OnePixel,
            Imperceptible,
            PatchSearch,
            # by labels
            HopSkipJump,
        )
    }
)
"""What `crosslayer attack --alone` can name, sorted by what an attack needs."""

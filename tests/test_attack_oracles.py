"""Our attacks do what those of Foolbox and the Adversarial Robustness Toolbox (ART) do, on the same float network.

1,000 of the small digits, pixels of any value in 0…1; robust accuracy is the mean over two seeds.
"""

from functools import cache

import numpy as np
import torch

from attack_networks import digits, trained
from attack_oracles import art_model, evasion, foolbox, foolbox_model, one_hot, quiet
from crosslayer.attack.apgd import Apgd
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.quant import Array
from crosslayer.flow import execute

SEEDS, STEPS, SIZE = (0, 1), 40, 1 / 16
POINTS = 0.5


@cache
def samples() -> tuple[Array, Array]:
    train = digits().train.take(slice(0, 1000))
    return train.real(), train.labels


@cache
def victim() -> Victim:
    return Victim.of(trained(), Sensor(low=0.0, high=1.0), execute)


def accuracy(found: Array) -> float:
    """Robust accuracy in per cent."""
    return 100 * float(1 - victim().fooled(found, samples()[1]).mean())


def ours(attack: Attack) -> float:
    budget = Budget(Norm.LINF, SIZE)
    found = [attack(victim(), *samples(), budget, np.random.default_rng(seed)) for seed in SEEDS]
    return float(np.mean([accuracy(f) for f in found]))


def test_pgd_is_within_half_a_point_of_foolbox() -> None:
    x, labels = (torch.from_numpy(part) for part in samples())
    attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / STEPS, steps=STEPS, random_start=True)
    theirs: list[float] = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        with quiet():
            _, found, _ = attack(foolbox_model(trained()), x, labels, epsilons=SIZE)
        theirs.append(accuracy(found.numpy()))
    assert 30 < np.mean(theirs) < 90  # else there is nothing to compare
    assert abs(ours(Pgd(steps=STEPS)) - np.mean(theirs)) <= POINTS


def test_auto_pgd_is_within_half_a_point_of_art() -> None:
    x, labels = samples()
    theirs: list[float] = []
    for seed in SEEDS:
        state = np.random.get_state()  # noqa: NPY002  # ART draws from NumPy's global generator
        np.random.seed(seed)  # noqa: NPY002  # same
        with quiet():
            attack = evasion.AutoProjectedGradientDescent(
                art_model(trained()),
                norm=np.inf,
                eps=SIZE,
                eps_step=2 * SIZE,  # the paper's first step
                max_iter=STEPS,
                nb_random_init=1,
                batch_size=250,
                loss_type="cross_entropy",
                verbose=False,
            )
            theirs.append(accuracy(attack.generate(x, one_hot(labels))))
        np.random.set_state(state)  # noqa: NPY002  # same
    assert 30 < np.mean(theirs) < 90
    assert abs(ours(Apgd(steps=STEPS)) - np.mean(theirs)) <= POINTS

"""Attacks by gradients: they keep their budget, stay on the sensor's grid, and find what is there to be found."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from attack_networks import digits, in_integers, trained
from crosslayer.attack.apgd import Apgd
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.carlini import CarliniWagner
from crosslayer.attack.catalogue import CATALOGUE
from crosslayer.attack.fab import Fab
from crosslayer.attack.fgsm import Fgsm
from crosslayer.attack.losses import LOSSES, Loss, Lossy, cross_entropy, dlr, margin, targeted_dlr
from crosslayer.attack.noise import RandomNoise
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.transfer import Transfer
from crosslayer.attack.universal import UniversalPerturbation
from crosslayer.attack.victim import Victim, margins
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.execute.surrogate import Pullback, Surrogate
from crosslayer.flow import execute

LINF, L2 = Budget(Norm.LINF, 2 / 16), Budget(Norm.L2, 1.0)
GRADIENT = (
    Fgsm(),
    Pgd(steps=8, restarts=2, momentum=0.5),
    Pgd(steps=6, loss=Loss.DLR, draws=2, stop=False, surrogate=Surrogate.LEAKY),
    Apgd(steps=12, restarts=2),
    Apgd(steps=6, loss=Loss.DLR, targets=3, surrogate=Surrogate.PLAIN),
    Fab(steps=6, restarts=2),
    CarliniWagner(searches=2, steps=12),
    UniversalPerturbation(epochs=3, batch=25),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@cache
def samples(count: int = 60) -> tuple[Array, Array]:
    """Validation images as shares of the range, and labels."""
    split = digits().validation.take(slice(0, count))
    return split.real(), split.labels


@cache
def victim(*, whole: bool = False, steps: int = 16) -> Victim:
    """The digits network, float or int8, behind a sensor of so many steps."""
    graph = in_integers(trained(), digits().train.real(slice(0, 128))) if whole else trained()
    return Victim.of(graph, Sensor(low=0.0, high=1.0, steps=steps), execute)


def robust(attack: Attack, target: Victim, budget: Budget, seed: int = 0) -> int:
    """How many of the samples withstand."""
    x, labels = samples()
    return int((~target.fooled(attack(target, x, labels, budget, rng(seed)), labels)).sum())


@pytest.mark.parametrize("attack", GRADIENT, ids=str)
def test_every_attack_keeps_its_budget_and_the_sensors_grid(attack: Attack) -> None:
    x, labels = samples()
    for budget in (LINF, L2):
        for whole, steps in ((False, 0), (True, 16)):
            target = victim(whole=whole, steps=steps)
            if budget.norm not in attack.norms:
                with pytest.raises(InputError, match="choose another attack or budget"):
                    attack(target, x, labels, budget, rng())
                continue
            found = attack(target, x, labels, budget, rng())
            assert budget.holds(found, x).all() and found.dtype == np.float32
            assert not steps or np.array_equal(found * steps, np.rint(found * steps))
            assert (found != x).any()
            again = attack(target, x, labels, budget, rng())
            assert np.array_equal(found, again)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
def test_many_steps_beat_one_and_one_beats_noise(budget: Budget, whole: bool) -> None:
    target = victim(whole=whole)
    noise, one, many = (robust(a, target, budget) for a in (RandomNoise(draws=10), Fgsm(), Pgd(steps=20)))
    auto = robust(Apgd(steps=20), target, budget)
    assert many < one < noise
    assert auto <= many


def test_hops_along_the_boundary_get_over_equal_integer_logits() -> None:
    """Where two logits are equal the first counts, and the way to the boundary is 0: a hop must go beyond."""
    budget = Budget(Norm.L2, 0.7)
    for target in (victim(), victim(whole=True)):
        assert robust(Fab(steps=25), target, budget) <= robust(Apgd(steps=25), target, budget) + 3


def test_the_grid_takes_little_of_a_change_that_is_as_long_as_the_budget() -> None:
    x = np.rint(255 * rng().random((20, 400), np.float32)) / np.float32(255)
    change = rng(1).standard_normal(x.shape, np.float32)
    for budget, steps in ((Budget(Norm.L2, 1.0), 255), (Budget(Norm.LINF, 0.1), 255)):
        tried = budget.project(x + (change if budget.norm is Norm.L2 else np.sign(change)), x)
        found = budget.snap(tried, x, steps)
        assert budget.holds(found, x).all() and np.array_equal(found * 255, np.rint(found * 255))
        assert (budget.size_of(found, x) > 0.98 * budget.size_of(tried, x)).all()


@pytest.mark.parametrize("attack", [*GRADIENT[1:4], Fab(steps=20)], ids=str)
def test_what_is_found_is_never_better_for_the_victim_than_the_sample(attack: Attack) -> None:
    x, labels = samples()
    target = victim(whole=True)
    before, after = (margins(target.logits(z), labels) for z in (x, attack(target, x, labels, LINF, rng())))
    assert (after <= before).all() and (after < before).mean() > 0.8


def counted(inner: Victim, asked: list[int]) -> Victim:
    """The victim, which notes the size of each batch that is asked for slopes."""
    assert inner.linearize is not None
    linearize = inner.linearize

    def noted(real: Array, surrogate: Surrogate) -> tuple[Array, Pullback]:
        asked.append(len(real))
        return linearize(real, surrogate)

    return replace(inner, linearize=noted)


@pytest.mark.parametrize("attack", [Pgd(steps=20), Apgd(steps=20), Fab(steps=20), CarliniWagner(steps=20)], ids=str)
def test_samples_that_fool_drop_out_of_the_batch(attack: Attack) -> None:
    x, labels = samples()
    asked: list[int] = []
    attack(counted(victim(), asked), x, labels, L2, rng())
    assert len(x) >= asked[0] > asked[-1] and asked == sorted(asked, reverse=True)
    asked.clear()
    attack(counted(victim(), asked), x, np.where(victim().fooled(x, labels), labels, labels - 1), L2, rng())
    assert not asked


@pytest.mark.parametrize("attack", [Fgsm(), Pgd(steps=1, step=1e-3), Apgd(steps=1), Fab(steps=1)], ids=str)
def test_a_start_that_fools_is_not_lost(attack: Attack) -> None:
    x, labels = samples()
    target = victim()
    start = Apgd(steps=20)(target, x, labels, LINF, rng())
    ends = target.fooled(attack(target, x, labels, LINF, rng(), start), labels)
    assert ends[target.fooled(start, labels)].all()
    assert ends.sum() > target.fooled(attack(target, x, labels, LINF, rng()), labels).sum()


def test_going_on_after_a_sample_fools_leaves_less_margin() -> None:
    x, labels = samples()
    first, last = (Pgd(steps=15, stop=stop)(victim(), x, labels, LINF, rng()) for stop in (True, False))
    assert margins(victim().logits(last), labels).mean() < margins(victim().logits(first), labels).mean() - 1


def linear(weight: Array, bias: Array, ripple: float = 0.0) -> Victim:
    """Logits W x + b; with `ripple`, waves along x that turn its slopes around but hardly change its values."""
    waves = 2000.0

    def scores(real: Array) -> Array:
        return ((real + ripple * np.sin(waves * real) / waves) @ weight.T + bias).astype(np.float32)

    def linearize(real: Array, surrogate: Surrogate) -> tuple[Array, Pullback]:
        return scores(real), lambda slopes: slopes @ weight * (1 + ripple * np.cos(waves * real))

    return Victim(sensor=Sensor(low=0.0, high=1.0), scores=scores, linearize=linearize)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_boundary_attacks_find_the_nearest_sample_that_fools(norm: Norm) -> None:
    weight, x = rng(5).normal(size=(4, 30)), rng(6).uniform(0.3, 0.7, (40, 30)).astype(np.float32)
    target = linear(weight, np.zeros(4))
    labels = target.logits(x).argmax(1)
    lead = target.logits(x)[np.arange(40), labels][:, None] - target.logits(x)
    apart = np.linalg.norm(weight[labels][:, None] - weight, 1 if norm is Norm.LINF else 2, axis=2)
    nearest = np.divide(lead, apart, out=np.full_like(lead, np.inf), where=apart > 0).min(1)
    far = np.flatnonzero(nearest > 0.05)[:10]
    attacks: list[tuple[Attack, float]] = [(Fab(steps=10), 1.02)]
    if norm is Norm.L2:
        attacks.append((CarliniWagner(rate=0.01), 1.02))
    for attack, slack in attacks:
        for i, distance in zip(far, nearest[far].tolist(), strict=True):
            one = x[i : i + 1], labels[i : i + 1]
            for budget, fools in ((Budget(norm, slack * distance), True), (Budget(norm, 0.99 * distance), False)):
                assert target.fooled(attack(target, *one, budget, rng()), one[1]).all() == fools


def test_the_nearest_sample_is_found_where_pixels_have_no_room_left() -> None:
    weight = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.5]])
    x = np.array([[1.0, 0.5, 0.5]], np.float32)
    target = linear(weight, np.array([1.9, 0.0]))
    for size, fools in ((0.102, True), (0.098, False)):  # 0.15 ahead, and slopes of 1.5 have room: 0.15 / 1.5
        budget = Budget(Norm.LINF, size)
        found = Fab(steps=5)(target, x, np.array([0]), budget, rng())
        assert target.fooled(found, np.array([0])).all() == fools


def test_a_mean_over_noisy_copies_sees_through_waves() -> None:
    weight = rng(7).normal(size=(3, 20))
    x = rng(8).uniform(0.2, 0.8, (100, 20)).astype(np.float32)
    target = linear(weight, -0.5 * weight.sum(1), ripple=5.0)
    labels, budget = target.logits(x).argmax(1), Budget(Norm.LINF, 0.05)
    few, many = (Pgd(steps=5, draws=draws, spread=0.5)(target, x, labels, budget, rng()) for draws in (1, 12))
    assert target.fooled(many, labels).sum() > target.fooled(few, labels).sum() + 5


def test_one_change_fools_many_and_is_the_same_for_all() -> None:
    x, labels = samples()
    attack, target, budget = UniversalPerturbation(epochs=30), victim(whole=True), Budget(Norm.LINF, 4 / 16)
    change = attack.perturbation(target, x, labels, budget, rng())
    assert np.allclose(change * 16, np.rint(change * 16)) and np.abs(change).max() <= budget.size
    found = attack(target, x, labels, budget, rng())
    assert np.array_equal(found, np.clip(x + change, 0, 1))
    random = np.clip(x + np.float32(budget.size) * rng().choice([-1, 1], x.shape[1:]), 0, 1)
    assert target.fooled(found, labels).sum() > target.fooled(random, labels).sum() + 5


@pytest.mark.parametrize("whole", [False, True])
def test_what_fools_one_network_is_replayed_on_the_other(whole: bool) -> None:
    x, labels = samples()
    deaf = replace(victim(whole=whole), linearize=None)
    attack = Transfer(source=victim(whole=not whole), attack=Pgd(steps=20, stop=False))
    fooled = deaf.fooled(attack(deaf, x, labels, LINF, rng()), labels).sum()
    assert fooled > 0.8 * (len(x) - robust(attack.attack, victim(whole=whole), LINF))
    with pytest.raises(InputError, match="one sensor"):
        replace(attack, source=victim(steps=0))(deaf, x, labels, LINF, rng())


def test_gradient_attacks_refuse_a_victim_without_gradients() -> None:
    x, labels = samples()
    kinds = [kind for kind in CATALOGUE.values() if kind.needs_slopes]
    assert {Fgsm, Pgd, Apgd, Fab, CarliniWagner, UniversalPerturbation} <= set(kinds)
    for kind in kinds:
        with pytest.raises(InputError, match="needs gradients"):
            kind()(replace(victim(), linearize=None), x, labels, Budget(kind.norms[0], 0.1), rng())


TARGETS = np.array([1, 2, 3, 4, 5, 0] * 5)


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr, lambda z, y: targeted_dlr(z, y, TARGETS)])
def test_slopes_of_losses_are_finite_differences(loss: Callable[[Array, Array], Lossy]) -> None:
    logits, labels = 3 * rng().normal(size=(30, 6)), np.arange(30) % 6
    _, slopes = loss(logits, labels)
    for i, step in enumerate(1e-6 * np.eye(6)):
        rise = (loss(logits + step, labels)[0] - loss(logits - step, labels)[0]) / 2e-6
        assert np.allclose(slopes[:, i], rise, atol=1e-6)


def test_a_very_sure_network_still_has_slopes_and_equal_logits_no_infinite_ones() -> None:
    sure, labels = np.array([[5000.0, 0.0, -3.0]], np.float32), np.array([0])
    _, slopes = cross_entropy(sure, labels)
    assert slopes[0, 0] < 0 < slopes[0, 1]
    for loss in LOSSES.values():
        assert all(np.isfinite(part).all() for part in loss(np.zeros((1, 4), np.float32), labels))


def test_losses_that_need_more_classes_say_so() -> None:
    two = linear(rng().normal(size=(2, 5)), np.zeros(2))
    x, labels = rng().random((3, 5), np.float32), two.logits(rng().random((3, 5), np.float32)).argmax(1)
    for attack, least in ((Pgd(loss=Loss.DLR), 3), (Apgd(loss=Loss.DLR), 3), (Apgd(loss=Loss.DLR, targets=1), 4)):
        with pytest.raises(InputError, match=f"at least {least} classes"):
            attack(two, x, labels, LINF, rng())
    with pytest.raises(InputError, match="targets go with loss dlr"):
        Apgd(targets=3)

"""Attacks that only ask: by scores or labels, of a graph, of the emitted C, of any function."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from attack_networks import digits, in_integers, trained
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.callable import firmware_victim, label_victim, score_victim
from crosslayer.attack.hopskipjump import HopSkipJump
from crosslayer.attack.imperceptible import Imperceptible
from crosslayer.attack.noise import RandomNoise
from crosslayer.attack.one_pixel import OnePixel
from crosslayer.attack.patch import PatchSearch
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.similarity import correlation, ssim
from crosslayer.attack.spsa import Spsa
from crosslayer.attack.square import Square
from crosslayer.attack.victim import Victim, margins
from crosslayer.core.design import Design
from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.core.target import Core
from crosslayer.execute.emulate import Image
from crosslayer.execute.native import Native
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.workbench import firmware_of

LINF, L2, PIXELS, PATCH = Budget(Norm.LINF, 2 / 16), Budget(Norm.L2, 1.0), Budget(Norm.L0, 2), Budget(Norm.PATCH, 0.15)
ATTACKS: tuple[tuple[Attack, Budget], ...] = (
    (Square(queries=60), LINF),
    (Square(queries=60), L2),
    (Spsa(queries=52, pairs=8, rate=0.05), LINF),
    (OnePixel(queries=61, population=20), PIXELS),
    (HopSkipJump(queries=60, probes=10), L2),
    (HopSkipJump(queries=60, probes=10), LINF),
    (Imperceptible(queries=60, correlation=-1.0, similarity=-1.0), LINF),
    (PatchSearch(queries=60, draws=5), PATCH),
)
NAMES = [f"{attack.name()}-{budget.norm}" for attack, budget in ATTACKS]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@cache
def integers() -> Graph:
    return in_integers(trained(), digits().train.real(slice(0, 128)))


@cache
def victim(steps: int = 16) -> Victim:
    """The int8 digits network, which only answers."""
    return replace(Victim.of(integers(), Sensor(low=0.0, high=1.0, steps=steps), execute), linearize=None)


@cache
def samples(count: int = 40) -> tuple[Array, Array]:
    """Validation images that are called right, as shares of the range, and labels."""
    x, labels = digits().validation.real(), digits().validation.labels
    right = np.flatnonzero(~victim().fooled(x, labels))[:count]
    return x[right], labels[right]


def counted(target: Victim) -> tuple[Victim, list[int]]:
    """A victim that notes how many samples each call asks for."""
    calls: list[int] = []

    def scores(real: Array) -> Array:
        calls.append(len(real))
        return target.scores(real)

    return replace(target, scores=scores), calls


def stubborn() -> Victim:
    """Calls images 0 until they are so bright as no budget here makes a dark one."""

    def scores(real: Array) -> Array:
        bright = real.reshape(len(real), -1).mean(1)
        return np.stack([0.4 - bright, bright - 0.4], 1).astype(np.float32)

    return Victim(sensor=Sensor(low=0.0, high=1.0, steps=16), scores=scores)


def fooled(attack: Attack, budget: Budget, target: Victim | None = None) -> int:
    x, labels = samples()
    target = target or victim()
    return int(target.fooled(attack(target, x, labels, budget, rng()), labels).sum())


@pytest.mark.parametrize(("attack", "budget"), ATTACKS, ids=NAMES)
def test_every_attack_keeps_its_budget_and_the_sensors_grid(attack: Attack, budget: Budget) -> None:
    x, labels = samples(12)
    for steps in (16, 0):
        found = attack(victim(steps), x, labels, budget, rng())
        assert budget.holds(found, x).all() and found.dtype == np.float32 and found.shape == x.shape
        assert not steps or np.array_equal(found * steps, np.rint(found * steps))
        assert (found != x).any()


@pytest.mark.parametrize(("attack", "budget"), ATTACKS, ids=NAMES)
def test_the_same_seed_gives_the_same_samples(attack: Attack, budget: Budget) -> None:
    x, labels = samples(6)
    first, again, other = (attack(victim(), x, labels, budget, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(("attack", "budget"), ATTACKS, ids=NAMES)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_sample_that_withstands_takes_exactly_its_queries(attack: Attack, budget: Budget, batch: int) -> None:
    target, calls = counted(stubborn())
    x = (rng().integers(0, 3, (batch, 8, 8, 1)) / 16).astype(np.float32)
    attack(target, x, np.zeros(batch, np.int64), budget, rng())
    assert sum(calls) == batch * attack.queries  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("attack", "budget"), [row for row in ATTACKS if row[1] is not PATCH], ids=NAMES[:-1])
def test_a_sample_that_is_misjudged_already_takes_one_query_and_comes_back_as_it_is(
    attack: Attack, budget: Budget
) -> None:
    x, labels = samples(10)
    target, calls = counted(victim())
    found = attack(target, x, (labels + 1) % 10, budget, rng())
    assert sum(calls) == len(x) and np.array_equal(found, x)


def test_square_takes_no_more_queries_of_a_sample_once_it_fools() -> None:
    x, labels = samples()
    target, calls = counted(victim())
    found = Square(queries=200)(target, x, labels, LINF, rng())
    turned = int(victim().fooled(found, labels).sum())
    assert 0 < turned < len(x)
    assert calls[0] == len(x) and calls[-1] == len(x) - turned and calls == sorted(calls, reverse=True)


@pytest.mark.parametrize("attack", [Square(queries=2), HopSkipJump(queries=2)], ids=str)
def test_a_start_that_fools_is_kept(attack: Attack) -> None:
    (x, labels), budget = samples(10), Budget(Norm.LINF, 5 / 16)
    strong = Square(queries=400)(victim(), x, labels, budget, rng())
    assert victim().fooled(strong, labels).all()
    assert np.array_equal(attack(victim(), x, labels, budget, rng(), strong), strong)


@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
def test_square_and_spsa_fool_more_than_as_many_random_draws(budget: Budget) -> None:
    noise = fooled(RandomNoise(draws=150), budget)
    assert fooled(Square(queries=150), budget) > noise
    if budget.norm in Spsa.norms:
        assert fooled(Spsa(queries=150, pairs=8, rate=0.05), budget) > noise


def test_the_squares_shrink_as_published() -> None:
    square = Square(queries=10_000, p_init=0.8)
    halved = [0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert [square.p(step) for step in halved] == [0.8 / 2 ** max(0, i - 1) for i in range(len(halved))]
    assert Square(queries=1000).p(900) == square.p(9000)


@pytest.mark.parametrize("shape", [(20,), (10, 2), (3, 16, 2)])
def test_square_works_on_vectors_sequences_and_flat_images(shape: tuple[int, ...]) -> None:
    x = np.full((4, *shape), 0.5, np.float32)
    direction = rng(1).normal(size=x[0].size)

    def scores(real: Array) -> Array:
        height = (real.reshape(len(real), -1) - 0.5) @ direction
        return np.stack([np.full(len(real), 0.8 * 0.1 * np.abs(direction).sum()), height], 1)

    target, labels = Victim(sensor=Sensor(low=0.0, high=1.0), scores=scores), np.zeros(4, np.int64)
    found = Square(queries=600)(target, x, labels, Budget(Norm.LINF, 0.1), rng())
    assert target.fooled(found, labels).all()


@pytest.mark.parametrize(("norm", "steps"), [(Norm.L2, 16), (Norm.LINF, 0)])
def test_hop_skip_jump_comes_nearer_the_more_it_asks(norm: Norm, steps: int) -> None:
    x, labels = samples(10)
    budget, sizes = Budget(norm, 0), []
    for queries in (50, 200, 600):
        found = HopSkipJump(queries=queries, probes=30).closest(victim(steps), x, labels, budget, rng())
        assert victim(steps).fooled(found, labels).all()
        sizes.append(np.median(budget.size_of(found, x)))
    assert sizes[0] > 1.2 * sizes[1] > 1.3 * sizes[2]


def test_hop_skip_jump_needs_nothing_but_labels() -> None:
    x, labels = samples(8)
    blind = label_victim(lambda real: victim().scores(real).argmax(1), 10, victim().sensor)
    attack = HopSkipJump(queries=300, probes=30)
    first, second = (attack(target, x, labels, L2, rng()) for target in (victim(), blind))
    assert np.array_equal(first, second) and victim().fooled(first, labels).sum() > 2


def test_a_few_pixels_change_and_those_that_evolve_fool_more_than_random_ones() -> None:
    x, labels = samples()
    attack = OnePixel(queries=600, population=30)
    found = {count: attack(victim(), x, labels, Budget(Norm.L0, count), rng()) for count in (0, 1, 3)}
    turned = {count: victim().fooled(moved, labels).sum() for count, moved in found.items()}
    assert all((moved != x).any(-1).sum((1, 2)).max() <= count for count, moved in found.items())
    assert turned[0] == 0 < turned[1] < turned[3]
    drawn = OnePixel(queries=601, population=600)(victim(), x, labels, Budget(Norm.L0, 3), rng())
    assert turned[3] > victim().fooled(drawn, labels).sum()


def test_one_pixel_changes_all_channels_of_a_place_at_once() -> None:
    x = np.zeros((2, 5, 4, 3), np.float32)
    target = score_victim(lambda real: np.minimum(real.max((1, 2)), 0.5).sum(1) - 1.4, Sensor(low=0.0, high=1.0))
    found = OnePixel(queries=1000, population=50)(target, x, np.zeros(2, np.int64), Budget(Norm.L0, 1), rng())
    assert target.fooled(found, np.zeros(2, np.int64)).all()


@pytest.mark.parametrize("target", [None, 8])
def test_what_is_not_seen_keeps_its_thresholds_and_lifts_the_score(target: int | None) -> None:
    x, labels = samples(25)
    chosen = labels != 8
    x, labels = x[chosen], labels[chosen]

    def height(z: Array) -> Array:
        logits = victim().logits(z)
        return -margins(logits, labels) if target is None else margins(logits, np.full(len(z), target))

    lifts = []
    for least in (0.999, 0.97, 0.9):
        attack = Imperceptible(queries=80, correlation=least, similarity=least, target=target)
        found = attack(victim(), x, labels, Budget(Norm.LINF, 0.5), rng())
        assert correlation(found, x).min() >= least and ssim(found, x).min() >= least
        assert (height(found) >= height(x)).all()
        lifts.append((height(found) - height(x)).mean())
    assert 0 < lifts[0] < lifts[1] < lifts[2] and lifts[1] > 0.5


def test_the_score_of_a_binary_classifier_is_lifted_over_its_threshold() -> None:
    x, labels = samples(25)
    x = x[labels != 3]

    def is_three(real: Array) -> Array:
        others = np.delete(victim().scores(real), 3, axis=1)
        return 1 / (1 + np.exp(others.max(1) - victim().scores(real)[:, 3]))

    target, none = score_victim(is_three, victim().sensor, threshold=0.5), np.zeros(len(x), np.int64)
    assert not target.fooled(x, none).any()
    found = Imperceptible(queries=200, similarity=0.9, correlation=0.9, target=1)(
        target, x, none, Budget(Norm.LINF, 0.5), rng()
    )
    called = target.fooled(found, none)
    assert called.sum() > 2 and (is_three(found[called]) > 0.5).all()
    assert (is_three(found) >= is_three(x)).all()


def test_ssim_is_its_definition_and_correlation_is_numpys() -> None:
    x, y = rng().random((2, 3, 14, 13, 2))
    bell = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    for one, other, found in zip(x, y, ssim(x, y), strict=True):
        values = []
        for top, left, channel in np.ndindex(4, 3, 2):
            a, b = (image[top : top + 11, left : left + 11, channel] for image in (one, other))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            shared = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(luminance * (2 * shared + 9e-4) / (var_a + var_b + 9e-4))
        assert np.isclose(found, np.mean(values), atol=1e-9)
    assert np.allclose(ssim(x, x), 1) and (ssim(x, 1 - x) < 0).all()
    assert np.allclose(correlation(x, y), [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x, y, strict=True)])
    flat = np.ones((1, 8, 8, 1))
    assert correlation(flat, flat) == 1 and correlation(flat, x[:1, :8, :8, :1]) == 0


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = Design(graph=integers(), target=load_target("stm32l4r5"))
    with firmware_of(design, digits().train.real(slice(0, 1))) as folder:
        Native.build(folder), Image.link(folder, Core.CORTEX_M4)
        return folder.rename(tmp_path_factory.mktemp("c") / "firmware")


def decoded(run: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Scores after the softmax, from the codes of an executor."""
    quant = integers().types[integers().outputs[0]].quant
    assert quant is not None
    return lambda real: np.log(np.maximum(quant.decode(run(real)), quant.scale[0] / 2))


@pytest.mark.parametrize("attack", [Square(queries=40), HopSkipJump(queries=120, probes=20)], ids=str)
def test_the_emitted_c_is_fooled_by_the_same_samples_as_the_exact_executor(firmware: Path, attack: Attack) -> None:
    x, labels = samples(12)
    native = firmware_victim(integers(), Native.build(firmware), victim().sensor)
    exact = score_victim(decoded(lambda real: execute(integers(), real)), victim().sensor)
    assert np.array_equal(native.logits(x), exact.logits(x))
    found, twin = (attack(target, x, labels, L2, rng()) for target in (native, exact))
    assert np.array_equal(found, twin) and (found != x).any()
    assert np.array_equal(native.logits(found).argmax(1), victim().logits(found).argmax(1))


def test_the_emulated_firmware_is_a_victim_too(firmware: Path) -> None:
    x, labels = samples(2)
    emulated = firmware_victim(integers(), Image.link(firmware, Core.CORTEX_M4), victim().sensor)
    native = firmware_victim(integers(), Native.build(firmware), victim().sensor)
    found, twin = (Square(queries=6)(target, x, labels, LINF, rng()) for target in (emulated, native))
    assert np.array_equal(found, twin) and (found != x).any()


def test_a_function_that_calls_unknown_labels_is_refused() -> None:
    x, labels = samples(2)
    with pytest.raises(InputError, match=r"outside 0…4; give the number"):
        label_victim(lambda real: np.full(len(real), 5), 5, victim().sensor).fooled(x, labels)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Square(queries=0), "queries must be at least 1"),
        (lambda: Square(p_init=0.0), "p_init must lie above 0"),
        (lambda: HopSkipJump(probes=0), "probes must be at least 1"),
        (lambda: Spsa(queries=10, pairs=8), "or no step can be made"),
        (lambda: OnePixel(population=3), "population must be at least 4"),
        (lambda: Imperceptible(similarity=1.5), "similarity must lie in"),
        (lambda: PatchSearch(queries=5), "or nothing can be tried"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(build: Callable[[], Attack], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build()


def test_samples_that_an_attack_cannot_change_are_refused() -> None:
    x, labels = np.zeros((2, 6), np.float32), np.zeros(2, np.int64)
    target = score_victim(lambda real: real.mean(1) - 2, Sensor(low=0.0, high=1.0))
    with pytest.raises(InputError, match="needs pixels with channels"):
        OnePixel()(target, x, labels, PIXELS, rng())
    with pytest.raises(InputError, match="at least 3×3 pixels, got"):
        Square()(target, x, labels, L2, rng())
    with pytest.raises(InputError, match="needs images"):
        Imperceptible()(target, x, labels, LINF, rng())
    with pytest.raises(InputError, match="target 7 is not one of 2 classes"):
        Imperceptible(target=7)(stubborn(), np.zeros((2, 8, 8, 1), np.float32), labels, LINF, rng())

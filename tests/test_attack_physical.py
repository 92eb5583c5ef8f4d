"""What happens to pictures in the world: stickers, turns and shifts, noise, blur, light and compression."""

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from attack_networks import digits, in_integers, trained
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.corruption import Corruption, corrupt, corrupted_accuracy
from crosslayer.attack.patch import AdversarialPatch, PatchSearch
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.spatial import Shifts, shifts
from crosslayer.attack.sticker import Scene, fooled_by, side_of
from crosslayer.attack.victim import Victim
from crosslayer.attack.warp import sample, sample_alike, spread, turned
from crosslayer.core.errors import InputError
from crosslayer.core.quant import Array
from crosslayer.flow import execute

PATCH = Budget(Norm.PATCH, 0.25)
Stuck = AdversarialPatch | PatchSearch


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@cache
def victim() -> Victim:
    """The int8 digits network."""
    graph = in_integers(trained(), digits().train.real(slice(0, 128)))
    return Victim.of(graph, Sensor(low=0.0, high=1.0, steps=16), execute)


def of_class(which: int, split: str, count: int = 40) -> tuple[Array, Array]:
    """Images of one class that are called right, and labels."""
    chosen = getattr(digits(), split)
    x, labels = chosen.real(), chosen.labels
    right = np.flatnonzero((labels == which) & ~victim().fooled(x, labels))[:count]
    return x[right], labels[right]


@pytest.mark.parametrize("attack", [AdversarialPatch(steps=40), PatchSearch(queries=200)], ids=lambda a: a.name())
def test_a_sticker_turns_a_class_wherever_it_lies_on_images_it_was_not_made_for(attack: Stuck) -> None:
    sticker = attack.sticker(victim(), *of_class(8, "train"), PATCH, rng())
    assert sticker.shape == (4, 4, 1) and np.array_equal(sticker * 16, np.rint(sticker * 16))
    fresh = of_class(8, "validation")
    share = fooled_by(victim(), sticker, *fresh, attack.scene, 30, rng(1)).mean()
    random = [fooled_by(victim(), rng(i).random((4, 4, 1)), *fresh, attack.scene, 30, rng(1)).mean() for i in range(5)]
    assert share > 2 * max(random) and share > 0.6


@pytest.mark.parametrize("attack", [AdversarialPatch(steps=40), PatchSearch(queries=200)], ids=lambda a: a.name())
def test_a_sticker_makes_images_the_class_that_it_is_made_for(attack: Stuck) -> None:
    attack = replace(attack, target=2)
    sticker = attack.sticker(victim(), *of_class(6, "train"), PATCH, rng())
    fresh = of_class(6, "validation")
    share = fooled_by(victim(), sticker, *fresh, attack.scene, 30, rng(1), 2).mean()
    random = [
        fooled_by(victim(), rng(i).random((4, 4, 1)), *fresh, attack.scene, 30, rng(1), 2).mean() for i in range(5)
    ]
    assert share > 4 * max(random) and share > 0.06


@pytest.mark.parametrize("attack", [AdversarialPatch(steps=5, draws=8), PatchSearch(queries=25, draws=8)])
def test_attacked_images_have_the_sticker_somewhere_and_nothing_else_changed(attack: Stuck) -> None:
    x, labels = of_class(4, "validation")
    for share in (0.05, 0.1, 0.25, 1.0):
        budget = Budget(Norm.PATCH, share)
        found = attack(victim(), x, labels, budget, rng())
        assert budget.holds(found, x).all() and np.array_equal(found * 16, np.rint(found * 16))
        assert (found != x).any()


def test_patch_search_asks_each_sample_exactly_its_queries() -> None:
    calls: list[int] = []

    def scores(real: Array) -> Array:
        calls.append(len(real))
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(real), 1))

    target = Victim(sensor=Sensor(low=0.0, high=1.0), scores=scores)
    PatchSearch(queries=70, draws=9)(
        target, rng().random((6, 8, 8, 1), np.float32), np.zeros(6, np.int64), PATCH, rng()
    )
    assert calls == [6] * 70


def test_no_placement_leaves_the_square_that_the_share_allows() -> None:
    for side, degrees in ((1, 45.0), (4, 0.0), (5, 180.0), (7, 20.0)):
        scene = Scene(degrees=degrees, scale=0.5)
        covered = scene.draw(3000, side, (9, 12, 1), rng()).covered[..., 0]
        for axis in (1, 2):
            hit = covered.any(axis)
            extent = hit.shape[1] - hit[:, ::-1].argmax(1) - hit.argmax(1)
            assert extent[hit.any(1)].max() <= side
        assert covered.any((0, 1))[[0, -1]].all() and covered.any((0, 2))[[0, -1]].all()


def test_the_slope_of_a_sticker_is_that_of_the_images_it_lies_on() -> None:
    scene, images = Scene(degrees=30, light=0.3), rng().random((5, 9, 8, 2))
    placements, slopes = scene.draw(5, 4, images.shape[1:], rng()), rng(1).normal(size=images.shape)
    sticker = rng(2).uniform(0.1, 0.7, (4, 4, 2))
    pulled = placements.pull(slopes, sticker)
    for place in np.ndindex(sticker.shape):
        step = np.zeros(sticker.shape)
        step[place] = 0.01
        rise = (placements.put(sticker + step, images) - placements.put(sticker - step, images)) / 0.02
        assert np.isclose((slopes * rise).sum(), pulled[place], atol=1e-3)


def test_spreading_is_the_adjoint_of_sampling() -> None:
    images, places = rng().random((3, 6, 5, 2)), rng(1).uniform(-2, 7, (3, 4, 7, 2))
    slopes = rng(2).normal(size=(3, 4, 7, 2))
    there = (sample(images, places) * slopes).sum()
    assert np.isclose(there, (images * spread(slopes, places, images.shape)).sum(), rtol=1e-5)
    alike = np.broadcast_to(places[:1], places.shape)
    assert np.allclose(sample_alike(images, places[0]), sample(images, alike), atol=1e-6)


def test_images_turn_and_shift_as_a_whole() -> None:
    images = rng().random((2, 5, 5, 3)).astype(np.float32)
    right, none = np.full(2, math.pi / 2), np.zeros((2, 2))
    assert np.allclose(sample(images, turned(5, 5, right, none)), np.rot90(images, axes=(1, 2)), atol=1e-6)
    moved = sample(images, turned(5, 5, np.zeros(2), np.array([[1.0, 2.0]] * 2)))
    assert np.array_equal(moved[:, 1:, 2:], images[:, :-1, :-2]) and (moved[:, :1] == 0).all()


def test_fewer_images_withstand_the_more_they_turn_and_shift() -> None:
    x, labels = digits().validation.real(slice(0, 60)), digits().validation.labels[:60]
    clean = 1 - victim().fooled(x, labels).mean()
    grids = [Shifts(degrees=0, pixels=0, angles=1, places=1)]
    grids += [Shifts(degrees=degrees, pixels=1, angles=5, places=3) for degrees in (2, 30)]
    robust = [shifts(victim(), x, labels, grid).mean() for grid in grids]
    assert robust[0] == clean > robust[1] > robust[2]
    worst, fooled = grids[1].worst(victim(), x, labels)
    assert np.array_equal(victim().fooled(worst, labels), fooled)
    assert np.array_equal(worst * 16, np.rint(worst * 16))


def test_all_shifts_of_the_grid_are_asked_and_the_published_grid_has_775() -> None:
    calls: list[int] = []

    def scores(real: Array) -> Array:
        calls.append(len(real))
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(real), 1))

    target = Victim(sensor=Sensor(low=0.0, high=1.0), scores=scores)
    assert shifts(target, np.zeros((2, 4, 4, 1), np.float32), np.zeros(2, np.int64)).all()
    assert calls == [2] * 775


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corruption", Corruption)
def test_corruptions_grow_with_severity_and_repeat_with_the_seed(corruption: Corruption, channels: int) -> None:
    smooth = np.stack(np.meshgrid(np.linspace(0, 3, 32), np.linspace(0, 5, 32)), -1).sum(-1)
    waves = 0.5 + 0.35 * np.sin(smooth[..., None] * np.array([1.0, 2.0, 3.0])[:channels])
    x = np.clip(waves + 0.1 * rng(3).normal(size=(4, 32, 32, channels)), 0, 1).astype(np.float32)
    changes = []
    for severity in range(1, 6):
        moved = corrupt(x, corruption, severity, rng())
        assert moved.shape == x.shape and moved.dtype == np.float32 and moved.min() >= 0 and moved.max() <= 1
        assert np.array_equal(moved, corrupt(x, corruption, severity, rng()))
        changes.append(float(np.abs(moved - x).mean()))
    assert changes[0] > 0 and all(b > 0.98 * a for a, b in itertools.pairwise(changes))
    assert changes[4] > 1.1 * changes[0]


def test_noise_has_the_strength_that_its_severity_says() -> None:
    grey = np.full((20, 32, 32, 1), 0.5, np.float32)
    assert np.isclose(corrupt(grey, Corruption.GAUSSIAN_NOISE, 3, rng()).std(), 0.08, rtol=0.02)
    assert np.isclose(corrupt(grey, Corruption.SHOT_NOISE, 5, rng()).std(), math.sqrt(0.5 / 50), rtol=0.02)
    assert np.isclose((corrupt(grey, Corruption.IMPULSE_NOISE, 5, rng()) != 0.5).mean(), 0.07, rtol=0.05)
    assert np.isclose(corrupt(grey, Corruption.SPECKLE_NOISE, 1, rng()).std(), 0.5 * 0.06, rtol=0.02)
    assert np.allclose(corrupt(grey, Corruption.BRIGHTNESS, 4, rng()), 0.7)
    assert np.allclose(corrupt(grey, Corruption.CONTRAST, 5, rng()), 0.5)
    red = np.zeros((1, 2, 2, 3), np.float32)
    red[..., 0] = 0.4
    assert np.allclose(corrupt(red, Corruption.BRIGHTNESS, 2, rng())[0, 0, 0], [0.5, 0, 0])


@pytest.mark.parametrize("corruption", [c for c in Corruption if "blur" in c])
def test_a_blur_keeps_flat_images_and_smooths_others(corruption: Corruption) -> None:
    flat = np.full((1, 32, 32, 1), 0.3, np.float32)
    assert np.allclose(corrupt(flat, corruption, 5, rng()), flat, atol=1e-6)
    dot = np.zeros((1, 33, 33, 1), np.float32)
    dot[0, 16, 26] = 1
    blurred = corrupt(dot, corruption, 5, rng())
    assert 0 < blurred.max() < 0.5
    assert corruption is Corruption.ZOOM_BLUR or np.isclose(blurred.sum(), 1, rtol=0.05)


def test_accuracy_falls_under_corruption_and_repeats_with_the_seed() -> None:
    x, labels = digits().validation.real(), digits().validation.labels
    chosen = (Corruption.CONTRAST, Corruption.IMPULSE_NOISE)
    found = corrupted_accuracy(victim(), x, labels, rng(), chosen)
    assert tuple(found) == chosen and all(len(row) == 5 for row in found.values())
    clean = 1 - victim().fooled(x, labels).mean()
    assert all(row[4] < row[0] <= clean + 0.02 for row in found.values())
    assert found == corrupted_accuracy(victim(), x, labels, rng(), chosen)


def test_what_makes_no_sense_is_refused() -> None:
    x, labels = np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int64)
    with pytest.raises(InputError, match="covers no pixel of 8×8; give a larger share"):
        PatchSearch()(victim(), x, labels, Budget(Norm.PATCH, 0.01), rng())
    with pytest.raises(InputError, match="stickers lie on images"):
        side_of(PATCH, (8,))
    with pytest.raises(InputError, match="target 10 is not one of 10 classes"):
        AdversarialPatch(target=10)(victim(), x, labels, PATCH, rng())
    with pytest.raises(InputError, match="light must be at least 0 and below 1"):
        Scene(light=1.0)
    with pytest.raises(InputError, match="severity 6 is not one of"):
        corrupt(x, Corruption.JPEG, 6, rng())
    with pytest.raises(InputError, match="grey or colour images"):
        corrupt(np.zeros((2, 8, 8, 2), np.float32), Corruption.JPEG, 1, rng())
    with pytest.raises(InputError, match="shifts are of images"):
        shifts(victim(), np.zeros((2, 8), np.float32), labels)
    with pytest.raises(InputError, match=r"degrees must lie in 0…180"):
        Shifts(degrees=-1)

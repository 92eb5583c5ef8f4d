"""Randomized smoothing on the sensor's grid: what it proves holds for every other input of tiny networks."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from commands import TINY, call
from crosslayer.attack.budget import Budget
from crosslayer.attack.sensor import Sensor
from crosslayer.core.errors import InputError
from crosslayer.core.graph.build import Builder
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.ops import Relu
from crosslayer.core.quant import Array
from crosslayer.core.score import clopper_pearson
from crosslayer.evaluate.smoothing import ABSTAINS, Smoothing, cumulative, noise, radius, smooth, smoothing_score
from crosslayer.execute import exact
from test_certificate import classifier, pixels

STEPS = 5
LEVELS = Sensor(low=0.0, high=1.0, steps=STEPS)
GRID = np.array(list(itertools.product(range(STEPS + 1), repeat=2)))
"""All inputs of two pixels."""


def normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def moves(deviation: float) -> Array:
    """P(clip(own + k) = seen) by own and seen level, with k as a Gaussian rounded to whole steps."""
    edges = [-math.inf, *(level + 0.5 for level in range(STEPS)), math.inf]
    shares = [[normal((edge - own) / deviation) for edge in edges] for own in range(STEPS + 1)]
    return np.diff(np.array(shares), axis=1)


def labels_of(graph: Graph) -> Array:
    """What the network calls each input of `GRID`."""
    return exact.run(graph, LEVELS.real((GRID / STEPS).astype(np.float32))).reshape(len(GRID), -1).argmax(1)


def probabilities(called: Array, deviation: float, classes: int = 3) -> Array:
    """The exact probability of each class (inputs, classes), at each input of `GRID`, in noise."""
    one = moves(deviation)
    both = one[GRID[:, 0]][:, GRID[:, 0]] * one[GRID[:, 1]][:, GRID[:, 1]]
    assert np.allclose(both.sum(1), 1)
    return both @ np.eye(classes)[called]


def contradictions(shares: Array, deviation: float, stretch: float = 1.0) -> tuple[int, int]:
    """Pairs of inputs, the second within the radius of the first (stretched), and those with another class."""
    pairs = wrong = 0
    for own, exactly in zip(GRID, shares, strict=True):
        reach = stretch * radius(min(float(exactly.max()), 1 - 1e-12), deviation)  # what float64 can tell from 1
        near = np.sqrt(((GRID - own) ** 2).sum(1)) < reach
        pairs += int(near.sum())
        wrong += int((shares[near, exactly.argmax()] <= 0.5).sum())
    return pairs, wrong


@pytest.mark.parametrize("deviation", [0.4, 0.8, 1.5, 3.0])
def test_no_input_within_the_radius_has_another_class(deviation: float) -> None:
    rng, pairs = np.random.default_rng(0), 0
    for _ in range(60):
        called = labels_of(classifier(rng, 2))
        found, wrong = contradictions(probabilities(called, deviation), deviation)
        assert wrong == 0
        pairs += found
    for _ in range(300):  # any function of the grid will do: that is all the theorem asks for
        found, wrong = contradictions(probabilities(rng.integers(0, 2, len(GRID)), deviation), deviation)
        assert wrong == 0
        pairs += found
    assert pairs > 20_000


def test_a_radius_that_is_a_little_larger_would_be_contradicted() -> None:
    halves = np.where(GRID[:, 0] <= 2, 0, 1)
    shares = probabilities(halves, 1.5)
    assert contradictions(shares, 1.5)[1] == 0
    assert contradictions(shares, 1.5, stretch=1.25)[1] > 0


@pytest.mark.parametrize("deviation", [0.3, 1.0, 40.0])
def test_noise_has_the_probabilities_of_a_rounded_gaussian(deviation: float) -> None:
    table, count = cumulative(deviation, 255), 400_000
    drawn = noise(table, (count,), np.random.default_rng(0))
    assert np.abs(drawn).max() <= 255
    for k in range(-3, 4):
        share = normal((k + 0.5) / deviation) - normal((k - 0.5) / deviation)
        assert abs((drawn == k).mean() - share) < 5 * math.sqrt(share * (1 - share) / count) + 1e-9
    whole = [int(end) / 2**64 for end in table]
    assert all(abs(end - normal((k + 0.5) / deviation)) < 2**-50 for k, end in enumerate(whole, -255))


def test_what_is_certified_is_exactly_true_and_nearly_all_of_it() -> None:
    rng, smoothing = np.random.default_rng(1), Smoothing(noise=0.3, draws=2000, alpha=0.01)
    certified = too_far = 0
    shortfall: list[float] = []
    for seed in range(12):
        graph = classifier(rng, 2)
        truth = probabilities(labels_of(graph), smoothing.noise * STEPS)
        found = smooth(graph, LEVELS.real((GRID / STEPS).astype(np.float32)), LEVELS, smoothing, exact.run, seed=seed)
        for share, label, far in zip(truth, found.classes, found.radii, strict=True):
            most = radius(min(float(share[label]), 1 - 1e-12), smoothing.noise) if label != ABSTAINS else 0.0
            certified += label != ABSTAINS
            too_far += far > most
            if label != ABSTAINS and share[label] < 0.999:
                shortfall.append(most - far)
            if share.max() > 0.6:
                assert label == share.argmax()
    assert certified > 300
    assert too_far <= 0.03 * certified  # 1 % is allowed by alpha
    assert np.mean(shortfall) < 0.05


@pytest.mark.parametrize(("hits", "trials", "alpha"), [(0, 10, 0.05), (7, 10, 0.05), (999, 1000, 0.001), (50, 50, 0.1)])
def test_the_bound_of_a_share_is_where_so_many_hits_become_unlikely(hits: int, trials: int, alpha: float) -> None:
    bound = clopper_pearson(hits, trials, alpha)
    tail = sum(math.comb(trials, k) * bound**k * (1 - bound) ** (trials - k) for k in range(hits, trials + 1))
    assert (bound == 0) if hits == 0 else tail == pytest.approx(alpha, rel=1e-9)


def test_the_bound_of_a_share_holds_as_often_as_it_says() -> None:
    hits = np.random.default_rng(0).binomial(100, 0.9, 5000)
    beyond = np.mean([clopper_pearson(int(k), 100, 0.05) > 0.9 for k in hits])
    assert 0.01 < beyond <= 0.06


def test_the_score_falls_as_the_budget_grows_and_says_what_is_proved() -> None:
    rng = np.random.default_rng(2)
    graph, split = classifier(rng, 4), pixels(rng, 50, 4)
    sensor, smoothing = Sensor(low=0.0, high=1.0, steps=15), Smoothing(noise=0.3, draws=500)
    scores = [
        smoothing_score(graph, split, Budget.parse(text), sensor, smoothing, exact.run) for text in ("l2 0", "l2 0.2")
    ]
    again = smoothing_score(graph, split, Budget.parse("l2 0"), sensor, smoothing, exact.run)
    assert scores[0] == again
    assert 1 > scores[0].value > scores[1].value
    assert scores[0].low < scores[0].value < scores[0].high
    assert "99.9 %" in scores[0].note and "l2 0.2" in scores[1].note and "50 samples" in scores[0].note


def floats() -> Graph:
    b = Builder()
    return b.graph(b.add(Relu(), b.input("x", (4,))))


def test_what_cannot_be_smoothed_is_refused() -> None:
    rng = np.random.default_rng(0)
    graph, split, sensor = classifier(rng, 4), pixels(rng, 2, 4), Sensor(low=0.0, high=1.0, steps=15)
    with pytest.raises(InputError, match="smoothing certifies l2 budgets, not linf"):
        smoothing_score(graph, split, Budget.parse("linf 0.1"), sensor, Smoothing(), exact.run)
    with pytest.raises(InputError, match="this is a float network; quantize it first"):
        smooth(floats(), split.real(), sensor, Smoothing(), exact.run)
    with pytest.raises(InputError, match="this sensor has none; give integer data"):
        smooth(graph, split.real(), Sensor(low=0.0, high=1.0), Smoothing(), exact.run)
    with pytest.raises(InputError, match="noise must be above 0"):
        Smoothing(noise=0.0)


def test_a_study_trains_in_noise_and_the_command_certifies_the_vote(tmp_path: Path) -> None:
    study = TINY.replace('use = "train"\nepochs = 1', 'use = "train-noisy"\nnoise = 0.2\nepochs = 10\nbatch = 64')
    (tmp_path / "study.toml").write_text(study)
    answer = call("run", tmp_path / "study.toml", "--out", tmp_path / "run")
    assert answer.status == 0, answer.err
    options = ("--data", "digits", "--samples", "30", "--method", "smoothing", "--noise", "0.2", "--draws", "200")
    answer = call("certify", tmp_path / "run", *options, "--budget", "l2 0.1", "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)["value"] > 0.5
    for given, says in (
        (("--method", "prayer", "--budget", "l2 0.1"), "write bounds or smoothing"),
        (("--method", "smoothing", "--budget", "linf 0.1"), "smoothing certifies l2 budgets"),
    ):
        answer = call("certify", tmp_path / "run", "--data", "digits", *given)
        assert answer.status == 2 and says in " ".join(answer.err.split())
